"""Layers and image size by a word: the same relative depths of every transformer, the same strides of every CNN."""

from __future__ import annotations

import dataclasses

import pytest

from patchead.encoders import EncoderSpec, build, describe
from patchead.encoders.build import chosen
from patchead.encoders.choice import image_size_of, layers_of
from patchead.encoders.spec import Architecture
from patchead.errors import SettingsError

CONSTANTS = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def vit(depth: int, patch: int = 14) -> Architecture:
    return Architecture("timm/vit", patch, depth, 64, 224, *CONSTANTS)


def cnn(*strides: int) -> Architecture:
    levels = tuple((16 * (i + 1), stride) for i, stride in enumerate(strides))
    return Architecture("timm/cnn", strides[-1], len(strides), levels[-1][0], 224, *CONSTANTS, levels=levels)


@pytest.mark.parametrize(
    ("depth", "auto", "quarters"),
    [
        (12, (6, 9, 12), (3, 6, 9, 12)),
        (24, (12, 18, 24), (6, 12, 18, 24)),
        (32, (16, 24, 32), (8, 16, 24, 32)),
        (40, (20, 30, 40), (10, 20, 30, 40)),
        (50, (25, 38, 50), (13, 25, 38, 50)),
        (6, (3, 5, 6), (2, 3, 5, 6)),
        (2, (1, 2), (1, 2)),
        (1, (1,), (1,)),
    ],
)
def test_words_name_the_same_depths_of_every_transformer(
    depth: int, auto: tuple[int, ...], quarters: tuple[int, ...]
) -> None:
    assert layers_of("auto", vit(depth)) == auto
    assert layers_of("quarters", vit(depth)) == quarters
    assert layers_of("last", vit(depth)) == ()
    assert layers_of([2, 1], vit(depth)) == (2, 1)


@pytest.mark.parametrize(
    ("strides", "levels"),
    [
        ((2, 4, 8, 16, 32), (3, 4)),  # ResNet, EfficientNet: the levels 3+4 of docs/results.md
        ((4, 8, 16, 32), (2, 3)),  # ConvNeXt
        ((4, 8, 16, 16), (2, 4)),  # the last of a stride
        ((2, 4, 8), (3,)),
        ((2, 4), (2,)),
        ((4, 32), (2,)),
    ],
)
def test_auto_takes_the_same_strides_of_every_cnn(strides: tuple[int, ...], levels: tuple[int, ...]) -> None:
    assert layers_of("auto", cnn(*strides)) == levels
    assert layers_of("last", cnn(*strides)) == ()


@pytest.mark.parametrize(
    ("patch", "size"),
    [(7, 448), (8, 448), (14, 448), (16, 448), (32, 448), (12, 444), (10, 450), (256, 512), (600, 600)],
)
def test_the_size_is_448_or_the_nearest_multiple_of_the_patch_size(patch: int, size: int) -> None:
    assert image_size_of("auto", (), vit(12, patch)) == size
    assert image_size_of(224, (), vit(12, patch)) == 224


def test_of_a_cnn_the_coarsest_stride_that_is_taken_counts() -> None:
    assert image_size_of("auto", (1, 2), cnn(10, 20, 60)) == 440
    assert image_size_of("auto", (), cnn(10, 20, 60)) == 420
    assert image_size_of("auto", (1,), cnn(10, 20, 60)) == 450
    layers, size = chosen("timm/resnet18", "random", [3, 9], "auto")
    with pytest.raises(SettingsError, match=r"`layers` must be feature levels of timm/resnet18, 1 to 5"):
        describe(EncoderSpec("timm/resnet18", "random", size, layers))


def test_other_words_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"`layers` must be one of auto, last, quarters, or numbers .*'all'"):
        layers_of("all", vit(12))
    with pytest.raises(SettingsError, match=r"`image_size` must be auto or a number of pixels; got 'large'"):
        image_size_of("large", (), vit(12))


def test_a_model_is_asked_only_where_a_word_is_given() -> None:
    assert chosen("timm/no_such_model", "hub", [6], 64) == ((6,), 64)
    assert chosen("timm/vit_base_patch14_dinov2", "random", "auto", "auto") == ((6, 9, 12), 448)
    assert chosen("timm/resnet18", "random", "auto", 224) == ((3, 4), 224)
    with pytest.raises(SettingsError, match=r"`name` must be a model of timm; got 'timm/no_such_model'"):
        chosen("timm/no_such_model", "hub", "auto", 64)


def test_a_chosen_spec_builds() -> None:
    layers, size = chosen("timm/test_vit", "random", "auto", "auto")
    spec = EncoderSpec("timm/test_vit", "random", size, layers)
    encoder = build(spec)
    assert (encoder.grid, encoder.dim) == ((28, 28), 3 * describe(dataclasses.replace(spec, layers=())).dim)

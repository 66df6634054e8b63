"""Views to embeddings by a real encoder: an image that cannot be compared is left out, the others do not notice."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from patchead.encoders import Encoder, EncoderSpec, build
from patchead.errors import PatcheadError
from patchead.samples.align import Alignment
from patchead.samples.embed import EmbeddedSamples, SampleEmbedder
from patchead.samples.recipe import SampleRecipe
from tests.helpers.faulty_weights import dark, edges_alone, overflowing_vit, white
from tests.helpers.sample_photos import photos

SIDE, GRID, PATCHES = 32, (2, 2), 4
VIEWS = [[True, True, False], [True, True, True], [True, False, False]]
PIXELS = dark(photos(6, SIDE))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    overflowing_vit(file, block=3)
    return file


def encoder_of(weights: Path, *, attention: bool = False, layers: tuple[int, ...] = ()) -> Encoder:
    return build(EncoderSpec("timm/test_vit", str(weights), SIDE, layers, attention=attention))


def run(embedder: SampleEmbedder, pixels: np.ndarray, views: Sequence[Sequence[bool]] = VIEWS) -> EmbeddedSamples:
    """Samples of which these views exist."""
    valid = np.repeat(np.array(views)[..., None], PATCHES, axis=2)
    motions = np.arange(valid.shape[0] * valid.shape[1] * 6, dtype=np.float32).reshape(*valid.shape[:2], 2, 3)
    return embedder.embed(pixels, valid, motions)


@pytest.mark.parametrize("few_shot", [False, True])
@pytest.mark.parametrize(("attention", "layers"), [(False, ()), (True, ()), (True, (2,))])
def test_one_bad_view_leaves_its_sample_out(
    weights: Path, few_shot: bool, attention: bool, layers: tuple[int, ...]
) -> None:
    recipe = SampleRecipe(SIDE, "squash", GRID, Alignment(), few_shot=few_shot)
    encoder = encoder_of(weights, attention=attention, layers=layers)
    embedder = SampleEmbedder(encoder, recipe, batch_size=4)
    whole = run(embedder, PIXELS)
    assert whole.faults == ["", "", ""]
    spoiled = PIXELS.copy()
    spoiled[4] = white(1, SIDE)  # the last view of the second sample
    some = run(embedder, spoiled)
    assert some.usable.tolist() == [True, False, True]
    what = "attention that is infinite or NaN" if layers else "a vector that is zero, infinite or NaN"
    assert some.faults[1].startswith(f"the encoder gives {what}")
    assert some.faults[1].endswith("; look at the image or, where many fail, at `dtype` and `layers`")
    np.testing.assert_array_equal(some.embeddings, whole.embeddings[some.usable])
    every, found = whole.side_arrays.columns(), some.side_arrays.columns()
    assert found.keys() == every.keys()
    assert ("attention" in found) == attention
    for name in found:
        np.testing.assert_array_equal(found[name], every[name][some.usable])


def test_a_portion_of_bad_images_alone_is_no_reason_to_stop_once_one_was_good(weights: Path) -> None:
    embedder = SampleEmbedder(encoder_of(weights), SampleRecipe(SIDE, "squash", GRID), batch_size=2)
    assert run(embedder, PIXELS[:1], [[True]]).usable.all()
    bright = 255 - photos(6, SIDE) // 64
    found = run(embedder, bright, [[True]] * 6)
    assert found.embeddings.shape == (0, PATCHES, 64)
    assert found.side_arrays.columns() == {}
    assert not found.usable.any()
    embedder.require_one()


@pytest.mark.parametrize("batch_size", [2, 8])
def test_when_none_of_the_first_two_batches_is_usable_it_is_the_encoder(weights: Path, batch_size: int) -> None:
    """Of batches of less than eight, none of the first sixteen images: two photos say nothing of an encoder."""
    spec = EncoderSpec("timm/test_vit", str(weights), SIDE)
    bright = 255 - photos(18, SIDE) // 64
    for dtype, remedy in (("fp32", "Check `weights`"), ("fp16", "Set `dtype` to bf16 or fp32")):
        encoder = build(dataclasses.replace(spec, dtype=dtype))
        embedder = SampleEmbedder(encoder, SampleRecipe(SIDE, "squash", GRID), batch_size=batch_size)
        assert not run(embedder, bright[:15], [[True]] * 15).usable.any()
        with pytest.raises(PatcheadError, match=rf"timm/test_vit in {dtype} gives every image .* NaN.*\. {remedy}"):
            run(embedder, bright[15:], [[True]] * 3)


def test_a_camera_that_is_off_is_one_image_however_often_it_fires(tmp_path: Path) -> None:
    spec = EncoderSpec("timm/resnet18", edges_alone(tmp_path / "edges.safetensors"), 128, (2,))
    recipe = SampleRecipe(128, "squash", (32, 32))
    embedder = SampleEmbedder(build(spec), recipe, batch_size=2)
    valid, motions = np.ones((8, 1, 1024), bool), np.zeros((8, 1, 2, 3), np.float32)
    found = embedder.embed(np.full((8, 128, 128, 3), 90, np.uint8), valid, motions)
    assert not found.usable.any()
    with pytest.raises(PatcheadError, match="timm/resnet18 in fp32 gives every image a vector that is zero"):
        embedder.require_one()  # but if they were all there are, there is nothing to score
    assert embedder.embed(photos(1, 128), valid[:1], motions[:1]).usable.all()
    embedder.require_one()

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchead.encoders.spec import Architecture, EncoderSpec, check_spec, shape_of
from patchead.errors import SettingsError

VIT = Architecture("timm/vit", 14, 12, 384, 518, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SPEC = EncoderSpec("timm/vit")


@given(st.integers(1, 60), st.lists(st.integers(1, 12), unique=True, max_size=4))
def test_the_shape_follows_from_size_and_layers(side: int, layers: list[int]) -> None:
    shape = shape_of(dataclasses.replace(SPEC, image_size=14 * side, layers=tuple(layers)), VIT)
    assert shape.grid == (side, side)
    assert shape.n_patches == side * side
    assert shape.dim == 384 * max(1, len(layers))
    assert (shape.image_size, shape.patch_size) == (14 * side, 14)


@given(st.integers(1, 1000).filter(lambda size: size % 14))
def test_a_size_between_patches_is_refused_with_one_that_works(size: int) -> None:
    with pytest.raises(SettingsError, match=r"`image_size` must be a multiple .* 14; got") as refused:
        shape_of(dataclasses.replace(SPEC, image_size=size), VIT)
    suggested = int(str(refused.value).rsplit("Try ", 1)[1].rstrip("."))
    assert abs(suggested - size) <= max(7, 14 - size)
    assert shape_of(dataclasses.replace(SPEC, image_size=suggested), VIT).image_size == suggested


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"`layers` must be blocks of timm/vit, 1 to 12; got \[6, 13\]"):
        shape_of(dataclasses.replace(SPEC, layers=(6, 13)), VIT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "tim/vit"}, r"`name` must be .*Did you mean 'timm'"),
        ({"name": "vit_small_patch14_dinov2"}, r"`name` must be timm/<model> or open_clip/<model>"),
        ({"name": "timm/"}, r"`name` must be"),
        ({"dtype": "auto"}, r"`dtype` must be one of fp32, fp16, bf16; got 'auto'"),
        ({"device": "tpu"}, r"`device` must be one of cpu, cuda"),
        ({"layers": (6, 6)}, r"`layers` must be different blocks"),
    ],
)
def test_what_is_wrong_with_any_model_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_spec(dataclasses.replace(SPEC, **change))
    check_spec(SPEC)

from __future__ import annotations

import pytest

from patchead.encoders import EncoderSpec, build, describe
from patchead.encoders.registry import REGISTRY, resolve
from patchead.errors import SettingsError


@pytest.mark.parametrize("size", [96, 160])
def test_describe_and_build_agree(size: int) -> None:
    spec = EncoderSpec("timm/test_vit", "random", size, layers=(2, 4, 6))
    shape, encoder = describe(spec), build(spec)
    assert (shape.grid, shape.dim, shape.n_patches) == (encoder.grid, encoder.dim, encoder.n_patches)
    assert (shape.image_size, shape.patch_size) == (encoder.image_size, 16)
    for part in ("timm/test_vit", "random", f"{size} px", "blocks [2, 4, 6]", "fp32 on cpu"):
        assert part in encoder.description


def test_settings_are_refused_before_weights_are_fetched() -> None:
    with pytest.raises(SettingsError, match=r"`image_size`"):
        build(EncoderSpec("timm/vit_small_patch14_dinov2", "s3://bucket/absent.pt", 450))


@pytest.mark.parametrize("size", [224, 448, 518, 672])
@pytest.mark.parametrize("name", ["dinov2-small", "dinov2-base", "dinov2-giant-reg"])
def test_the_sizes_of_the_method_fit_dinov2(name: str, size: int) -> None:
    shape, side = describe(EncoderSpec(resolve(name), "hub", size)), size // 14
    assert (shape.grid, shape.n_patches, shape.dim) == ((side, side), side * side, REGISTRY[name].dim)
    assert side * 14 == size


def test_describing_a_large_encoder_takes_neither_memory_nor_weights() -> None:
    shape = describe(EncoderSpec("timm/vit_giant_patch14_dinov2", "hub", 518))  # 1.1 billion parameters
    assert (shape.grid, shape.dim, shape.n_patches) == ((37, 37), 1536, 1369)

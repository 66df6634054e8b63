"""CNNs of timm as encoders: feature levels instead of blocks, resized to the finest grid among those taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from patchead.encoders.spec import unsupported


def levels_of(model: Any, name: str) -> tuple[tuple[int, int], ...]:
    """List (width, stride) of each feature level, the finest first: timm's ``feature_info``.

    Raises:
        SettingsError: the model gives no feature levels.
    """
    info = getattr(model, "feature_info", None)
    if not info or not hasattr(model, "forward_intermediates"):
        raise unsupported(name, f"It is a {type(model).__name__}.")
    return tuple((int(level["num_chs"]), int(level["reduction"])) for level in info)


def check_levels(model: Any, name: str, native_size: int) -> None:
    """Run ``model`` without memory or values, away from its native size, and compare what comes out with `levels_of`.

    Args:
        model: on the meta device.

    Raises:
        SettingsError: it takes images of one size alone, or its maps are not what timm says (hierarchical
            transformers with windows, for one).
    """
    levels = levels_of(model, name)
    size = 4 * levels[-1][1]
    size += size * (size == native_size)
    expected = [(1, width, size // stride, size // stride) for width, stride in levels]
    try:
        maps = feature_maps(model.eval(), torch.empty(1, 3, size, size, device="meta"), list(range(len(levels))))
    except (AssertionError, RuntimeError, ValueError, TypeError) as exc:
        raise unsupported(name, f"It is a {type(model).__name__} that does not take {size} px images.") from exc
    if [tuple(level.shape) for level in maps] != expected:
        raise unsupported(name, f"It is a {type(model).__name__} whose feature maps are not one grid per level.")


def feature_maps(model: Any, images: Tensor, indices: list[int]) -> list[Tensor]:
    """Turn images (B, 3, S, S) into one raw map (B, width, h, w) per level of ``indices`` (from 0), on its own grid."""
    return model.forward_intermediates(
        images, indices=indices, norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )


def patch_tokens(model: Any, images: Tensor, indices: list[int], norm: bool) -> list[Tensor]:
    """Turn images (B, 3, S, S) into one float32 tensor (B, P, width) per level of ``indices`` (from 0, ascending).

    P is the finest level's grid; coarser maps are resized to it, bilinearly. ``norm`` is for transformers: the levels
    of a CNN have no final norm.
    """
    maps = [level.float() for level in feature_maps(model, images, indices)]
    grid = maps[0].shape[-2:]
    resized = (
        level if level.shape[-2:] == grid else interpolate(level, grid, mode="bilinear", align_corners=False)
        for level in maps
    )
    return [level.flatten(2).transpose(1, 2) for level in resized]

"""Every registered encoder, built with random weights at two sizes and compared with its library's own forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from patchead.encoders import Encoder, EncoderSpec, build, open_clip_encoder, timm_encoder
from patchead.encoders.registry import REGISTRY, Registered
from tests.helpers.sample_photos import photos

# One per way through timm; open_clip's is in test_open_clip_encoder.py. The others take up to ten seconds each, or
# gigabytes: run by make test-slow.
QUICK = {
    "dinov2-small",  # timm's VisionTransformer: absolute positions that include the class token
    "dinov2-small-reg",  # with registers, which have no positions
    "dinov3-small",  # Eva with rotary positions alone
    "eva02-small",  # rotary and absolute positions
    "pe-spatial-tiny",  # the same, under another name in timm
    "beitv2-base",  # relative positions
    "tf-efficientnet-lite0",  # a CNN
}
ONE_SIZE = {"beitv2-base"}  # seconds each: the second size is slow
SIDES = (4, 6)  # patches, of transformers; 2 and 3 of the coarsest stride of CNNs
CASES = [
    pytest.param(name, place, marks=() if name in QUICK and (not place or name not in ONE_SIZE) else pytest.mark.slow)
    for name in REGISTRY
    for place in range(len(SIDES))
]


@pytest.fixture
def native_positions(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The position embeddings of every transformer built during the test, as they were before any resampling."""
    seen: list[Tensor] = []
    create, tower = timm_encoder.timm.create_model, open_clip_encoder._tower

    def watched_model(*args: Any, **kwargs: Any) -> Any:
        model = create(*args, **kwargs)
        if getattr(model, "pos_embed", None) is not None and model.pos_embed.device.type == "cpu":
            seen.append(model.pos_embed.detach().clone())
        return model

    def watched_tower(config: dict[str, Any], image_size: int | None = None) -> Any:
        clip = tower(config, image_size)
        if image_size is None and clip.visual.positional_embedding.device.type == "cpu":
            seen.append(clip.visual.positional_embedding.detach().clone()[None])
        return clip

    monkeypatch.setattr(timm_encoder.timm, "create_model", watched_model)
    monkeypatch.setattr(open_clip_encoder, "_tower", watched_tower)
    return seen


def pixels(images: np.ndarray, registered: Registered) -> Tensor:
    mean, std = (np.asarray(values, np.float32) for values in (registered.mean, registered.std))
    return torch.from_numpy(((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())


def by_the_library(encoder: Encoder, registered: Registered, images: np.ndarray) -> np.ndarray:
    """The last layer's unit vectors by the model's ordinary forward pass, CLS and registers cut off."""
    module: Any = encoder._module
    with torch.inference_mode():
        if registered.library_name.startswith("open_clip/"):
            module.output_tokens = True
            tokens = module(pixels(images, registered))[1]
            module.output_tokens = False
        elif hasattr(module, "num_prefix_tokens"):
            tokens = module.forward_features(pixels(images, registered))[:, module.num_prefix_tokens :]
        else:
            maps = module.forward_intermediates(pixels(images, registered), intermediates_only=True)
            tokens = maps[-1].flatten(2).transpose(1, 2)
    return normalize(tokens, dim=-1).numpy()


def resampled(native: Tensor, side: int, prefix: int) -> Tensor:
    """Positions (1, prefix + P, D) to a grid of ``side``: bicubic with antialias, prefix as it is."""
    patches = native[:, prefix:]
    old = round(patches.shape[1] ** 0.5)
    grid = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = interpolate(grid, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([native[:, :prefix], grid.flatten(2).transpose(1, 2)], dim=1)


def check_positions(module: Any, native: list[Tensor], side: int) -> None:
    """Absolute positions are the native ones resampled; relative and rotary ones are of this grid."""
    if hasattr(module, "positional_embedding"):
        torch.testing.assert_close(module.positional_embedding[None], resampled(native[-1], side, 1))
    elif getattr(module, "pos_embed", None) is not None:
        prefix = module.pos_embed.shape[1] - side * side
        assert prefix in (0, 1)
        torch.testing.assert_close(module.pos_embed, resampled(native[-1], side, prefix))
    else:
        table = getattr(module.blocks[0].attn, "relative_position_bias_table", None)
        assert (table is None) is (getattr(module, "rope", None) is not None)
        if table is not None:
            assert len(table) == (2 * side - 1) ** 2 + 3


@pytest.mark.parametrize(("name", "place"), CASES)
def test_tokens_at_two_sizes(name: str, place: int, native_positions: list[Tensor]) -> None:
    registered = REGISTRY[name]
    transformer = "convnext" not in name and registered.patch_size < 32
    side = (SIDES if transformer else (2, 3))[place]
    size = side * registered.patch_size
    encoder = build(EncoderSpec(registered.library_name, "random", size, attention=registered.mask))
    images = photos(2, size)
    embedded = encoder.embed(images)
    vectors, maps = embedded.all_vectors(), embedded.attention
    assert (vectors.shape, vectors.dtype) == ((2, side * side, registered.dim), np.float16)
    assert (encoder.grid, encoder.dim) == ((side, side), registered.dim)
    assert (encoder.mean, encoder.std) == (registered.mean, registered.std)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=-1), 1, atol=1e-3)
    np.testing.assert_allclose(vectors, by_the_library(encoder, registered, images), atol=1e-3)
    if transformer:
        check_positions(encoder._module, native_positions, side)
    if registered.mask:
        assert maps is not None
        assert maps.shape == (2, side * side)
        assert (maps.min(1).tolist(), maps.max(1).tolist()) == ([0, 0], [1, 1])

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from patchead.encoders import EncoderSpec, build, describe
from patchead.encoders.base import _encoder_id
from patchead.encoders.timm_encoder import architecture
from patchead.encoders.unfilled import to_be_loaded
from patchead.errors import SettingsError, WeightsError
from tests.helpers.faulty_weights import edges_alone
from tests.helpers.sample_photos import photos

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# model, constants, (width, stride) of each level
MODELS = [
    ("resnet18", IMAGENET, ((64, 2), (64, 4), (128, 8), (256, 16), (512, 32))),
    ("tf_efficientnet_lite0", HALF, ((16, 2), (24, 4), (40, 8), (112, 16), (320, 32))),
    ("convnext_atto", IMAGENET, ((40, 4), (80, 8), (160, 16), (320, 32))),
]
SPEC = EncoderSpec("timm/resnet18", "random", 128)


def pixels(images: np.ndarray, mean_std: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    mean, std = (np.asarray(values, np.float32) for values in mean_std)
    return torch.from_numpy(((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())


def features_only(name: str, model: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    """Every level by timm's own features_only network, given the weights of ``model``: (B, C, h, w), float64."""
    with to_be_loaded():
        network = timm.create_model(name, features_only=True).eval()
    theirs, ours = network.state_dict(), model.state_dict()
    state = {key: ours[key.replace("stages_", "stages.").replace("stem_", "stem.")] for key in theirs}
    network.load_state_dict(state, strict=True)
    with torch.inference_mode():
        return [level.double().numpy() for level in network(images)]


def resized(maps: np.ndarray, side: int) -> np.ndarray:
    """Bilinear, pixel centres aligned, the border repeated: (B, C, h, w) to (B, C, side, side)."""
    old = maps.shape[-1]
    at = np.clip((np.arange(side) + 0.5) * old / side - 0.5, 0, old - 1)
    low = np.minimum(at.astype(int), max(old - 2, 0))
    high, share = np.minimum(low + 1, old - 1), at - low
    maps = maps[..., low, :] * (1 - share)[:, None] + maps[..., high, :] * share[:, None]
    return maps[..., low] * (1 - share) + maps[..., high] * share


def by_hand(levels: list[np.ndarray]) -> np.ndarray:
    """Each level to the finest grid, to length 1, side by side, to length 1: (B, P, D)."""
    side = max(level.shape[-1] for level in levels)
    vectors = [resized(level, side).reshape(*level.shape[:2], -1).swapaxes(1, 2) for level in levels]
    vectors = [level / np.linalg.norm(level, axis=-1, keepdims=True) for level in vectors]
    return np.concatenate(vectors, axis=-1) / len(vectors) ** 0.5


@pytest.mark.parametrize(("name", "mean_std", "levels"), MODELS)
@pytest.mark.parametrize("layers", [(), (2,), (3, 2), (2, 3, 4)])
def test_embeddings_are_those_of_features_only(
    name: str,
    mean_std: tuple[tuple[float, ...], ...],
    levels: tuple[tuple[int, int], ...],
    layers: tuple[int, ...],
) -> None:
    spec = EncoderSpec(f"timm/{name}", "random", 96, layers=layers)
    encoder, shape, images = build(spec), describe(spec), photos(2, 96)
    taken = [levels[layer - 1] for layer in sorted(layers)] or [levels[-1]]
    side = 96 // min(stride for _, stride in taken)
    assert shape.grid == encoder.grid == (side, side)
    assert shape.n_patches == encoder.n_patches == side * side
    assert shape.dim == encoder.dim == sum(width for width, _ in taken)
    assert shape.patch_size == 96 // side
    assert (encoder.mean, encoder.std) == mean_std
    assert architecture(spec).levels == levels
    maps = features_only(name, encoder._module, pixels(images, mean_std))
    embeddings = encoder.embed(images).vectors
    assert embeddings.dtype == np.float16
    expected = by_hand([maps[layer - 1] for layer in sorted(layers) or [len(maps)]])
    np.testing.assert_allclose(embeddings, expected, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(embeddings.astype(np.float32), axis=-1), 1, atol=1e-3)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01


@pytest.mark.parametrize(
    ("layers", "size", "stride"), [((), 112, 32), ((2, 5), 208, 32), ((2, 3), 100, 8), ((1,), 127, 2), ((), 16, 32)]
)
def test_a_size_is_a_multiple_of_the_coarsest_stride_taken(layers: tuple[int, ...], size: int, stride: int) -> None:
    spec = dataclasses.replace(SPEC, layers=layers, image_size=size)
    pattern = rf"`image_size` must be a multiple of timm/resnet18's coarsest stride {stride}; got {size}"
    with pytest.raises(SettingsError, match=pattern) as refused:
        describe(spec)
    suggested = int(str(refused.value).rsplit("Try ", 1)[1].rstrip("."))
    shape = describe(dataclasses.replace(spec, image_size=suggested))
    assert shape.grid[0] * shape.patch_size == suggested


def test_a_level_that_does_not_exist_is_refused() -> None:
    expected = r"`layers` must be feature levels of timm/resnet18, 1 to 5; got \[2, 6\]"
    with pytest.raises(SettingsError, match=expected):
        describe(dataclasses.replace(SPEC, layers=(2, 6)))


def test_a_file_is_loaded_strictly(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = timm.create_model("resnet18").eval()
    with torch.no_grad():
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.1, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    file = tmp_path / "resnet.safetensors"
    save_file(model.state_dict(), file)
    encoder, images = build(dataclasses.replace(SPEC, weights=str(file), layers=(2, 3))), photos(2, 128)
    maps = features_only("resnet18", model, pixels(images, IMAGENET))
    np.testing.assert_allclose(encoder.embed(images).vectors, by_hand(maps[1:3]), atol=1e-3)
    assert encoder.weights_digest == build(dataclasses.replace(SPEC, weights=str(file))).weights_digest
    assert encoder.weights_digest != build(SPEC).weights_digest
    state = model.state_dict()
    del state["layer1.0.bn1.running_var"]
    save_file(state, file)
    with pytest.raises(WeightsError, match=r"do not fit timm/resnet18.*layer1\.0\.bn1\.running_var"):
        build(dataclasses.replace(SPEC, weights=str(file)))


def test_levels_are_part_of_the_id_in_any_order() -> None:
    described = architecture(SPEC)
    ids = [
        _encoder_id(dataclasses.replace(SPEC, layers=layers), described, "digest") for layers in ((), (2, 3), (3, 2))
    ]
    assert len(set(ids)) == 2
    assert ids[0].startswith("resnet18-")


def test_the_batch_size_does_not_matter() -> None:
    encoder, images = build(dataclasses.replace(SPEC, layers=(2, 3))), photos(9, 128)
    together = encoder.embed(images).vectors.astype(np.float32)
    parts = np.concatenate([encoder.embed(images[start : start + 2]).vectors for start in range(0, 9, 2)])
    assert np.abs(parts - together).max() <= 2**-10
    assert "feature levels [2, 3]" in encoder.description


@pytest.mark.parametrize("layers", [(), (2,), (2, 3)])
def test_a_flat_photo_is_unusable_alone(tmp_path: Path, layers: tuple[int, ...]) -> None:
    spec = dataclasses.replace(SPEC, weights=edges_alone(tmp_path / "edges.safetensors"), layers=layers)
    encoder, images = build(spec), photos(3, 128)
    expected = encoder.embed(images).all_vectors()
    images[1] = 90
    found = encoder.embed(images)
    assert found.usable.tolist() == [True, False, True]
    np.testing.assert_array_equal(found.vectors[::2], expected[::2])
    assert not found.vectors[1].any(axis=-1).all()


@pytest.mark.parametrize("name", ["convnext_base", "RN50"])
def test_open_clip_cnns_are_refused_with_a_reason(name: str) -> None:
    with pytest.raises(SettingsError, match=r"of timm, a CNN with feature levels.*got 'open_clip/"):
        describe(EncoderSpec(f"open_clip/{name}", "random", 224))

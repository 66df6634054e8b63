from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch.nn.functional import normalize

from patchead.encoders import EncoderSpec, build, describe
from patchead.encoders.timm_encoder import architecture
from patchead.errors import SettingsError
from tests.helpers.sample_photos import photos

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

# model, patch size, prefix tokens, two image sizes, mean and std
MODELS = [
    ("vit_tiny_patch16_224", 16, 1, (224, 96), HALF),
    ("vit_small_patch14_dinov2", 14, 1, (112,), IMAGENET),
    ("vit_small_patch14_reg4_dinov2", 14, 5, (140,), IMAGENET),
    ("eva02_tiny_patch14_224", 14, 1, (224, 112), CLIP),
    ("vit_small_patch16_dinov3", 16, 5, (96,), IMAGENET),
    ("test_vit_relpos", 16, 0, (96, 160), HALF),
]


def by_hand(
    name: str, size: int, images: np.ndarray, mean_std: tuple[tuple[float, ...], ...], prefix: int
) -> np.ndarray:
    """The same tokens by timm's ordinary forward pass: final norm over all tokens, then the prefix cut off."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    model.set_input_size(img_size=size)
    mean, std = (np.asarray(values, np.float32) for values in mean_std)
    pixels = torch.from_numpy(((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        tokens = model.forward_features(pixels)[:, prefix:]
    return normalize(tokens, dim=-1).numpy()


@pytest.mark.parametrize(
    ("name", "patch", "prefix", "size", "mean_std"),
    [(name, patch, prefix, size, ms) for name, patch, prefix, sizes, ms in MODELS for size in sizes],
)
def test_patch_tokens_are_those_of_the_ordinary_forward_pass(
    name: str, patch: int, prefix: int, size: int, mean_std: tuple[tuple[float, ...], ...]
) -> None:
    spec = EncoderSpec(f"timm/{name}", "random", size)
    encoder = build(spec)
    images = photos(2, size)
    embeddings = encoder.embed(images).vectors
    side = size // patch
    assert encoder.grid == (side, side)
    assert (encoder.mean, encoder.std) == mean_std
    assert embeddings.dtype == np.float16
    assert embeddings.shape == (2, side * side, encoder.dim) == (2, encoder.n_patches, describe(spec).dim)
    np.testing.assert_allclose(np.linalg.norm(embeddings.astype(np.float32), axis=-1), 1, atol=1e-3)
    np.testing.assert_allclose(embeddings, by_hand(name, size, images, mean_std, prefix), atol=1e-3)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01


def test_named_blocks_are_taken_raw_and_in_their_order() -> None:
    encoder = build(EncoderSpec("timm/test_vit", "random", 160, layers=(5, 2)))
    outputs: dict[int, torch.Tensor] = {}
    for block in (2, 5):
        encoder._module.blocks[block - 1].register_forward_hook(
            lambda module, inputs, output, block=block: outputs.__setitem__(block, output[:, 1:])
        )
    embeddings = encoder.embed(photos(2, 160)).vectors
    expected = torch.cat([normalize(outputs[2], dim=-1), normalize(outputs[5], dim=-1)], dim=-1) / 2**0.5
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=1e-3)


def test_several_layers_give_the_mean_of_their_cosines() -> None:
    images = photos(2, 160)

    def cosines(*layers: int) -> np.ndarray:
        vectors = (
            build(EncoderSpec("timm/test_vit", "random", 160, layers=layers)).embed(images).vectors.astype(np.float32)
        )
        return vectors[0] @ vectors[1].T

    together, alone = cosines(1, 3, 6), [cosines(layer) for layer in (1, 3, 6)]
    assert np.abs(alone[0] - alone[2]).max() > 0.05  # the layers do differ
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=2e-3)


def test_the_last_layer_is_the_last_block_after_the_final_norm() -> None:
    images = photos(1, 160)
    default = build(EncoderSpec("timm/test_vit", "random", 160)).embed(images).vectors
    named = build(EncoderSpec("timm/test_vit", "random", 160, layers=(6,))).embed(images).vectors
    assert default.shape == named.shape
    assert np.abs(default - named).max() > 1e-3


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224", "hiera_tiny_224", "naflexvit_base_patch16_gap"]
)
def test_models_with_neither_one_token_grid_nor_feature_levels_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"`name` must be a vision transformer .*CNN.*got 'timm/{name}'"):
        describe(EncoderSpec(f"timm/{name}", "random", 224))


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("timm/vit_smal_patch14_dinov2", "hub", "a model of timm; got .* Did you mean 'vit_small_patch14_dinov2'"),
        ("timm/vit_small_patch14_dinov2", "hub:lvd142", r"hub tags \(lvd142m\); got 'lvd142'.*Did you mean 'lvd142m'"),
        ("timm/vit_small_patch14_dinov2.lvd", "random", "the hub tag must be one of"),
        ("timm/vit_tiny_patch16_224.augreg_in21k", "hub:augreg_in21k_ft_in1k", "Give the tag once"),
        ("timm/vit_giant_patch14_224", "hub", "it has none"),
    ],
)
def test_unknown_names_and_tags_are_refused_with_the_nearest(name: str, weights: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        describe(EncoderSpec(name, weights, 224))


def test_the_tag_chooses_mean_and_std() -> None:
    names = [f"timm/vit_base_patch16_224.{tag}" for tag in ("augreg_in21k", "dino")]
    assert [architecture(EncoderSpec(name)).mean for name in names] == [HALF[0], IMAGENET[0]]
    by_weights = architecture(EncoderSpec("timm/vit_base_patch16_224", "hub:dino"))
    assert by_weights == architecture(EncoderSpec(names[1]))

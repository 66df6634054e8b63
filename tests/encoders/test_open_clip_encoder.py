from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import normalize

from patchead.encoders import EncoderSpec, build, describe
from patchead.encoders.open_clip_encoder import architecture
from patchead.errors import SettingsError, WeightsError
from tests.helpers.sample_photos import photos

OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def pixels(images: np.ndarray, mean_std: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    mean, std = (np.asarray(values, np.float32) for values in mean_std)
    return torch.from_numpy(((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole CLIP ViT-S-32 checkpoint, text tower included."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(open_clip.create_model("ViT-S-32", pretrained=None).state_dict(), path)
    return path


@pytest.mark.parametrize(("size", "side"), [pytest.param(224, 7, marks=pytest.mark.slow), (320, 10)])
def test_patch_tokens_are_those_of_open_clips_own_forward_pass(checkpoint: Path, size: int, side: int) -> None:
    spec = EncoderSpec("open_clip/ViT-S-32", str(checkpoint), size)
    encoder = build(spec)
    images = photos(2, size)
    embeddings = encoder.embed(images).vectors
    clip = open_clip.create_model("ViT-S-32", pretrained=str(checkpoint), force_image_size=size).eval()
    clip.visual.output_tokens = True
    with torch.inference_mode():
        tokens = clip.visual(pixels(images, OPENAI))[1]  # after ln_post, before proj, CLS cut off
    assert embeddings.shape == (2, side * side, 384)
    assert (describe(spec).grid, encoder.grid) == ((side, side), (side, side))
    assert (encoder.mean, encoder.std) == OPENAI
    np.testing.assert_allclose(embeddings, normalize(tokens, dim=-1).numpy(), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(embeddings.astype(np.float32), axis=-1), 1, atol=1e-3)


def test_named_blocks_are_taken_raw(checkpoint: Path) -> None:
    encoder = build(EncoderSpec("open_clip/ViT-S-32", str(checkpoint), 224, layers=(4, 12)))
    outputs: list[torch.Tensor] = []
    for block in (3, 11):
        encoder._module.transformer.resblocks[block].register_forward_hook(
            lambda module, inputs, output: outputs.append(output[:, 1:])
        )
    embeddings = encoder.embed(photos(1, 224)).vectors
    expected = torch.cat([normalize(tokens, dim=-1) for tokens in outputs], dim=-1) / 2**0.5
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=1e-3)


@pytest.mark.slow
def test_an_image_tower_alone_gives_the_same_encoder(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    tower = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    save_file(tower, tmp_path / "tower.safetensors")
    specs = [EncoderSpec("open_clip/ViT-S-32", str(file), 224) for file in (checkpoint, tmp_path / "tower.safetensors")]
    assert len({build(spec).encoder_id for spec in specs}) == 1
    del tower["ln_post.bias"]
    save_file(tower, tmp_path / "tower.safetensors")
    with pytest.raises(WeightsError, match=r"do not fit open_clip/ViT-S-32.*ln_post\.bias"):
        build(specs[1])


def test_random_weights_are_the_same_every_time() -> None:
    spec = EncoderSpec("open_clip/ViT-S-32", "random", 224)
    assert build(spec).encoder_id == build(spec).encoder_id


@pytest.mark.slow
def test_a_tower_from_timm_works_at_another_size() -> None:
    spec = EncoderSpec("open_clip/vit_medium_patch16_gap_256", "random", 160)
    encoder = build(spec)
    images = photos(1, 160)
    trunk: nn.Module = encoder._module.trunk
    with torch.inference_mode():
        tokens = trunk.forward_features(pixels(images, OPENAI))
    assert encoder.grid == describe(spec).grid == (10, 10)
    np.testing.assert_allclose(encoder.embed(images).vectors, normalize(tokens, dim=-1).numpy(), atol=1e-3)


def test_the_hub_tag_chooses_activation_mean_and_std() -> None:
    def described(model: str, tag: str) -> tuple[str, tuple[float, ...], tuple[float, ...]]:
        of = architecture(EncoderSpec(f"open_clip/{model}", f"hub:{tag}"))
        return of.name, of.mean, of.std

    assert described("ViT-B-16", "openai") == ("open_clip/ViT-B-16-quickgelu", *OPENAI)
    assert described("ViT-B-16-quickgelu", "openai") == ("open_clip/ViT-B-16-quickgelu", *OPENAI)
    assert described("ViT-B-16", "laion2b_s34b_b88k") == ("open_clip/ViT-B-16", *OPENAI)
    assert described("ViT-L-14", "laion2b_s32b_b82k") == ("open_clip/ViT-L-14", *HALF)
    assert described("ViT-B-16-SigLIP", "webli") == ("open_clip/ViT-B-16-SigLIP", *HALF)


@pytest.mark.parametrize("model", ["RN50", "convnext_base", "coca_ViT-B-32", "MobileCLIP-S1"])
def test_models_without_a_token_grid_are_refused(model: str) -> None:
    with pytest.raises(SettingsError, match=rf"`name` must be a vision transformer .*got 'open_clip/{model}'"):
        describe(EncoderSpec(f"open_clip/{model}", "random", 224))


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("ViT-B16", "hub", r"a model of open_clip; got .* Did you mean 'ViT-B-16'"),
        ("ViT-B-16", "hub:openaai", r"hub tags .* got 'openaai'.*Did you mean 'openai'"),
        ("ViT-S-32", "hub", "it has none"),
    ],
)
def test_unknown_names_and_tags_are_refused_with_the_nearest(model: str, weights: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        describe(EncoderSpec(f"open_clip/{model}", weights, 224))

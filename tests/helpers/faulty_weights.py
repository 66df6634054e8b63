"""Weights with which one image, and no other, comes out without a direction: files for real encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

_LARGEST = {"fp32": 1e38, "fp16": 6e4, "bf16": 1e38}
_BRIGHTNESS = 0.005  # of every pixel, in the first channel of a patch: above 0 where it is brighter than mid-grey
_BRIGHT = 3.0  # of that channel after the layer norm


def overflowing_vit(file: Path, *, block: int = 0, dtype: str = "fp32") -> str:
    """A random ``timm/test_vit`` in which a white patch overflows in the MLP of ``block``; returns the file's name.

    One neuron of that MLP is off, exactly 0, unless a patch is much brighter than mid-grey; what it gives then does not
    fit ``dtype``. `dark` images come out as they do without that neuron.
    """
    torch.manual_seed(5)
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    state["patch_embed.proj.weight"][0] = _BRIGHTNESS
    state["patch_embed.proj.bias"][0] = 0
    first, second = f"blocks.{block}.mlp.fc1", f"blocks.{block}.mlp.fc2"
    state[f"{first}.weight"][0] = 0
    state[f"{first}.weight"][0, 0] = 1000.0
    state[f"{first}.bias"][0] = -1000.0 * _BRIGHT
    state[f"{second}.weight"][:, 0] = _LARGEST[dtype]
    save_file(state, file)
    return str(file)


def edges_alone(file: Path) -> str:
    """A random ``timm/resnet18`` that answers to edges alone: of a flat photo its levels are zero but at the border."""
    torch.manual_seed(5)
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    state["conv1.weight"] -= state["conv1.weight"].mean(dim=(2, 3), keepdim=True)
    state["bn1.bias"] -= 1e-3  # a rounding of 0 is no edge
    save_file(state, file)
    return str(file)


def dark(images: np.ndarray) -> np.ndarray:
    """The images with nothing brighter than mid-grey."""
    return images // 2


def white(count: int, side: int) -> np.ndarray:
    """uint8 (count, side, side, 3)."""
    return np.full((count, side, side, 3), 255, np.uint8)

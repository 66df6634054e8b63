from __future__ import annotations

import timm
import torch
from torch import nn

from patchead.encoders.unfilled import to_be_loaded, without_memory


def test_a_model_without_memory_is_the_model_without_its_values() -> None:
    with without_memory():
        found = timm.create_model("test_vit", num_classes=0).state_dict()
    expected = timm.create_model("test_vit", num_classes=0).state_dict()
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in expected.items()
    }
    assert all(tensor.is_meta for tensor in found.values())


def test_a_parameter_that_is_not_loaded_shows() -> None:
    with to_be_loaded():
        model = timm.create_model("test_vit", num_classes=0)
    assert model.blocks[0].attn.qkv.weight.isnan().all()
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    del state["blocks.0.attn.qkv.weight"]
    model.load_state_dict(state, strict=False)
    assert model(torch.zeros(1, 3, 160, 160)).isnan().all()


def test_buffers_and_arithmetic_are_as_they_are() -> None:
    with to_be_loaded():
        layer, buffer = nn.Linear(2, 2), torch.empty(3).normal_()
        checkpoint = nn.Parameter(torch.ones(2), requires_grad=False).mul_(3)
    assert layer.weight.isnan().all()
    assert buffer.isfinite().all()
    assert checkpoint.tolist() == [3, 3]

"""What `patchead encoders` says of speed: the operations that torch counts."""

from __future__ import annotations

import open_clip
import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from patchead.encoders.advice import ADVICE, DEFAULT, GFLOP, advised_table, speed, work
from patchead.encoders.registry import REGISTRY
from patchead.settings.method import EncoderConfig

QUICK = ("dinov2-small", "dinov3-small", "dinov3-convnext-tiny", "tf-efficientnet-lite0")


def counted(library_name: str) -> int:
    """Operations of a forward pass over one image of 448 px, without memory for any of it."""
    library, _, model = library_name.partition("/")
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        if library == "open_clip":
            forward = open_clip.create_model(model, force_image_size=448, device="meta").visual.eval()
        else:
            sized = {} if any(word in model for word in ("convnext", "resnet", "efficientnet")) else {"img_size": 448}
            forward = timm.create_model(model, num_classes=0, **sized).eval().forward_features
        forward(torch.empty(1, 3, 448, 448))
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in GFLOP]
)
def test_the_operations_are_those_that_torch_counts(name: str) -> None:
    assert counted(REGISTRY[name].library_name) / 1e9 == pytest.approx(GFLOP[name], abs=0.06)


def test_every_encoder_has_a_speed_and_some_advice() -> None:
    rows = {row["name"]: row for row in advised_table()}
    assert list(rows) == list(REGISTRY) == list(GFLOP)
    assert set(ADVICE) <= set(REGISTRY)
    assert REGISTRY[DEFAULT].library_name.startswith(EncoderConfig().name)
    assert (work(DEFAULT), speed(DEFAULT), rows[DEFAULT]["advice"]) == (1, "fast", "first; measured")
    assert [speed(name) for name in ("tf-efficientnet-lite0", "dinov2-base", "dinov2-large", "dinov2-giant")] == [
        *("fastest", "medium", "slow", "slowest"),
    ]
    for row in rows.values():
        assert ("no commercial use" in row["licence"]) == ("research only" in row["advice"])

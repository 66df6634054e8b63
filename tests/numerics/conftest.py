"""Fixtures of the numerics tests."""

from __future__ import annotations

import pytest
import torch

from patchead.numerics import kmean, leave_one_out, products, similarity, vectors


@pytest.fixture
def torch_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """`vectors.room` from torch's allocator, where a test can count it."""
    for module in (kmean, leave_one_out, products, similarity, vectors):
        monkeypatch.setattr(module, "room", lambda shape, dtype, device: torch.empty(shape, dtype=dtype, device=device))

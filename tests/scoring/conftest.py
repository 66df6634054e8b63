"""Fixtures of the scoring tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from patchead.scoring import block_maxima, burn_out, leave_one_out, nearest_mean, precision, query_block, similarity


@pytest.fixture(autouse=True, scope="module")
def two_threads() -> Iterator[None]:
    """Budgets and blocks are shared out over threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def torch_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`precision.allocate` from torch's allocator, where a test can count it."""
    for module in (nearest_mean, burn_out, leave_one_out, query_block, block_maxima, similarity, precision):
        monkeypatch.setattr(
            module, "allocate", lambda shape, dtype, device: torch.empty(shape, dtype=dtype, device=device)
        )

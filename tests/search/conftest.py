"""Fixtures of the tests of bound and refine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def threads_put_back() -> Iterator[None]:
    """The number of threads is as it was afterwards."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)

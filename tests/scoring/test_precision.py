from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from patchead.errors import PatcheadError, SettingsError
from patchead.scoring import precision
from patchead.scoring.precision import DTYPES, allocate, dtype_of, matmul_dtype, maxima_dtype, prepare
from tests.helpers.groups import group
from tests.reference import oracle


def test_prepare_makes_unit_vectors_of_read_only_arrays_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "PREPARE_VALUES", 1000)
    z = group(9, 35)
    z.flags.writeable = False
    got = prepare(z)
    np.testing.assert_allclose(got.norm(dim=-1), 1, atol=1e-6)
    np.testing.assert_allclose(got, oracle.unit(z), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_refused_by_place(value: float) -> None:
    z = group(6, 5)
    z[4, 3] = value
    with pytest.raises(PatcheadError, match=r"patch 3 of image 4 .*zero, infinite or NaN"):
        prepare(z)
    with pytest.raises(PatcheadError, match="patch 3 of image 104 "):
        prepare(z, positions=np.arange(100, 106))


def test_what_cannot_be_prepared_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"`precision` must be one of fp32, fp16, bf16, int8; got 'fp64'"):
        prepare(group(2, 2), precision="fp64")
    for wrong in (np.zeros((2, 3), np.float16), np.zeros((2, 0, 3), np.float16), np.zeros((2, 3, 4), np.int8)):
        with pytest.raises(ValueError, match="embeddings must be floats"):
            prepare(wrong)


def test_each_precision_has_a_type_for_products_and_one_for_their_maxima() -> None:
    for name, dtype in DTYPES.items():
        assert dtype_of(name) == dtype
    assert matmul_dtype(torch.int8) == torch.int32
    assert maxima_dtype(torch.int8) == torch.float32
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert matmul_dtype(dtype) == maxima_dtype(dtype) == dtype


@pytest.mark.parametrize("shape", [(2, 3, 5), (0, 4), (7,)])
def test_room_can_be_filled(shape: tuple[int, ...]) -> None:
    made = allocate(shape, torch.float32, "cpu")
    assert (made.shape, made.dtype, made.is_contiguous()) == (shape, torch.float32, True)
    assert torch.equal(made.fill_(3), torch.full(shape, 3.0))


def test_room_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    size = 1 << 26
    made = allocate((size,), torch.uint8, "cpu").fill_(1)
    held = resident()
    del made
    pages = size // os.sysconf("SC_PAGE_SIZE")
    assert held - resident() > 0.9 * pages

"""The kernel for GPUs, in Triton's interpreter on this CPU, beside float64; the interpreter does not know bfloat16."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from patchead.scoring.fused_maxima import is_fused

SCRIPT = """
import torch
from patchead.scoring import fused_kernel
from patchead.scoring.fused_maxima import fused_maxima, fused_maxima_self

fused_kernel.FLOATS = fused_kernel.INTEGERS = fused_kernel.Tile(16, 32, 16, 1, 1)
own = torch.Generator().manual_seed(3)


def drawn(dtype, *shape):
    if dtype == torch.int8:
        return torch.randint(-127, 128, shape, dtype=dtype, generator=own)
    return torch.nn.functional.normalize(torch.randn(shape, generator=own), dim=-1).to(dtype)


def gap(found, right):
    return float((found.double() - right).abs().max())


for dtype in (torch.float16, torch.int8):
    for na, p, nb, q, d, budget in ((2, 20, 2, 17, 40, 10**6), (2, 16, 2, 33, 32, 1), (1, 1, 2, 1, 16, 10**6)):
        a, b = drawn(dtype, na, p, d), drawn(dtype, nb, q, d)
        a[0, 0] = -b[0, 0]  # a negative maximum where Q is 1
        full = torch.einsum("ipd,jqd->ijpq", a.double(), b.double())
        ab, ba = torch.empty(na, nb, p), torch.empty(nb, na, q)
        fused_maxima(a, b, ab, ba, budget_bytes=budget)
        one = torch.empty(na, nb, p)
        fused_maxima(a, b, one, None, budget_bytes=budget)
        print("gap", gap(ab, full.amax(3)), gap(ba, full.amax(2).transpose(0, 1)), gap(one, ab.double()))
    a = drawn(dtype, 3, 20, 40)
    full = torch.einsum("ipd,jqd->ijpq", a.double(), a.double()).amax(3)
    for budget in (10**6, 2 * 4 * 4 * 40):
        out = torch.full((3, 3, 20), 7.0)
        fused_maxima_self(a, out, budget_bytes=budget)
        assert (out.diagonal() == 7).all(), "the diagonal is not the kernel's"
        other = ~torch.eye(3, dtype=torch.bool)
        print("gap", gap(out[other], full[other]), 0, 0)
"""


def test_maxima_are_those_of_float64_for_shapes_that_do_not_fit_the_tiles() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    gaps = [[float(value) for value in line.split()[1:]] for line in done.stdout.splitlines() if line.startswith("gap")]
    assert len(gaps) == 10
    assert max(max(row) for row in gaps) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_a_cpu_writes_its_similarity_matrices(dtype: torch.dtype) -> None:
    assert not is_fused(torch.zeros(1, 1, 16, dtype=dtype))

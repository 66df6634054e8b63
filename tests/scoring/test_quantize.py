from __future__ import annotations

import numpy as np
import pytest
import torch

from patchead.scoring.quantize import CLIP, LEVELS, cosine_step, quantize, rotation

CPU = torch.device("cpu")


@pytest.mark.parametrize("d", [1, 2, 24, 384, 500])
def test_the_rotation_is_orthogonal_and_always_the_same(d: int) -> None:
    first = rotation(d, CPU).numpy().astype(np.float64)
    np.testing.assert_allclose(first @ first.T, np.eye(d), atol=1e-5)
    rotation.cache_clear()
    np.testing.assert_array_equal(rotation(d, CPU).numpy(), first.astype(np.float32))


def _unit(n: int, d: int, seed: int) -> np.ndarray:
    """Unit vectors with a mean and with channels that stick out, as encoders give them."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, d)) + 0.5 * np.random.default_rng(99).standard_normal(d)
    z[:, :3] *= 15
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("d", [384, 768])
def test_cosines_survive_within_the_stated_error(d: int) -> None:
    a, b = _unit(300, d, 1), _unit(400, d, 2)
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    x, y = (quantize(torch.from_numpy(z)) for z in (a, b))
    assert x.dtype == torch.int8
    got = (x.long() @ y.long().T).numpy() * cosine_step(d)
    error = got - exact
    assert error.std() < 0.016 / np.sqrt(d)
    assert abs(error.mean()) < 1e-4
    assert np.abs(error).max() < 6 * 0.016 / np.sqrt(d)


def test_without_the_rotation_the_same_scale_would_cut_the_channels_that_stick_out() -> None:
    z = torch.from_numpy(_unit(300, 384, 1))
    unrotated = (z * LEVELS * 384**0.5 / CLIP).round()
    assert (unrotated.abs() > LEVELS).float().mean() > 0.001
    assert (quantize(z).abs() == LEVELS).float().mean() < 1e-4


def test_entries_beyond_the_scale_are_cut_off_not_wrapped() -> None:
    d = 16
    spike = rotation(d, CPU).T[:1].clone()  # rotated, it is the first unit vector: sqrt(d) standard deviations
    got = quantize(spike * 5)
    assert got[0, 0] == LEVELS
    assert got[0, 1:].abs().max() == 0

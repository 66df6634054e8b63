"""Drift against an accepted night, by simulation: how often it warns without reason, and how often with one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from patchead.scoring.conformal import score_above
from patchead.scoring.drift import LEVEL, Drift, drift

NIGHTS = 400
Draw = Callable[[np.random.Generator, int], np.ndarray]


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Scores as good images have them: most near 0.1, a tail upwards."""
    return 0.08 + 0.02 * rng.gamma(4.0, 0.25, n)


def simulated(night: Draw, *, sizes: tuple[int, int], nights: int = NIGHTS, accepted: Draw = skewed) -> list[Drift]:
    """Drift of ``nights`` drawn nights of the second size against accepted ones of the first."""
    rng, found = np.random.default_rng(12), []
    for _ in range(nights):
        reference = accepted(rng, sizes[0])
        measured = drift(night(rng, sizes[1]), reference, score_above(reference, 0.01))
        assert measured is not None
        found.append(measured)
    return found


def drifted(night: np.ndarray, accepted: np.ndarray, limit: float) -> bool:
    measured = drift(night, accepted, limit)
    assert measured is not None
    return measured.drifted()


def warned(found: list[Drift], groups: int = 1) -> float:
    return float(np.mean([each.drifted(groups) for each in found]))


def moved(by: float, factor: float = 1.0) -> Draw:
    """The scores of other nights: ``by`` standard deviations (0.01) up, and ``factor`` times as wide."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return 0.1 + factor * (skewed(rng, n) - 0.1) + 0.01 * by

    return draw


@pytest.mark.parametrize("sizes", [(100, 100), (200, 60), (400, 400)])
def test_alike_nights_are_warned_of_at_most_as_often_as_the_level_says(sizes: tuple[int, int]) -> None:
    found = simulated(skewed, sizes=sizes)
    assert warned(found) <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / NIGHTS)
    below = np.mean([each.p < 0.05 for each in found])
    assert 0.02 <= below <= 0.08  # the p-value of the test is one
    assert warned(found, groups=50) <= 0.005


def test_defects_are_no_drift() -> None:
    def with_defects(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.concatenate([skewed(rng, n - n // 10), rng.uniform(0.2, 0.4, n // 10)])

    assert warned(simulated(with_defects, sizes=(200, 200))) <= 0.025
    assert warned(simulated(skewed, sizes=(200, 200), accepted=with_defects)) <= 0.025


@pytest.mark.parametrize(
    ("night", "least"),
    [(moved(0.5), 0.85), (moved(1.0), 0.99), (moved(-1.0), 0.99), (moved(4.0), 0.99), (moved(0.0, 2.0), 0.9)],
    ids=["half a scale up", "one up", "one down", "out of reach", "twice as wide"],
)
def test_a_night_that_moved_is_seen(night: Draw, least: float) -> None:
    assert warned(simulated(night, sizes=(200, 200), nights=200)) >= least


def test_a_move_that_is_nobodys_business_is_not_warned_of_however_sure_it_is() -> None:
    (found,) = simulated(moved(0.1), sizes=(20_000, 20_000), nights=1)
    assert found.p < 1e-6 and not found.drifted()


def test_it_measures_the_move() -> None:
    (found,) = simulated(moved(0.5), sizes=(20_000, 20_000), nights=1)
    assert (found.shift, found.scale) == (pytest.approx(0.5, abs=0.1), pytest.approx(1.0, abs=0.1))
    (found,) = simulated(moved(0.0, 1.5), sizes=(20_000, 20_000), nights=1)
    assert found.scale == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("night", [np.empty(0), np.full(3, 0.1), np.full(50, np.nan)])
def test_a_night_too_small_to_tell_is_not_measured(night: np.ndarray) -> None:
    assert drift(night, np.linspace(0.1, 0.2, 100), np.inf) is None


@pytest.mark.parametrize("accepted", [np.full(200, 0.1), np.append(np.full(150, 0.1), np.linspace(0.1, 0.11, 50))])
def test_an_accepted_night_of_equal_scores_is_not_blind(accepted: np.ndarray) -> None:
    for night in (np.linspace(0.2, 0.3, 200), np.full(200, 0.2), np.linspace(0.0, 0.05, 200)):
        assert drifted(night, accepted, float(accepted.max()))
    assert not drifted(accepted, accepted, np.inf)
    assert not drifted(accepted + 5e-7, accepted, np.inf)  # rounding


def mostly_equal(rng: np.random.Generator, n: int) -> np.ndarray:
    """About half of the scores are 0.1, so that the MAD is 0 on some nights and not on others."""
    return np.where(rng.random(n) < 0.5, 0.1, skewed(rng, n))


def test_nights_of_many_equal_scores_are_warned_of_at_most_as_often_as_the_level_says() -> None:
    found = simulated(mostly_equal, sizes=(200, 100), accepted=mostly_equal, nights=150)
    assert warned(found) <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 150)

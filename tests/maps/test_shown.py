"""Which images must be searched before a group is shown: enough for the threshold of the full search, and few."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.maps.regions import threshold_of_peaks
from patchead.maps.shown import to_search


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 400),
    flagged=st.floats(0, 1),
    shown=st.floats(0, 0.3),
    known=st.floats(0, 1),
    slack=st.sampled_from([0.0, 0.01, 0.3]),
    equal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_threshold_is_that_of_the_true_peaks(
    n: int, flagged: float, shown: float, known: float, slack: float, equal: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    true = rng.normal(0.2, 0.03, n).round(1 if equal else 9)
    bounds, exact, drawn = true + slack * rng.random(n), rng.random(n) < known, rng.random(n) < shown
    good = rng.random(n) >= flagged
    while True:
        peaks = np.where(good, np.where(exact, true, bounds), -np.inf)
        wanted = to_search(exact, drawn, peaks)
        assert not (wanted & exact).any()
        if not wanted.any():
            break
        exact |= wanted
    assert exact[drawn].all()
    assert threshold_of_peaks(peaks[good], 0.5) == threshold_of_peaks(true[good], 0.5)


def test_few_images_set_the_threshold_and_none_where_it_is_given() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0.2, 0.03, 1000)
    exact, rounds = np.zeros(1000, bool), 0
    while (wanted := to_search(exact, np.zeros(1000, bool), np.where(exact, true, true + 0.001))).any():
        exact, rounds = exact | wanted, rounds + 1
    assert exact.sum() < 25
    assert rounds <= 2
    shown = np.arange(1000) < 3
    assert np.flatnonzero(to_search(np.arange(1000) == 1, shown, None)).tolist() == [0, 2]

"""The figures of the study of names: the calibration error by its definition, and no region is its own example."""

from __future__ import annotations

import numpy as np
import pytest
from studies.names import HELD_OUT, Regions, _named, expected_calibration_error
from studies.pixels import USUAL

from patchead.naming.named import UNKNOWN, Named
from tests.naming.test_families import around


def test_the_calibration_error_is_that_of_its_definition() -> None:
    sure, right = np.random.default_rng(0).uniform(0, 1, 200), np.random.default_rng(1).uniform(0, 1, 200) < 0.6
    told = [("a", Named("a" if hit else "b", of, 0.5, None, "example")) for of, hit in zip(sure, right, strict=True)]
    told.append(("a", Named(UNKNOWN, 0.9, 0.0, "a", "example")))  # is offered nothing
    expected = 0.0
    for lower in np.arange(10) / 10:
        inside = (sure >= lower) & (sure < lower + 0.1)
        expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert expected_calibration_error(told) == pytest.approx(expected)


def test_every_region_is_an_example_or_asked_and_the_held_out_kind_is_no_example() -> None:
    regions = Regions(around(*range(6), each=4, noise=0.05), np.repeat(USUAL, 4), 0.0)
    told = _named(regions, USUAL[0], 3, draw=0)
    assert len(told) == 4 + 5 * 1
    assert sum(truth == HELD_OUT for truth, _ in told) == 4
    assert all(named.defect_type == (UNKNOWN if truth == HELD_OUT else truth) for truth, named in told)

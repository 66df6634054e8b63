"""Rate and time left, by hand."""

from __future__ import annotations

import pytest

from patchead.runtime.pace import Pace, duration, line


def test_the_rate_is_that_of_the_last_five_minutes() -> None:
    pace = Pace(1000, now=0.0)
    for second in range(10, 310, 10):  # 1 a second, then 5 a second
        pace.add(10, second)
    assert pace.rate(300.0) == pytest.approx(1.0)
    for second in range(310, 620, 10):
        pace.add(50, second)
    assert pace.rate(610.0) == pytest.approx(5.0, rel=0.05)
    assert pace.done == 300 + 31 * 50


def test_what_an_earlier_night_has_done_says_nothing_of_the_rate() -> None:
    pace = Pace(1000, now=0.0)
    pace.add(800, 0.5)
    assert pace.rate(1.0) == pytest.approx(800)  # all that is known
    pace.add(10, 10.5)
    assert pace.rate(10.5) == pytest.approx(1.0)
    assert pace.seconds_left(10.5) == pytest.approx(190)


def test_nothing_done_and_no_total_promise_nothing() -> None:
    assert Pace(10, now=0.0).seconds_left(5.0) is None
    pace = Pace(None, now=0.0)
    pace.add(5, 1.0)
    assert pace.seconds_left(2.0) is None


def test_lines_are_read_by_people() -> None:
    assert line("embed", 320, 4000, 32.54, 113.0) == "embed    320 of 4000 images, 32.5 images/s, 1 min 53 s left"
    assert line("catalog", 7, None, 0.0, None) == "catalog  7 images, 0.0 images/s"
    assert [duration(seconds) for seconds in (0.4, 59.6, 3599.0, 90_000.0)] == [
        "0 s",
        "1 min 0 s",
        "59 min 59 s",
        "25 h 0 min",
    ]

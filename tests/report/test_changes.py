from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from patchead.report.changes import gone, group_changes, sentences

BEFORE, NIGHT = dt.date(2026, 11, 20), dt.date(2026, 11, 21)


def verdict(night: dt.date, product: str = "screw", **values: Any) -> dict[str, Any]:
    row = {"night": night, "product": product, "group_id": f"night={night}/product={product}", "encoder_id": "e"}
    return row | {"scored": 100, "flagged": 2, "median": 0.10, "scale": 0.02, "run_id": f"run-{night}"} | values


def said(*rows: dict[str, Any], failed: int = 0) -> list[tuple[str, str]]:
    history = [row for row in rows if row["night"] < NIGHT]
    groups = group_changes([row for row in rows if row["night"] == NIGHT], history)
    return sentences(groups, gone(groups, history, BEFORE), {NIGHT: failed}, NIGHT, BEFORE)


def test_a_night_like_the_one_before_is_said_to_be_one() -> None:
    assert [how for how, _ in said(verdict(BEFORE), verdict(NIGHT, flagged=3))] == ["note"]
    assert "Nothing stands out" in said(verdict(BEFORE), verdict(NIGHT, flagged=3))[0][1]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"flagged": 9}, "9 of 100 flagged (9.0%), on 2026-11-20 2 of 100 (2.0%)"),
        ({"median": 0.13}, "median score is 1.5 scales higher"),
        ({"median": 0.06}, "median score is 2.0 scales lower"),
        ({"scored": 0, "flagged": 0, "median": None}, "has no score; on 2026-11-20 100 of its images had one"),
        ({"product": "nut", "group_id": "night=2026-11-21/product=nut"}, "screw has no image; it had 100"),
    ],
)
def test_what_needs_a_look_is_an_alert(now: dict[str, Any], words: str) -> None:
    told = said(verdict(BEFORE), verdict(NIGHT, **now))
    assert told[0][0] == "alert"
    assert words in told[0][1]


def test_failures_count_and_another_encoder_is_no_drift() -> None:
    assert said(verdict(BEFORE), verdict(NIGHT), failed=3) == [("alert", "3 images failed; 0 on 2026-11-20.")]
    (told,) = said(verdict(BEFORE), verdict(NIGHT, encoder_id="other", median=0.3))
    assert told[0] == "note"
    assert "another encoder" in told[1]


def test_a_group_is_paired_with_its_like_on_the_newest_night_before_it() -> None:
    older = verdict(dt.date(2026, 11, 18), median=0.5)
    (group,) = group_changes([verdict(NIGHT)], [older, verdict(BEFORE, "nut")])
    assert group.before == older
    (alone,) = group_changes([verdict(NIGHT)], [verdict(NIGHT)])
    assert alone.before is None

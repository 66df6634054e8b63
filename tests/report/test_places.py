from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from patchead.report.night_rows import NightRows
from patchead.report.places import MOST_VALUES, places_of, sentences_of
from patchead.schema import FAILED, OK


def night(rows: list[tuple[dict[str, str] | None, str, bool | None]], before: list[dict[str, Any]]) -> NightRows:
    keys = [None if values is None else json.dumps(values) for values, _, _ in rows]
    columns = {"keys_json": keys, "status": [row[1] for row in rows], "is_anomalous": [row[2] for row in rows]}
    return NightRows(None, None, pa.table(columns), {}, [], [], {}, [], places_before=before)


def test_each_key_counts_what_has_a_score() -> None:
    rows = [({"station": "1", "line": "a"}, OK, True)] * 3 + [({"station": "2", "line": "a"}, OK, False)] * 5
    rows += [({"station": "2"}, FAILED, None), (None, OK, True)]
    found = places_of(night(rows, [{"keys_json": '{"station": "1"}', "scored": 10, "flagged": 1}]))
    assert list(found) == ["station"]  # there is but one line
    first, second = found["station"]
    assert (first.value, first.now, first.before) == ("1", {"scored": 3, "flagged": 3}, {"scored": 10, "flagged": 1})
    assert (first.share, first.share_before) == pytest.approx((1.0, 0.1))
    assert (second.value, second.now, second.share_before) == ("2", {"scored": 5, "flagged": 0}, None)


def test_a_place_with_more_than_the_night_before_explains_is_told() -> None:
    rows = [({"station": "1"}, OK, number < 9) for number in range(40)] + [({"station": "2"}, OK, False)] * 40
    before = [{"keys_json": json.dumps({"station": each}), "scored": 40, "flagged": 1} for each in "12"]
    assert sentences_of(places_of(night(rows, before)).values()) == [
        ("alert", "station 1: 9 of 40 flagged, 1 of 40 the night before.")
    ]


def test_a_key_of_very_many_values_is_no_place() -> None:
    rows = [({"serial": str(number)}, OK, False) for number in range(MOST_VALUES + 1)]
    assert places_of(night(rows, [])) == {}

from __future__ import annotations

import json

import pyarrow as pa

from patchead.nightly.repeated import repeat_line, repeats_by_group, search_shares

IN_PLACE = {"repeat_group": 1, "images": 24, "x": 0.4, "y": 0.55, "width": 0.1, "height": 0.1}
NOWHERE = {"repeat_group": 2, "images": 3, "x": None, "y": None, "width": None, "height": None}


def test_a_line_says_how_many_images_share_what_and_where() -> None:
    group = "night=2026-11-21/product=screw"
    assert repeat_line(group, IN_PLACE) == f"24 images share a region at 45%, 60%: repeat_group 1 of {group}"
    elsewhere = f"3 images share a region that lies elsewhere in each: repeat_group 2 of {group}"
    assert repeat_line(group, NOWHERE) == elsewhere


def test_groups_without_a_repeat_are_left_out() -> None:
    texts = [json.dumps([IN_PLACE]), "[]", None]
    verdicts = pa.table({"group_id": ["a", "b", "c"], "repeats_json": pa.array(texts, pa.string())})
    assert repeats_by_group(verdicts) == {"a": [IN_PLACE]}


def test_what_was_searched_is_summed_up_by_pairs() -> None:
    scores = pa.table({"group_id": ["a", "a", "b", "c", "d"], "n_references": [3, 3, 2, 9, None]})
    verdicts = pa.table(
        {
            "group_id": ["a", "b", "c", "d"],
            "search": ["window", "window", "full", None],
            "search_share": [0.1, 0.5, 0.5, None],
            "search_refined": [0.01, 0.05, 1.0, None],
        }
    )
    assert search_shares(scores, verdicts) == {
        "window": {"multiplications": 0.2, "refined": 0.02},
        "full": {"multiplications": 0.5, "refined": 1.0},
    }

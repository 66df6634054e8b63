"""What a run found of repeated defects and of alignment, as its record and its last lines tell it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from patchead.nightly.explain import Explained


def found_in(explained: Explained, *, aligned: bool) -> dict[str, Any]:
    """Collect what the record says of a run's rows: its repeats, how groups were searched, what is not aligned."""
    found: dict[str, Any] = {
        "repeats": repeats_by_group(explained.verdicts),
        "searches": dict(Counter(explained.verdicts["search"].drop_null().to_pylist())),
        "search_shares": search_shares(explained.scores, explained.verdicts),
        "searched_to_show": explained.searched,
    }
    if aligned:
        found["not_aligned"] = pc.sum(pc.invert(explained.scores["aligned"]), min_count=0).as_py()
    return found


def search_shares(scores: pa.Table, verdicts: pa.Table) -> dict[str, dict[str, float]]:
    """Sum up how much was searched: `verdicts.search_share` and ``search_refined`` of each way, weighted by pairs.

    Args:
        scores: SCORES of the run; an image has as many pairs as references.
        verdicts: VERDICTS of the run.
    """
    pairs = scores.group_by("group_id").aggregate([("n_references", "sum")])
    of = dict(zip(pairs["group_id"].to_pylist(), pairs["n_references_sum"].to_pylist(), strict=True))
    names = {"multiplications": "search_share", "refined": "search_refined"}
    sums: dict[str, Counter[str]] = {}
    for row in verdicts.select(["group_id", "search", *names.values()]).drop_null().to_pylist():
        weight, sum_of = of.get(row["group_id"]) or 0, sums.setdefault(row["search"], Counter())
        sum_of["pairs"] += weight
        for name, column in names.items():
            sum_of[name] += weight * row[column]
    return {
        search: {name: round(sum_of[name] / max(1, sum_of["pairs"]), 6) for name in names}
        for search, sum_of in sums.items()
    }


def repeats_by_group(verdicts: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Collect the repeats of each group that has some, from rows of `VERDICTS`."""
    return {
        row["group_id"]: json.loads(row["repeats_json"])
        for row in verdicts.select(["group_id", "repeats_json"]).to_pylist()
        if row["repeats_json"] not in (None, "[]")
    }


def repeat_line(group_id: str, repeat: Mapping[str, Any]) -> str:
    """Say in one line what images share, e.g. ``24 images share a region at 45 %, 60 %: repeat_group 1 of night=…``.

    Args:
        group_id: of the group.
        repeat: see `staging.StagedGroup.repeats`; its place is said from the left and from the top.
    """
    where = "that lies elsewhere in each"
    if repeat["x"] is not None:
        x, y = repeat["x"] + repeat["width"] / 2, repeat["y"] + repeat["height"] / 2
        where = f"at {x:.0%}, {y:.0%}"
    return f"{repeat['images']} images share a region {where}: repeat_group {repeat['repeat_group']} of {group_id}"

"""The study of repeats: its ways are those of the product, and its tables say what was counted."""

from __future__ import annotations

import numpy as np
import pytest
from studies import repeats
from studies.findings import Case, Finding
from studies.lots import defective_at
from studies.repeats import DEFECTS, GOOD, LOTS, PLACES, RATE, SHARES, SUBSPACE, SUBSPACE_SHARES, WAYS, Group
from studies.strips import strip

from patchead.scoring.leave_one_out import Aggregation, score_group
from tests.helpers.repeats import shared_mark

GOOD_HERE, P, D = 40, 25, 24
FEW, FEW_REPEATS = "nearest 10%", "nearest 10%, repeats"


@pytest.fixture(scope="module")
def group() -> Group:
    """Forty good images and ten that share a mark at one place."""
    return marked(10)


def marked(count: int) -> Group:
    """Forty good images and ``count`` that share a mark at one place."""
    embeddings = shared_mark(GOOD_HERE + count, P, D, list(range(GOOD_HERE, GOOD_HERE + count)))
    return Group(embeddings, strip(embeddings), "fp32", (5, 5))


@pytest.mark.parametrize("fraction", repeats.FRACTIONS)
def test_the_ways_are_those_of_the_group_scored_at_once(group: Group, fraction: float) -> None:
    found = repeats.by_way(group, subspace=False)
    for name, looks in ((f"nearest {fraction:.0%}", False), (f"nearest {fraction:.0%}, repeats", True)):
        rule = Aggregation("nearest", fraction, repeats.TOP, repeats=looks)
        direct = score_group(group.embeddings, np.arange(50), aggregation=rule, memory_bytes=10**8)
        np.testing.assert_allclose(found[name].scores, direct.image_scores, atol=1e-6)
        assert np.flatnonzero(found[name].grouped).tolist() == (list(range(40, 50)) if looks else [])


def test_a_planting_at_every_share() -> None:
    found = list(repeats.of_plantings({("hole", "same place"): marked(17)}, GOOD_HERE))
    auroc = {(case["share"], way): values for case, way, metric, values in found if metric == "AUROC"}
    assert {share for share, way in auroc if way == SUBSPACE} == set(SUBSPACE_SHARES)
    assert auroc[0.0, WAYS[0]] == (1.0,) * 10
    assert auroc[0.2, FEW][0] < 0.9 < auroc[0.2, FEW_REPEATS][0] == 1.0
    counts = {(case["share"], metric): values for case, way, metric, values in found if way == WAYS[1]}
    assert counts[0.2, "defective in a repeat"] == (10.0,)
    assert counts[0.03, "defective in a repeat"] == (0.0,)  # a single one
    assert counts[0.2, "good in a repeat"] == (0.0,)


def test_a_clean_night_and_one_with_defects(group: Group) -> None:
    clean = dict(repeats.of_night(group.at(np.arange(GOOD_HERE)), np.zeros(GOOD_HERE, bool)))
    assert {metric for _, metric in clean} == {"flagged", "defective in a repeat", "good in a repeat"}
    assert clean[WAYS[1], "good in a repeat"] == 0
    marked = dict(repeats.of_night(group, np.arange(50) >= GOOD_HERE))
    assert marked[FEW_REPEATS, "AUROC"] == 1.0
    assert (SUBSPACE, "AUROC") in marked


@pytest.mark.slow
def test_plantings_share_their_good_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(repeats.GOOD, "brick", 4)
    groups = repeats.planted_group("brick", "fp32")
    assert list(groups) == [(defect, place) for defect in DEFECTS for place in PLACES]
    first = groups["scratch", "same place"]
    assert first.embeddings.shape == (5, 256, 1152)
    for other in (groups[key] for key in list(groups)[1:]):
        np.testing.assert_array_equal(other.embeddings[:4], first.embeddings[:4])
        assert (other.embeddings[4] != first.embeddings[4]).any()


def test_the_tables_say_what_was_lost_and_what_was_found() -> None:
    findings = []
    for surface in GOOD:
        for defect, place, share, way in _plantings():
            case: Case = {"night": "planted", "surface": surface, "defect": defect, "place": place, "share": share}
            value = 0.7 if (way, share) == (FEW, 0.2) else 0.95
            alone = (0.95, 0.95, *[0.75] * (defective_at(0.2, GOOD[surface]) - 2))
            findings.append(_finding(case, way, "AUROC", *([value] if share else alone)))
            findings += [_finding(case, way, f"{sort} in a repeat", 2.0) for sort in ("defective", "good")]
    for surface in ("mono", "poly"):
        for way in WAYS:
            case = {"night": "ordinary", "surface": surface}
            values = (0.9, 0.8, 0.9, 0.9) if way == WAYS[1] else (0.9,) * LOTS
            findings.append(_finding({**case, "share": RATE}, way, "AUROC", *values))
            if way != SUBSPACE:
                findings.append(_finding({**case, "share": 0.0}, way, "flagged", 0.0, 0.02, 0.0, 0.0))
            for share in (0.0, RATE):
                findings += [
                    _finding({**case, "share": share}, way, f"{sort} in a repeat", 3.0)
                    for sort in ("defective", "good")
                ]
    planted, found, nights = repeats.sheets(findings)
    assert planted.rows[0][3] == "0.95 / 0.95 / 0.95 / 0.95 / 0.95 / 0.95"
    few, subspace = (planted.header.index(way) for way in (FEW, SUBSPACE))
    assert planted.rows[0][few] == "0.95 / 0.95 / 0.95 / 0.95 / 0.70 / 0.95"
    assert planted.rows[0][subspace] == "0.95 / - / - / 0.95 / 0.95 / 0.95"
    assert planted.rows[-4][2:] == (
        "largest loss against the first 2 alone",
        *("0.250" if way == FEW else "0.000" for way in WAYS),
    )
    assert [planted.rows[-3][at] for at in (few, few + 1, subspace)] == ["12 of 48", "0 of 48", "0 of 24"]
    same = {count: (2 * 0.95 + (count - 2) * 0.75) / count - 0.7 for count in (15, 25)}
    assert planted.rows[-2][few] == f"{max(same.values()):.3f}"
    assert [planted.rows[-1][at] for at in (few, few + 1, subspace)] == ["12 of 48", "0 of 48", "0 of 24"]
    assert found.rows[0][3:] == ("2 of 3, 2", "2 of 6, 2", "2 of 12, 2", "2 of 25, 2", "2 of 43, 2")
    assert nights.rows[0] == ("mono", WAYS[0], "0.9000", "", "0.5% / 2.0%", "", "", "")
    assert nights.rows[1] == ("mono", WAYS[1], "0.8750", "-0.0250 / -0.1000", "0.5% / 2.0%", "3", "3", "3")


def _plantings() -> list[tuple[str, str, float, str]]:
    return [
        (defect, place, share, way)
        for defect in DEFECTS
        for place in PLACES
        for share in (0.0, *SHARES)
        for way in WAYS
        if way != SUBSPACE or share in SUBSPACE_SHARES
    ]


def _finding(case: Case, way: str, metric: str, *values: float) -> Finding:
    return Finding("repeats", {**case, "way": way, "arithmetic": "fp32 encoder, int8 scores"}, metric, values)

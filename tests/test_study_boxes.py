"""The study of boxes: what counts as covered, and the counts of one night, by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from planted import KINDS
from studies import boxes
from studies.boxes import GROUPS, PARTS, SIZES, WAYS, Night, box_of, components, counted, covered, sheets
from studies.findings import Finding
from studies.pixels import Shot

from patchead.scoring.verdict import Verdict

TRUTH = (0.2, 0.2, 0.4, 0.6)


def test_a_mask_in_its_smallest_box() -> None:
    mask = np.zeros((10, 20), bool)
    mask[3, 4], mask[7, 9] = True, True
    assert box_of(mask) == (0.2, 0.3, 0.5, 0.8)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([TRUTH], True),
        ([], False),
        ([(0.5, 0.5, 0.9, 0.9)], False),
        ([(0.2, 0.2, 0.4, 0.31)], False),  # a quarter of it
        ([(0.2, 0.2, 0.4, 0.33)], True),
        ([(0.0, 0.0, 0.6, 0.6)], False),  # 0.08 of 0.36
        ([(0.2, 0.2, 0.4, 0.3), (0.2, 0.5, 0.4, 0.6)], True),  # two, together all of it
        ([(0.2, 0.2, 0.4, 0.3), (0.2, 0.35, 0.4, 0.45), (0.2, 0.5, 0.4, 0.6)], False),  # three
        ([TRUTH, (0.8, 0.8, 0.9, 0.9), (0.8, 0.1, 0.9, 0.2)], True),  # those elsewhere do not count
        ([(0.4, 0.2, 0.5, 0.6)], False),  # beside it
    ],
)
def test_one_or_two_boxes_cover_a_defect(found: list[boxes.Box], expected: bool) -> None:
    assert covered(found, TRUTH) is expected


def test_connected_parts_of_a_map_in_fractions() -> None:
    scores = np.zeros((10, 20), np.float32)
    scores[2:4, 5:9], scores[8, 19] = 0.5, 0.4
    assert components(scores, 0.3) == [(0.25, 0.2, 0.45, 0.4), (0.95, 0.8, 1.0, 0.9)]
    assert components(scores, 0.45) == [(0.25, 0.2, 0.45, 0.4)]


def night() -> Night:
    """Thirty photos of 80 pixels: the first has a defect and is flagged, as is the second, which is good."""
    masks = np.zeros((30, 80, 80), bool)
    masks[0, 20:40, 20:40] = True
    patches = np.random.default_rng(0).uniform(0.09, 0.11, (30, 8, 8)).astype(np.float32)
    patches[0, 2:4, 2:4] = patches[1, 5, 5] = 0.5
    z = np.linspace(9, 0, 30)
    verdict = Verdict(
        rule="mad", z=z, flagged=z > 8.6, p_values=None, centre=0.1, scale=0.01, threshold_z=3.5, threshold_score=0.3
    )
    shots = [Shot(np.zeros((80, 80, 3), np.uint8), mask, "hole" if mask.any() else "") for mask in masks]
    return Night(shots, patches, verdict)


def test_the_counts_of_a_night() -> None:
    assert night().explained.tolist() == [True] * 20 + [False] * 10
    for way in WAYS:
        found = counted(night(), boxes.boxes_by(way, night()), {"px": 224})
        got = {(f.case["kind"], f.metric): f.values[0] for f in found}
        planted = {metric: got["hole", metric] for metric in ("images", "flagged", "covered", "boxes")}
        assert planted == {"images": 1, "flagged": 1, "covered": 1, "boxes": 1}
        assert (got["", "images"], got["", "flagged"], got["", "explained"], got["", "boxes"]) == (29, 1, 19, 1)
        assert got["hole", "large"] == got["hole", "flagged without a box"] == 0


def test_the_tables_add_up_over_groups_kinds_and_sizes() -> None:
    findings = []
    for px, groups in PARTS.items():
        for group, size, way, kind in product(groups, SIZES, WAYS, ["", *KINDS]):
            case = {"group": group, "px": px, "size": size, "way": way, "kind": kind}
            case |= {"dtype": "fp32", "precision": "int8"}
            values = {"images": 2, "flagged": 1, "explained": 2, "boxes": 2, "boxes of flagged": 1, "large": 1}
            values |= {"flagged without a box": 0}
            values |= {"covered": 1, "flagged and covered": 1} if kind else {}
            findings += [Finding("boxes", case, metric, (float(n),)) for metric, n in values.items()]
    by_way, by_kind = sheets(findings)
    assert "224 px: fp32 encoder, int8 scores; 448 px: fp32 encoder, int8 scores." in by_way.caption
    each = len(SIZES) * len(KINDS)
    for row in by_way.rows:
        n = len(GROUPS[row[0]]) * each
        assert row[3:7] == (f"{n} of {2 * n}", f"100% ({n} of {n})", "1.00", "0")
        assert row[8] == f"{2 * n // len(KINDS)} on {2 * n // len(KINDS)}"
    assert [row[:2] for row in by_way.rows[::2]] == [
        ("solar cells", "224"),
        ("solar cells", "448"),
        ("textures", "224"),
    ]
    assert by_kind.rows[0][1:] == (*["5 / 5 / 10"] * 3, *["2 / 2 / 4"] * 3)

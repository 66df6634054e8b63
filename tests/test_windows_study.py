"""The studies of windows: their ways are those of the product, and their tables say whether a target is met."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from studies import repeats, windows, windows_planted
from studies.defects import RULE as PLANTED
from studies.findings import Case, Finding, find
from studies.pixels import USUAL, good, planted
from studies.repeats import Group
from studies.strips import strip
from studies.windows import FRACTIONS, FULL, PARTS, RADII, TARGET, Rule

from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.position_level import above_position_level
from patchead.search.score import score_group
from tests.helpers.repeats import shared_mark
from tests.reference import oracle


def test_every_way_has_the_scores_of_the_oracle() -> None:
    embeddings, each = unit_vectors(9, 16, 8), list(range(9))
    found = dict(windows.ways(embeddings))
    assert len(found) == len(FRACTIONS) * (1 + 2 * len(RADII))
    whole = oracle.patch_scores(embeddings, each, [-1] * 9, "nearest", 30)
    np.testing.assert_allclose(found[Rule(window=FULL, fraction=0.3)], oracle.image_scores(whole), atol=1e-6)
    patches = oracle.window_patch_scores(embeddings, (4, 4), 1, each, [-1] * 9, "nearest", 30)
    np.testing.assert_allclose(found[Rule(window=1, fraction=0.3)], oracle.image_scores(patches), atol=1e-6)
    above = oracle.image_scores(above_position_level(patches))
    np.testing.assert_allclose(found[Rule(window=1, fraction=0.3, level=True)], above, atol=1e-6)


@pytest.mark.parametrize(("low", "told"), [(0.92, f"at least {TARGET}: met"), (0.90, f"at least {TARGET}: not met")])
def test_the_table_says_whether_the_target_is_met(low: float, told: str) -> None:
    rules = [
        Rule(window=window, fraction=fraction, level=level)
        for fraction in FRACTIONS
        for window in (FULL, *RADII)
        for level in (False, True)
        if not (level and window == FULL)
    ]
    values = {rule: [(low, 0.7), (0.96, 0.8), (0.99, 0.9)] for rule in rules}
    findings = [
        finding for product, size in PARTS for finding in windows._findings({"product": product, "px": size}, values)
    ]
    (table,) = windows.sheets(findings)
    assert len(table.rows) == len(PARTS) * len(FRACTIONS) * 2
    mean = (low + 0.96 + 0.99) / 3
    assert table.rows[0][:4] == ("poly", "448", "nearest 5%", f"{mean:.3f} ({low:.2f}-0.99) / 0.800")
    assert table.rows[3][2:4] == ("nearest 5%, position level", "-")
    assert [row[-1] for row in table.rows] == [told] + [""] * (len(table.rows) - 1)


def lying_alike(images: int, patches: int, dim: int) -> np.ndarray:
    """Embeddings of which those of one place are near each other."""
    noise = unit_vectors(images + 1, patches, dim).astype(np.float32)
    near = noise[0] + 0.2 * noise[1:]
    return (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("alike", [True, False])
def test_the_ways_beside_the_full_search_are_those_of_the_group_scored_at_once(alike: bool) -> None:
    embeddings, everyone = (lying_alike if alike else unit_vectors)(12, 36, 16), np.arange(12)
    rule = Aggregation("nearest", 0.3, 0.05)

    def direct(window: int | str | None) -> np.ndarray:
        whole = Aggregation("nearest", 0.3, 0.05, window=window)
        return score_group(embeddings, everyone, aggregation=whole, memory_bytes=10**9).patch_scores

    full = direct(None)
    ways, share = windows_planted.by_window(embeddings, full, rule)
    assert tuple(ways) == windows_planted.WAYS
    assert (share >= windows_planted.ALIKE) == alike
    patches = oracle.window_patch_scores(embeddings, (6, 6), 1, everyone.tolist(), [-1] * 12, "nearest", 30)
    np.testing.assert_allclose(ways["r = 1"], patches, atol=1e-6)
    np.testing.assert_allclose(ways["auto"], ways["r = 1"] if alike else full)
    if alike:
        np.testing.assert_allclose(ways["auto"], direct("auto"), atol=1e-6)


def test_planted_and_repeated_defects_by_every_way_are_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_planted, "USUAL", USUAL[:2])
    monkeypatch.setattr(windows_planted, "SHARES", (0.0, 0.2))
    rng = np.random.default_rng(0)
    photos = list(rng.integers(90, 110, (12, 64, 64, 3), dtype=np.uint8))
    shots = [good(photo) for photo in photos[:6]] + planted(photos[6:])
    findings = list(windows_planted.of_planted(shots, unit_vectors(12, 16, 8), {"set": "planted", "group": "mono"}))
    embeddings = shared_mark(57, 25, 24, list(range(40, 57)))
    group = Group(embeddings, strip(embeddings), "fp32", (5, 5))
    case: Case = {"set": "repeats", "surface": "mono"}
    findings += windows_planted.of_repeats({("hole", "same place"): group}, 40, case)
    assert len(findings) == 2 * (1 + 4 * 3) + 2 * len(windows_planted.FRACTIONS) * (1 + 3)
    at: Case = {**case, "defect": "hole", "share": 0.2, "fraction": 0.05, "way": windows_planted.FULL}
    rule = Aggregation("nearest", 0.05, repeats.TOP)
    direct = score_group(embeddings[:50], np.arange(50), aggregation=rule, memory_bytes=10**8).image_scores
    share = find(findings, "image AUROC", **at)
    assert share is not None
    assert share.mean == pytest.approx(float(roc_auc_score(np.arange(50) >= 40, direct)))
    planted_defects, moved, repeated = windows_planted.sheets(findings)
    assert planted_defects.rows[3][0] == "mono"
    assert "-" not in planted_defects.rows[3]
    assert f"nearest {PLANTED.fraction:.0%}" in planted_defects.caption
    assert {row[-1] for row in moved.rows} == {"-"}
    assert repeated.rows[6][:3] == ("mono", "hole", "same place")
    assert repeated.rows[6][5].count(" / ") == 1


@pytest.mark.parametrize(("auto", "told"), [(0.946, "auto 0.004 (at most 0.005: met)"), (0.9, "0.005: not met)")])
def test_a_table_says_what_auto_loses_at_most(auto: float, told: str) -> None:
    at: Case = {"set": "planted", "group": "mono", "kind": USUAL[0]}
    figures = {windows_planted.FULL: 0.95, windows_planted.WINDOW: 0.8, windows_planted.AUTO: auto}
    findings = [
        Finding("windows-planted", {**at, "way": way}, "image AUROC", (value,)) for way, value in figures.items()
    ]
    caption = windows_planted.sheets(findings)[0].caption
    assert "r = 1 0.150" in caption
    assert told in caption

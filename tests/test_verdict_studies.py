"""The studies of the verdict: nights, one image alone, products together, and where it fails."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from demo_archive import elpv_cells
from studies import alone, limits, lots, nights, products, prompted
from studies.cells import PRODUCTS
from studies.features import Features, Model
from studies.findings import Finding
from studies.lots import Lot, cells_of_lot, defective_at
from studies.prompted import Draw
from studies.strips import Sorted, scored

from patchead.scoring.aggregate import Aggregation
from patchead.scoring.leave_one_out import score_group
from patchead.scoring.verdict import VerdictSettings, judge

SMALL = Model(label="small", name="timm/vit_tiny_patch16_224", weights="random", layers=(6, 9, 12))


def test_lots_share_no_cell_and_their_good_cells_are_neighbours() -> None:
    for name in PRODUCTS:
        found = [cells_of_lot(name, number) for number in range(lots.LOTS[name])]
        for (good, bad), (other_good, other_bad) in combinations(found, 2):
            assert not {*good, *bad} & {*other_good, *other_bad}
        good_names, bad_names = elpv_cells(name, 0.0), set(elpv_cells(name, 1.0))
        for good, bad in found:
            start = good_names.index(good[0])
            assert good == good_names[start : start + lots.GOOD[name]]
            assert set(bad) <= bad_names
            assert len(bad) == defective_at(0.2, lots.GOOD[name])


def test_a_lot_needs_enough_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lots.GOOD, "mono", 118)
    with pytest.raises(ValueError, match="mono has 588 good and 313 defective cells, too few for lot 0"):
        cells_of_lot("mono", 0)


def test_the_last_crops_of_a_lot_have_a_defect_that_a_seed_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lots.GOOD, "grass", 12)
    first, again, other = (lots.crops_of_lot("grass", number) for number in (0, 0, 1))
    assert len(first) == 15
    np.testing.assert_array_equal(first, again)
    assert all((one != two).any() for one, two in zip(first, other, strict=True))


def night_lot(good: int = 75, seed: int = 0) -> Lot:
    """A lot whose defective images are far from all others in one of ten patches."""
    rng = np.random.default_rng(seed)
    n, bad = good + defective_at(0.2, good), slice(good, None)
    distances = np.abs(rng.normal(0.1, 0.01, (n, n, 10))).astype(np.float32)
    distances[bad, :, 3] += 0.3
    return Lot("mono", 0, good, distances)


@pytest.mark.parametrize("rate", lots.RATES)
def test_a_night_has_its_rate_and_a_seed_repeats_it(rate: float) -> None:
    lot = night_lot()
    chosen, truth = lot.night(rate, 1)
    assert truth.mean() == pytest.approx(rate, abs=0.01)
    assert ((chosen >= lot.good) == truth).all()
    assert len(set(chosen)) == len(chosen)
    np.testing.assert_array_equal(chosen, lot.night(rate, 1)[0])
    if 0 < rate < 0.2:
        assert (chosen != lot.night(rate, 2)[0]).any()


def test_clear_defects_are_found_on_every_night_and_clean_nights_are_left_alone() -> None:
    values: dict[tuple[float, float, str, str], list[float]] = {}
    for key, value in nights.of_lot(night_lot()):
        values.setdefault(key, []).append(value)
    for fraction in nights.FRACTIONS:
        assert max(values[fraction, 0.0, nights.UPPER_FIT, "flagged"]) <= 0.05
        for rate in lots.RATES[1:]:
            assert len(values[fraction, rate, nights.UPPER_FIT, "F1"]) == lots.draws_of(rate)
            assert min(values[fraction, rate, nights.BEST, "F1"]) == 1.0
        for rule in (nights.UPPER_FIT, nights.LEVEL):
            assert min(values[fraction, 0.1, rule, "F1"]) > 0.8  # 2 of 75 good ones beside 8 defective ones


def test_best_f1_is_that_of_the_best_of_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = np.append(rng.random(30) < 0.2, True)
        scores = np.round(rng.normal(truth, 1.0), 1)
        expected = max(nights.f1(truth, scores >= threshold) for threshold in scores)
        assert nights.best_f1(truth, scores) == pytest.approx(expected)


def test_the_table_of_nights_says_mean_error_and_worst_night() -> None:
    findings = []
    for fraction in nights.FRACTIONS:
        for rule in (nights.UPPER_FIT, nights.BEST, nights.LINEAR_MAD, nights.LOG_MAD, nights.LEVEL):
            case = {"surface": "mono", "px": 448, "fraction": fraction, "rule": rule, "arithmetic": "fp32"}
            for rate in lots.RATES[1:]:
                lot_values = [value for lot in range(5) for value in [0.5 + 0.1 * lot] * lots.draws_of(rate)]
                findings.append(Finding("nights", {**case, "rate": rate}, "F1", tuple(lot_values)))
            if rule != nights.BEST:
                findings.append(Finding("nights", {**case, "rate": 0.0}, "flagged", (0.0, 0.0, 0.0, 0.0, 0.05)))
        for name in (nights.PLAIN, nights.LEVEL):
            case = {"surface": "mono", "px": 448, "fraction": fraction, "rule": name, "arithmetic": "fp32"}
            findings += [Finding("nights", {**case, "rate": rate}, "AUROC", (0.9, 0.8)) for rate in lots.RATES[1:]]
    means, by_rate, levels = nights.sheets(findings)
    assert means.rows[0] == ("mono", "448", "30%", *["0.700 ± 0.071"] * 4, *["1.0% / 5.0%"] * 3)
    assert levels.rows[:2] == tuple(
        ("mono", "448", "30%", name, "0.8500", "0.700 ± 0.071", "1.0% / 5.0%") for name in (nights.PLAIN, nights.LEVEL)
    )
    assert by_rate.rows[0] == ("mono", "448", "30%", nights.UPPER_FIT, *["0.70"] * 5)
    assert by_rate.header[4:] == ("1%", "2.5%", "5%", "10%", "20%")


def draw(seed: int, level: float, defect: float = 0.05) -> Draw:
    """20 good and 20 defective images and 16 prompts, whose distances are about ``level``."""
    rng = np.random.default_rng(seed)
    to_prompts = level + np.abs(rng.normal(0, 0.01, (40, 16, 10))).astype(np.float32)
    to_prompts[20:] += defect
    among = level + np.abs(rng.normal(0, 0.01, (16, 16, 10))).astype(np.float32)
    return Draw(to_prompts, among, np.arange(40) >= 20)


def test_prompts_are_scored_by_each_other_and_images_by_the_first_prompts() -> None:
    given = draw(0, 0.1)
    null = given.null_scores(4)
    for i in range(4):
        others = [j for j in range(4) if j != i]
        assert null[i] == pytest.approx(given.among[i, others].min(axis=0).max())
    assert given.scores(4)[7] == pytest.approx(given.to_prompts[7, :4].min(axis=0).max())
    assert np.isfinite(given.among).all()


def test_an_image_alone_gets_the_verdict_that_it_has_in_a_list() -> None:
    given = draw(1, 0.1, defect=0.01)
    scores, null = given.scores(8), given.null_scores(8)
    together = judge(scores, VerdictSettings(), null_scores=null)
    for index, score in enumerate(scores):
        lone = judge(np.array([score]), VerdictSettings(), null_scores=null)
        assert lone.flagged[0] == together.flagged[index]
        assert lone.z[0] == pytest.approx(together.z[index])


def test_what_is_flagged_alone_is_told_per_product_and_k() -> None:
    drawn = {name: draw(seed, 0.1) for seed, name in enumerate(prompted.NAMES)}
    values = dict(alone.of_draw(drawn)) | dict(alone.of_product("mono", drawn["mono"], prompted.ONE))
    for product in PRODUCTS:
        assert values[product, 16, prompted.ALL, "defective flagged"] == 1.0
        assert values[product, 16, prompted.ALL, "good flagged"] <= 0.1
        assert values[product, 8, prompted.ALL, "AUROC"] == 1.0
    found = [
        Finding("alone", {"product": p, "px": 448, "k": k, "null": n, "arithmetic": "fp32"}, m, (v, v))
        for (p, k, n, m), v in values.items()
    ]
    (sheet,) = alone.sheets(found)
    assert len(sheet.rows) == 5 * len(alone.SHOTS)
    assert sheet.rows[len(alone.SHOTS) - 1][:4] == ("mono", "448", prompted.ONE, "16")
    assert sheet.rows[len(alone.SHOTS) - 1][5:7] == ("100.0% ± 0.0%", "at least 95%")


def test_a_pooled_deviation_is_that_of_alike_products() -> None:
    null = np.array([0.09, 0.10, 0.11])
    pooled = alone.pooled_interval("a", {"a": null, "b": 2 * null})
    assert pooled.centre == pytest.approx(0.10)
    assert pooled.scale == pytest.approx(0.01 * np.sqrt(4 / 3))
    assert pooled.degrees == 4


def test_z_puts_products_of_different_levels_into_one_list() -> None:
    drawn = {name: draw(seed, level) for seed, (name, level) in enumerate([("a", 0.05), ("b", 0.2), ("c", 0.4)])}
    found = products.aurocs(drawn, 8)
    assert found[products.EACH] == 1.0
    assert found[products.SCORE] < 0.8
    assert found[products.Z] > 0.95
    (sheet,) = products.sheets(
        [Finding("products", {"k": 8, "arithmetic": "fp32"}, m, (value,)) for m, value in found.items()]
    )
    assert sheet.rows == (
        ("8", "1.000", f"{found[products.SCORE]:.3f}", f"{found[products.Z]:.3f}", *sheet.rows[0][4:]),
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every study on small pictures, few of them, by a small encoder with random weights."""
    features = Features(SMALL, 64)
    for module in (lots, limits):
        monkeypatch.setattr(module, "SIZE", 64)
        monkeypatch.setattr(module, "shared", lambda *_: features)
    for name in lots.GOOD:
        monkeypatch.setitem(lots.GOOD, name, 24)
        monkeypatch.setitem(lots.LOTS, name, 2)
    monkeypatch.setattr(prompted, "ASKED", 6)
    for cached in (lots.embedded, lots.lot_of, prompted.draw_of, limits._mixed_scores):
        cached.cache_clear()
    yield
    for cached in (lots.embedded, lots.lot_of, prompted.draw_of, limits._mixed_scores):
        cached.cache_clear()


@pytest.mark.usefixtures("tiny")
def test_scores_of_a_night_are_those_of_its_images_alone() -> None:
    lot = lots.lot_of("mono", 1, "fp32")
    assert lot.distances.shape == (30, 30, 16)
    chosen, _ = lot.night(0.1, 0)
    scores = dict(scored(Sorted.of(lot.distances, chosen), (Aggregation("nearest", 0.3, 0.01),)))
    direct = score_group(
        lots.embedded("mono", 1)[chosen],
        np.arange(len(chosen)),
        aggregation=Aggregation("nearest", 0.3, 0.01),
        memory_bytes=10**9,
    )
    np.testing.assert_allclose(next(iter(scores.values())), direct.image_scores, atol=1e-6)


@pytest.mark.usefixtures("tiny")
def test_prompts_are_good_photos_and_apart_those_of_other_lots() -> None:
    for number in range(2):
        prompts, good, defective = prompted.places("mono", number, prompted.APART)
        assert len(set(prompts)) == 16
        assert all(lot != number and at < 24 for lot, at in prompts)
        assert [at for _, at in good] == list(range(good[0][1], good[0][1] + 6))
        assert {lot for lot, _ in good} == {number}
        assert all(at >= 24 for _, at in defective)
        prompts, good, _ = prompted.places("mono", number, prompted.ONE)
        assert len({*prompts, *good}) == len(prompts) + len(good)
        assert {lot for lot, _ in prompts + good} == {number}
        prompts, good, _ = prompted.places("mono", number, prompted.ALL)
        assert len({*prompts, *good}) == 16 + 6
        assert {lot for lot, _ in prompts} == {0, 1}
        assert all(at < 24 for _, at in prompts + good)
    given = prompted.draw_of("mono", 0, "fp32")
    assert given.to_prompts.shape == (12, 16, 16)
    assert given.truth.sum() == 6


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_every_limit_is_measured_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"MANY": 20, "RARE": (3, 5), "FEW": (10, 20), "WHOLE_GOOD": 16, "WHOLE": (2, 4)}
    for name, value in small.items():
        monkeypatch.setattr(limits, name, value)
    # 23 or more good images say no level below 1 in 24.
    monkeypatch.setattr(limits, "BY_ACCEPTED", VerdictSettings(verdict="reference", alpha=0.1))
    monkeypatch.setattr(limits, "settled_precision", lambda *_: "fp32")
    findings = limits.run(lambda _: None)
    mixed, few, whole = limits.sheets(findings)
    assert [row[:2] for row in mixed.rows[:3]] == [("3 mono, 20 poly", v) for v in ("auto", "group_by", "accepted")]
    assert len(few.rows) == len(PRODUCTS) * 2
    assert len(whole.rows) == len(limits.SPOILT) * 2
    assert all(cell for sheet in (mixed, few, whole) for row in sheet.rows for cell in row)
    assert all(len(finding.values) == 2 for finding in findings)


@pytest.mark.slow
def test_a_photo_is_spoilt_as_a_whole() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    for how in limits.SPOILT.values():
        assert (limits.spoilt(photo, how) != photo).mean() > 0.9

"""The studies' own arithmetic: splits, scores read off a strip, objects, tables from a file of figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import study
import typer
from demo_archive import elpv_cells
from measured_page import Origin
from studies import accepted, aligned, cells, defects, elpv, elpv_parts, fewshot
from studies.elpv_parts import PARTS, REDUCTIONS, Part, fitted
from studies.features import Features, Model
from studies.findings import Finding, Sheet, find, load, save
from studies.objects import BACKGROUND, CANVAS, OBJECT, Pose, place, random_pose
from studies.pixels import METRICS, USUAL, Shot, good, metrics
from studies.strips import Sorted, scored, strip, strip_to

from patchead.forecast.calibrate import unit_vectors
from patchead.local import embed_images, score_samples
from patchead.samples.align import Alignment
from patchead.samples.mask import ForegroundMask
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.leave_one_out import score_group
from patchead.scoring.precision_probe import probe

RULE = Aggregation("nearest", 0.3, 0.01)
EVERY_SPLIT = [(p, n) for p in cells.PRODUCTS for n in sorted({*cells.SPLITS, *cells.CHOOSING[p]})]


def test_splits_share_no_cell() -> None:
    for name in cells.PRODUCTS:
        splits = [cells.split(p, n) for p, n in EVERY_SPLIT if p == name]
        for one, other in combinations(splits, 2):
            assert not set(one.names()) & set(other.names()), (name, one.number, other.number)


@pytest.mark.parametrize(("name", "number"), EVERY_SPLIT)
def test_a_split_is_a_contiguous_block_of_good_cells(name: str, number: int) -> None:
    split, good, bad = cells.split(name, number), elpv_cells(name, 0.0), elpv_cells(name, 1.0)
    assert split.good == good[180 * number : 180 * number + 180]
    assert set(split.defective) <= set(bad)
    assert len(set(split.names())) == 225


@pytest.mark.parametrize("number", cells.SPLITS)
def test_defective_cells_are_every_third_of_the_first_from_the_splits_offset(number: int) -> None:
    split, bad = cells.split("poly", number), elpv_cells("poly", 1.0)
    for rate, first in ((5, 27), (10, 60), (20, 135)):
        names = split.names(rate)
        assert names[180:] == bad[:first][number::3]
        assert split.truth(rate).sum() == len(bad[:first][number::3]) == cells.RATES[rate]
        assert set(split.names(5)) <= set(names)


def test_a_product_that_has_too_few_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="too few for split 3"):
        cells.split("mono", 3)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("chosen", [np.arange(14), np.arange(9), np.array([0, 2, 3, 7, 11, 12])])
def test_scores_read_off_a_strip_are_those_of_the_group_alone(chosen: np.ndarray, precision: str) -> None:
    stored = unit_vectors(14, 25, 48)
    ordered = Sorted.of(strip(stored, precision), chosen)
    rules = (Aggregation("nearest", 0.3, 0.0), Aggregation("nearest", 0.1, 0.1), Aggregation("farthest", 0.3, 0.1))
    for aggregation, scores in scored(ordered, rules):
        direct = score_group(
            stored[chosen], np.arange(len(chosen)), aggregation=aggregation, precision=precision, memory_bytes=10**9
        )
        np.testing.assert_allclose(
            ordered.patch_scores(aggregation.aggregate, aggregation.fraction), direct.patch_scores, atol=1e-6
        )
        np.testing.assert_allclose(scores, direct.image_scores, atol=1e-6)


def test_distances_to_prompts_are_those_to_the_nearest_patch() -> None:
    stored = unit_vectors(5, 16, 32)
    got = strip_to(stored[:3], stored[3:])
    exact = stored.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=-1, keepdims=True)
    for i in range(3):
        for j in range(2):
            np.testing.assert_allclose(got[i, j], ((1 - exact[i] @ exact[3 + j].T) / 2).min(axis=1), atol=1e-5)


def test_prompts_are_good_cells_of_other_blocks_and_a_seed_repeats_them() -> None:
    own = set(cells.split("mono", 1).names())
    for draw in range(3):
        names = fewshot.prompts("mono", 1, draw)
        assert len(set(names)) == 16
        assert not set(names) & own
        assert set(names) <= set(elpv_cells("mono", 0.0))
        assert names == fewshot.prompts("mono", 1, draw)
    assert fewshot.prompts("mono", 1, 0) != fewshot.prompts("mono", 1, 1)


SMALL = Model(label="small", name="timm/vit_tiny_patch16_224", weights="random", layers=(6, 9, 12))


def test_every_layer_choice_is_cut_out_of_one_pass() -> None:
    names = elpv_cells("mono", 0.0)[:3]
    features = Features(SMALL, 64)
    pixels = cells.photos(names, 64)
    for layers in ((), (6, 12)):
        expected = replace(SMALL, layers=layers).build(64).embed(pixels).vectors.astype(np.float32)
        got = features.take(names, layers).astype(np.float32)
        got /= np.linalg.norm(got, axis=-1, keepdims=True)
        np.testing.assert_allclose(got, expected, atol=2e-3)
    np.testing.assert_array_equal(features.take(names[2:], ())[0], features.take(names, ())[2])


def test_an_object_in_place_is_centred_on_a_plain_background() -> None:
    image = np.random.default_rng(0).integers(0, 100, (300, 300, 3), dtype=np.uint8)
    placed = place(image, Pose())
    edge = (CANVAS - OBJECT) // 2
    assert placed.shape == (CANVAS, CANVAS, 3)
    inside = np.zeros((CANVAS, CANVAS), bool)
    inside[edge : edge + OBJECT, edge : edge + OBJECT] = True
    assert (placed[~inside] == BACKGROUND).all()
    assert (placed[inside] < BACKGROUND).all()


def test_poses_stay_within_their_limits_and_keep_the_object_on_the_canvas() -> None:
    rng = np.random.default_rng(0)
    white = np.full((300, 300, 3), 255, np.uint8)
    for _ in range(50):
        pose = random_pose(rng, shift=0.1, turn=20, flips=True)
        assert max(abs(pose.x), abs(pose.y)) <= 0.1 * CANVAS
        assert min(abs(pose.angle), abs(pose.angle - 180)) <= 20
        placed = place(white, pose)
        assert (np.concatenate([placed[0], placed[-1], placed[:, 0], placed[:, -1]]) == BACKGROUND).all()


def test_masks_move_with_their_objects() -> None:
    photo = aligned.photographed(defects.crops("gravel", 1)[0], 0)
    marked = photo.copy()
    marked[100:120, 100:120] = 255
    things = [
        (photo, Shot(photo, np.zeros((224, 224), bool))),
        (photo, Shot(marked, np.zeros((224, 224), bool), "hole")),
    ]
    still = aligned.arranged(things, shift=0, turn=0, flips=False)
    moved = aligned.arranged(things, shift=0.1, turn=20, flips=False)
    assert not still[0].mask.any()
    assert not moved[0].mask.any()
    assert 200 <= still[1].mask.sum() <= 400  # 20 of 224 pixels shrunk to 192 are 17
    assert abs(int(moved[1].mask.sum()) - int(still[1].mask.sum())) < 100
    assert (moved[1].mask != still[1].mask).any()


def test_the_base_is_the_photos_as_they_are() -> None:
    encoder = SMALL.build(64, attention=True)
    part = defects.crops("gravel", 1)[0]
    things = [(photo, good(photo)) for photo in (aligned.photographed(part, seed) for seed in range(6))]
    images = [shot.image for shot in aligned.arranged(things, shift=0.1, turn=20, flips=True)]
    moved, plain = embed_images(images, encoder, align=Alignment()), embed_images(images, encoder)
    assert moved.side_arrays.aligned is not None
    assert moved.side_arrays.aligned.all()
    base = aligned.as_they_are(moved)
    np.testing.assert_allclose(base.embeddings.astype(float), plain.embeddings.astype(float), atol=2e-3)
    for mask in (None, ForegroundMask()):
        got, expected = (score_samples(samples, aggregation=aligned.RULE, mask=mask) for samples in (base, plain))
        assert got.aligned is None
        np.testing.assert_allclose(got.patch_scores, expected.patch_scores, atol=1e-3)
        np.testing.assert_allclose(got.image_scores, expected.image_scores, atol=1e-3)


def test_pixel_metrics_of_a_perfect_and_of_a_blind_map() -> None:
    mask = np.zeros((64, 64), bool)
    mask[16:40, 16:40] = True
    image = np.zeros((64, 64, 3), np.uint8)
    shots = [Shot(image, np.zeros_like(mask)), Shot(image, mask, "hole")]
    found = metrics(shots, [np.zeros((64, 64)), mask * 0.5], np.array([0.0, 0.5]))
    assert list(found) == list(METRICS)
    assert found["pixel AUROC"] > 0.99
    assert found["image AUROC"] == 1.0
    blind = metrics(shots, [np.full((8, 8), 0.1)] * 2, np.array([0.1, 0.1]))
    assert blind["pixel AUROC"] == pytest.approx(0.5)
    assert blind["image AUROC"] == 0.5


@pytest.mark.parametrize(
    ("before", "moved", "back", "share", "verdict"),
    [
        (0.9, 0.8, 0.895, 1.0, "recovered"),
        (0.9, 0.8, 0.85, 0.9, "50% of the loss recovered"),
        (0.9, 0.8, 0.79, 0.9, "not recovered"),
        (0.9, 0.8, 0.8, 0.02, "not recovered: only 2% of the photos could be aligned"),
        (0.9, 0.9, 0.9, 1.0, "nothing was lost"),
        (0.9, 0.9, 0.8, 1.0, "nothing was lost, and alignment costs"),
    ],
)
def test_what_alignment_recovers_is_said_from_the_numbers(
    before: float, moved: float, back: float, share: float, verdict: str
) -> None:
    still, shifted, _ = aligned.ARRANGEMENTS
    figures = {
        (still, "base", "image AUROC"): before,
        (shifted, "base", "image AUROC"): moved,
        (shifted, "+alignment", "image AUROC"): back,
        (shifted, "+alignment", "aligned"): share,
    }
    findings = [
        Finding("aligned", {"object": "one part", "arrangement": a, "method": m}, metric, (value,))
        for (a, m, metric), value in figures.items()
    ]
    (sentence,) = aligned.statements(findings)
    assert sentence.startswith(f"one part, {shifted}, image AUROC: 0.900 in place, {moved:.3f} moved")
    assert sentence.endswith(f"({verdict}).")


def test_a_finding_says_its_mean_and_spread() -> None:
    finding = Finding("elpv", {"px": 224}, "AUROC", (0.9, 1.0, 0.95))
    assert finding.with_range == "0.950 (0.90-1.00)"
    assert finding.with_deviation == "0.950 ± 0.050"
    assert Finding("elpv", {}, "AP", (0.5,)).with_range == "0.500"


def test_asking_for_one_finding_must_be_precise() -> None:
    findings = [Finding("elpv", {"px": px}, "AUROC", (0.9,)) for px in (224, 448)]
    assert find(findings, "AUROC", px=448) == findings[1]
    assert find(findings, "AP", px=448) is None
    with pytest.raises(ValueError, match="2 findings fit"):
        find(findings, "AUROC")


def test_saving_one_study_keeps_the_figures_of_the_others_and_of_other_machines(tmp_path: Path) -> None:
    output = tmp_path / "evaluation.json"
    first, second = Finding("elpv", {"px": 224}, "AUROC", (0.1,)), Finding("planted", {}, "PRO", (0.2, 0.3))
    again = Finding("elpv", {"px": 448}, "AUROC", (0.4,))
    here, there = (Origin(name, "jobs/study.py", "2026-11-25") for name in ("AMD", "Intel"))
    save([first, second], output, there)
    save([first, second], output, here)
    save([again], output, here)
    assert load(output, "AMD") == ([second, again], [here, here])
    assert load(output, "Intel") == ([first, second], [there, there])
    assert load(tmp_path / "nothing.json", "AMD") == ([], [])


def test_a_sheet_as_markdown() -> None:
    text = Sheet("Title", "Caption.", ("a", "b"), (("x", "1"),)).markdown()
    assert text.splitlines() == ["Caption.", "", "| a | b |", "| --- | --- |", "| x | 1 |"]


def invented(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """Figures of every study, without any embedding: AUROC falls with the split, everything else is 0.5."""

    def of_split(part: elpv.Part, _: object, split: cells.Split) -> Iterator[tuple[object, tuple[float, float]]]:
        rates = [rate for rate in cells.RATES if rate <= part.rate]
        for layers, rate, aggregation in product(part.layers, rates, elpv.RULES):
            bonus = 0.02 if aggregation.fraction == 0.05 else 0.0
            yield (layers, rate, aggregation), (0.97 + bonus - 0.01 * split.number, 0.5)

    monkeypatch.setattr(elpv, "_of_split", of_split)
    monkeypatch.setattr(elpv, "Features", lambda *_: SimpleNamespace(forget=lambda: None))
    monkeypatch.setattr(elpv, "shared", lambda *_: None)
    monkeypatch.setattr(Model, "settled", lambda self, _: replace(self, dtype="fp32"))
    found = elpv.run(lambda _: None)
    shots = product(cells.PRODUCTS, fewshot.LAYERS, fewshot.SHOTS, ("AUROC", "AP"))
    found += [Finding("fewshot", {"product": p, "layers": name, "k": k}, m, (0.5, 0.7)) for p, name, k, m in shots]
    kinds = product(defects.GROUPS, USUAL, METRICS)
    found += [Finding("planted", {"surface": s, "kind": k}, m, (0.5, 0.6)) for s, k, m in kinds]
    places = product(aligned.OBJECTS, aligned.ARRANGEMENTS, aligned.METHODS, (*METRICS, "aligned"))
    found += [
        Finding("aligned", {"object": o, "arrangement": a, "method": m}, metric, (0.8,)) for o, a, m, metric in places
    ]
    return [*found, Finding("precision", {"case": "blocks 6+12", "way": "int8"}, "change of AUROC", (0.001,))]


def test_a_page_comes_from_the_saved_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "evaluation.json"
    save(invented(monkeypatch), output, Origin.here())
    found = study.page_tables(output)
    assert len(found) == 8
    assert all(below.startswith(f"By `{Origin.here().command}` on ") for below in found.values())
    text = "\n".join(found.values())
    (row,) = [line for line in text.splitlines() if line.startswith("| poly | DINOv2-S | 448 | 6+9+12 |")]
    assert row.split(" | ")[4:] == [
        *["0.960 (0.95-0.97) / 0.500"] * 2,
        "0.980 (0.97-0.99) / 0.500",
        "0.960 (0.95-0.97) / 0.500 |",
    ]
    assert "at least 0.95: reached, 0.960 (0.970, 0.960, 0.950)" in text
    assert "| 5 % nearest references | +0.020 | +0.020 | helped |" in text
    assert "| random weights | +0.000 | +0.000 | no difference |" in text
    assert "| 448 px | +0.000 | +0.000 | no difference |" in text  # mono: split 0 beside split 0
    for table in text.split("\n\n"):
        widths = {line.count(" | ") for line in table.splitlines() if line.startswith("|")}
        assert len(widths) <= 1, table


def seconds(part: Part) -> float:
    """Ten minutes for every split and layer choice at 448 px, one at 224 px."""
    return 60.0 * (10 if part.size == 448 else 1) * sum(map(len, part.splits.values())) * len(part.layers)


def test_everything_is_run_where_there_is_time() -> None:
    assert fitted(PARTS, sum(map(seconds, PARTS)) / 60, seconds) == (list(PARTS), [])


def test_what_the_fewest_statements_rest_on_is_left_out_first() -> None:
    whole = sum(map(seconds, PARTS)) / 60
    before: list[str] = []
    for minutes in range(int(whole), 23, -1):
        kept, left_out = fitted(PARTS, minutes, seconds)
        assert left_out[: len(before)] == before
        assert sum(map(seconds, kept)) <= 60 * minutes
        before = left_out
        assert kept[0] == PARTS[0]
    assert before == [what for what, _ in REDUCTIONS]


def test_a_study_without_time_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Model, "settled", lambda self, _: replace(self, dtype="fp32"))
    monkeypatch.setattr(elpv_parts, "seconds_of", seconds)
    monkeypatch.setattr(elpv, "_of_split", lambda part, *_: iter([((next(iter(part.layers)), 10, RULE), (0.9, 0.5))]))
    monkeypatch.setattr(elpv, "Features", lambda *_: SimpleNamespace(forget=lambda: None))
    monkeypatch.setattr(elpv, "shared", lambda *_: None)
    found = elpv.run(said.append, 60)
    what = "the last layer at 448 px"
    assert f"left out, to end within 60 minutes on this processor: {what}" in said
    first = elpv.sheets(found)[0]
    assert f"Left out for time on this processor: {what}" in first.caption
    assert "fp32 encoder, fp32 scores: DINOv2-S poly 224 px" in first.caption


def test_the_estimate_is_made_of_what_this_processor_does() -> None:
    part = Part(
        model=SMALL, size=64, layers={"last": (), "6+12": (6, 12)}, splits={"mono": (0, 1), "poly": (2,)}, rate=10
    )
    once = replace(part, splits={"mono": (0,)})
    assert elpv_parts.seconds_of(part) == pytest.approx(3 * elpv_parts.seconds_of(once))
    slower = replace(part, precision="int8")
    ratio = elpv_parts.scoring_seconds("int8") / elpv_parts.scoring_seconds("fp32")
    assert ratio == pytest.approx(1 / probe(candidates=("int8",))["int8"])
    assert (elpv_parts.seconds_of(slower) > elpv_parts.seconds_of(part)) == (ratio > 1)


def test_the_study_that_can_be_shortened_takes_the_time_that_the_others_leave() -> None:
    turn = study.in_turn(list(study.Name))
    assert set(turn[-len(study.LONG) :]) == set(study.LONG)
    assert turn[-len(study.LONG) - 1] is study.Name.elpv
    assert sorted(study.in_turn(list(study.Name))) == sorted(study.Name)


def test_every_study_can_be_named_alone_and_a_wrong_name_is_refused() -> None:
    assert study.chosen("") == list(study.Name)
    assert study.chosen("aligned, elpv") == [study.Name.aligned, study.Name.elpv]
    assert set(study.STUDIES) == set(study.Name)
    with pytest.raises(typer.BadParameter, match="got 'fast'"):
        study.chosen("elpv,fast")


def test_accepted_nights_are_disjoint_and_of_one_size() -> None:
    for pairs, size in ((list(accepted.drawn("mono")), accepted.DRAWN), (accepted.blocks(), accepted.BLOCK)):
        assert len(pairs) >= 20
        for one, other in pairs:
            assert len(one) == len(other) == size
            assert not set(one) & set(other)
            assert max(one.max(), other.max()) < accepted.POOL
        for level in accepted.LEVELS:  # a level is a whole number of ranks
            assert (size + 1) * level == pytest.approx(round((size + 1) * level))


def test_scores_of_a_pool_are_those_of_the_kernels() -> None:
    embeddings = unit_vectors(9, 4, 8)
    pool = accepted.Pool(strip(embeddings))
    queries, references = np.arange(2), np.arange(1, 9)
    found = pool.scores(queries, references)
    for row, query in enumerate(queries):
        others = references[references != query]
        group = np.concatenate([embeddings[[query]], embeddings[others]])
        alone = score_group(
            group,
            np.arange(len(group)),
            aggregation=RULE,
            memory_bytes=10**9,
            panel=np.arange(1, len(group)),
            queries=1,
        )
        assert found[row] == pytest.approx(alone.image_scores[0], abs=1e-6)


@pytest.mark.slow
def test_alike_nights_fall_below_each_level_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    of_image = rng.gamma(4.0, 0.02, accepted.POOL + accepted.DEFECTIVE) + 0.1  # how odd an image is to every other
    of_image[accepted.POOL :] += 1.0
    shape = (len(of_image), len(of_image), 4)
    pool = accepted.Pool(np.broadcast_to(of_image[:, None, None], shape).astype(np.float32))
    values: dict[tuple[str, str], list[float]] = {}
    for one, other in accepted.drawn("mono"):
        for key, value in accepted.of_pair(pool, one, other):
            values.setdefault(key, []).append(value)
    for level in accepted.LEVELS:
        for references in accepted.REFERENCES:
            found = np.mean(values[references, accepted.metric_of(level)])
            assert found == pytest.approx(level, rel=accepted.TOLERANCE)
    assert np.mean(values["accepted", "defective"]) == 1.0
    assert np.mean(values["night", "warned"]) <= 0.03
    case = {"product": "mono", "nights": "drawn", "dtype": "fp32", "precision": "fp32"}
    findings = [
        Finding("accepted", {**case, "references": references}, metric, tuple(found))
        for (references, metric), found in values.items()
    ]
    (sheet,) = accepted.sheets(findings)
    assert [row[:3] for row in sheet.rows] == [("mono, drawn", "night", "120"), ("mono, drawn", "accepted", "120")]
    assert all(cell.endswith(" ok") for row in sheet.rows for cell in row[3:5])

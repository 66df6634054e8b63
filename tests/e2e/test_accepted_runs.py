"""A published night is accepted, and later nights are compared with it: real runs, real lake, real commands."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from reference.oracle import image_scores, patch_scores

from patchead.archive.decode import decode, fit
from patchead.encoders import EncoderSpec, build
from patchead.errors import LakeError, SettingsError
from patchead.lake.accepted import read_accepted
from patchead.nightly.run_record import RunRecord
from patchead.scoring.conformal import benjamini_hochberg
from patchead.scoring.prediction import z_of_p
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import (
    SMALL_OPTIONS,
    by_id,
    good_images,
    png,
    rows,
    spoiled,
    table,
    texture,
    write_group,
)

Score = Callable[..., RunRecord]
BEFORE, NIGHT = "2026-11-20", "2026-11-21"
SCREW, NUT = f"night={BEFORE}/product=screw", f"night={BEFORE}/product=nut"
GOOD = 24  # of a product


@dataclass(frozen=True)
class Accepted:
    """An archive of two nights and a lake with the first, run ``r1``, accepted as ``october``."""

    archive: Path
    lake: Path


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, score_night: Score) -> Accepted:
    """Two products on two nights, of which the first is scored; tests must not change it."""
    root = tmp_path_factory.mktemp("accepted")
    archive, lake = root / "archive", root / "lake"
    write_group(archive, BEFORE, "screw", good_images(GOOD))
    write_group(archive, BEFORE, "nut", good_images(GOOD, first_seed=100))
    write_group(archive, NIGHT, "screw", {**good_images(20, first_seed=200), "bad.png": png(spoiled(1))})
    write_group(archive, NIGHT, "nut", good_images(20, first_seed=300))
    score_night(archive, lake, **{"archive.night": BEFORE, "run.run_id": "r1"})
    assert patchead("accept", "r1", "--lake", str(lake), "--name", "october").code == 0
    return Accepted(archive, lake)


def test_what_is_accepted_are_the_scores_of_the_run(scored: Accepted) -> None:
    published = by_id(scored.lake)
    found = {row.keys: row for row in read_accepted(str(scored.lake), Storage(), name="october")}
    assert set(found) == {"product=screw", "product=nut"}
    for row in found.values():
        assert row.run_id == "r1"
        assert row.values["n"] == GOOD == len(row.scores)
        assert (row.scores == sorted(row.scores)).all()
        assert [published[image]["score"] for image in row.image_ids] == row.scores.tolist()
        assert row.values["encoder_id"] == published[row.image_ids[0]]["encoder_id"]
    printed = patchead("accepted", "--lake", str(scored.lake)).out
    assert "october" in printed and SCREW in printed and NUT in printed


def test_accepting_again_changes_nothing_and_the_name_is_guarded(scored: Accepted) -> None:
    lake = str(scored.lake)
    before = [row.values for row in read_accepted(lake, Storage())]
    again = patchead("accept", "r1", "--lake", lake, "--name", "october")
    assert (again.code, again.out.count("was accepted before")) == (0, 2)
    assert [row.values for row in read_accepted(lake, Storage())] == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["r0"], "no published run 'r0'. Did you mean 'r1'? Published runs, the newest first: r1."),
        (["r1", "--product", "nutt"], "no product 'nutt'. Did you mean 'nut'? It has nut, screw."),
        (["r1", "--night", NIGHT], f"no night {NIGHT}. It has {BEFORE}."),
        (["r1", "--night", "yesterday"], "--night must be a date"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(scored: Accepted, arguments: list[str], told: str) -> None:
    done = patchead("accept", *arguments, "--lake", str(scored.lake))
    assert done.code != 0
    assert told in done.err


def test_one_product_is_accepted_and_replaced_when_asked(scored: Accepted, tmp_path: Path) -> None:
    lake = str(shutil.copytree(scored.lake, tmp_path / "lake"))
    given = ["accept", "r1", "--lake", lake, "--name", "screws", "--product", "screw"]
    assert patchead(*given).code == 0
    assert [row.keys for row in read_accepted(lake, Storage(), name="screws")] == ["product=screw"]
    labelled = tmp_path / "labels.csv"
    labelled.write_text(f"image_id,verdict\n{SCREW}/good003.png,defect\n")
    assert patchead("feedback", str(labelled), "--lake", lake).code == 0
    refused = patchead(*given)
    assert refused.code == 2
    assert f"'screws' is taken for product=screw: run r1 ({GOOD} images), now with {GOOD - 1}" in refused.err
    assert patchead(*given, "--replace").code == 0
    (screws,) = read_accepted(lake, Storage(), name="screws")
    assert len(screws.scores) == GOOD - 1
    assert f"{SCREW}/good003.png" not in screws.image_ids


def tonight(scored: Accepted, score_night: Score, tmp_path: Path, **settings: object) -> tuple[Path, RunRecord]:
    """The second night, scored into a copy of the lake."""
    lake = tmp_path / "lake"
    shutil.copytree(scored.lake, lake)
    record = score_night(scored.archive, lake, **{"archive.night": NIGHT, "run.run_id": "r2", **settings})
    return lake, record


ALPHA = 0.05  # 24 accepted scores are enough for it
BY_REFERENCE = {"scoring.verdict": "reference", "scoring.alpha": ALPHA}


def test_p_values_are_ranks_among_the_accepted_scores(scored: Accepted, score_night: Score, tmp_path: Path) -> None:
    lake, record = tonight(scored, score_night, tmp_path, **BY_REFERENCE)
    accepted = {row.keys: row for row in read_accepted(str(scored.lake), Storage(), name="october")}
    found = [row for row in rows(lake) if str(row["night"]) == NIGHT]
    assert len(found) == 41
    for row in found:
        null = accepted[f"product={row['product']}"].scores
        p = (1 + int((null >= row["score"]).sum())) / (GOOD + 1)
        assert row["p_value"] == pytest.approx(p)
        assert row["is_anomalous"] == (p <= ALPHA)
        assert row["verdict_rule"] == "reference"
    bad = by_id(lake)[f"night={NIGHT}/product=screw/bad.png"]
    assert bad["is_anomalous"] and bad["p_value"] == pytest.approx(1 / (GOOD + 1))
    assert record.scoring["accepted"][f"night={NIGHT}/product=nut"] == {
        "name": "october",
        "run_id": "r1",
        "scores": GOOD,
    }
    judged = {row["product"]: row for row in table(lake, "verdicts").to_pylist() if str(row["night"]) == NIGHT}
    for product, row in judged.items():
        assert row["accepted"] == "october"
        assert 0 <= row["drift_p"] <= 1
        assert row["threshold_score"] == accepted[f"product={product}"].scores[-1]
    assert all(row["accepted"] is None for row in table(lake, "verdicts").to_pylist() if str(row["night"]) == BEFORE)


def test_the_accepted_night_itself_is_not_ranked_among_its_own_scores(
    scored: Accepted, score_night: Score, tmp_path: Path
) -> None:
    told = rf"night={BEFORE}/product=nut .* 24 of the 24 accepted scores are of its own images.*scoring\.verdict=auto"
    with pytest.raises(SettingsError, match=told):
        tonight(scored, score_night, tmp_path, **BY_REFERENCE, **{"archive.night": BEFORE})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"scoring.alpha": 0.01},
            f"night={NIGHT}/product=nut is compared with {GOOD} scores of 'october' (run r1), and level 0.01 needs at "
            "least 99",
        ),
        (
            {"scoring.fraction": 0.1, "scoring.image_top_fraction": 0.02},
            "cannot be compared with 'october' (run r1): scoring.fraction 0.3 there, 0.1 here, "
            "scoring.image_top_fraction 0.01 there, 0.02 here",
        ),
        ({"encoder.image_size": 48}, "encoder.image_size 64 there, 48 here"),
        (
            {"scoring.accepted": "november"},
            "no run is accepted as 'november' for the group night=2026-11-21/product=nut",
        ),
    ],
)
def test_a_run_that_cannot_be_compared_is_refused_before_anything_is_embedded(
    scored: Accepted, score_night: Score, tmp_path: Path, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        tonight(scored, score_night, tmp_path, **{**BY_REFERENCE, **settings})
    saved = json.loads((tmp_path / "lake/runs/r2/run.json").read_text())
    assert (saved["state"], saved["embedded"]) == ("failed", 0)
    assert "embed" not in saved["seconds"]


def test_a_product_that_nobody_accepted_is_named_with_those_that_are(
    scored: Accepted, score_night: Score, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    write_group(archive, NIGHT, "bolt", good_images(6, first_seed=400))
    other = Accepted(archive, scored.lake)
    with pytest.raises(SettingsError, match=r"looked for product=bolt\. Accepted are: .*october product=nut"):
        tonight(other, score_night, tmp_path, **BY_REFERENCE)


@pytest.mark.parametrize("settings", [{}, {"scoring.alpha": None, "scoring.false_discovery": 0.5}], ids=str)
def test_a_group_that_is_too_small_for_scores_needs_nothing_accepted(
    scored: Accepted, score_night: Score, tmp_path: Path, settings: dict[str, object]
) -> None:
    """Two stray photos of another product, and two of a product of which images were accepted, one of them its own."""
    archive = tmp_path / "archive"
    write_group(archive, NIGHT, "screw", good_images(6, first_seed=200))
    write_group(archive, NIGHT, "misc", good_images(2, first_seed=400))
    write_group(archive, NIGHT, "nut", good_images(2, first_seed=100))
    given = {name: value for name, value in {**BY_REFERENCE, **settings}.items() if value is not None}
    lake, record = tonight(Accepted(archive, scored.lake), score_night, tmp_path, **given)
    assert (record.ok, record.skipped) == (6, 4)
    found = {row["product"]: row for row in rows(lake) if row["run_id"] == "r2"}
    assert found["screw"]["p_value"] is not None
    assert {found[name]["status"] for name in ("misc", "nut")} == {"too_few_images"}
    assert "fewer than scoring.min_batch=5" in found["misc"]["error"]
    strays = score_night(archive, lake, **{**given, "archive.night": NIGHT, "archive.products": ["misc"]})
    assert (strays.state, strays.skipped) == ("published", 2)


def test_a_small_group_that_is_compared_with_accepted_images_needs_some(
    scored: Accepted, score_night: Score, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    write_group(archive, NIGHT, "misc", good_images(2, first_seed=400))
    with pytest.raises(SettingsError, match=r"looked for product=misc\."):
        tonight(Accepted(archive, scored.lake), score_night, tmp_path, **ACCEPTED)


@pytest.mark.slow
def test_false_discovery_is_over_the_whole_night(scored: Accepted, score_night: Score, tmp_path: Path) -> None:
    rate = 0.5
    settings = {"scoring.verdict": "reference", "scoring.false_discovery": rate}
    lake, record = tonight(scored, score_night, tmp_path, **settings)
    found = [row for row in rows(lake) if str(row["night"]) == NIGHT]
    p = np.array([row["p_value"] for row in found])
    assert [row["is_anomalous"] for row in found] == benjamini_hochberg(p, rate).tolist()
    assert record.anomalous == benjamini_hochberg(p, rate).sum()
    flagged = p[benjamini_hochberg(p, rate)]
    assert record.scoring["level"] == (flagged.max() if len(flagged) else 0.0)
    strict, none = tmp_path / "strict", {**settings, "scoring.false_discovery": 0.05}
    strict.mkdir()
    _, nothing = tonight(scored, score_night, strict, **none)  # 1 / 25 is not below 0.05 / 41
    assert (nothing.anomalous, nothing.scoring["level"]) == (0, 0.0)


def test_accepted_images_are_the_references(scored: Accepted, score_night: Score, tmp_path: Path) -> None:
    lake, record = tonight(scored, score_night, tmp_path, **{**BY_REFERENCE, "scoring.references": "accepted"})
    encoder = build(EncoderSpec("timm/test_vit", "random", image_size=64))

    def vectors(night: str, product: str) -> np.ndarray:
        files = sorted((scored.archive / f"night={night}/product={product}").iterdir())
        pixels = [fit(decode(f.read_bytes(), max_pixels=10**6, bit_depth="auto"), 64, "squash") for f in files]
        return encoder.embed(np.stack(pixels)).all_vectors()

    for product in ("screw", "nut"):
        here, there = vectors(NIGHT, product), vectors(BEFORE, product)
        found = [row for row in rows(lake) if row["product"] == product and str(row["night"]) == NIGHT]
        assert {row["n_references"] for row in found} == {GOOD}
        for position, row in enumerate(found):  # by plain loops, one at a time
            together = np.concatenate([here[position : position + 1], there])
            alone = patch_scores(together, list(range(GOOD + 1)), [-1] * (GOOD + 1), only=[0])[:1]
            assert row["score"] == pytest.approx(image_scores(alone, 1)[0], abs=1e-5)
            assert row["verdict_rule"] == "reference"
    assert by_id(lake)[f"night={NIGHT}/product=screw/bad.png"]["is_anomalous"]
    assert record.scoring["references"] == {f"night={NIGHT}/product={name}": GOOD for name in ("nut", "screw")}


ACCEPTED = {**BY_REFERENCE, "scoring.references": "accepted"}


def test_a_night_of_three_images_and_one_of_an_accepted_image(
    scored: Accepted, score_night: Score, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    same = good_images(1)["good000.png"]  # an accepted image: it may not be its own reference
    write_group(
        archive, NIGHT, "screw", {**good_images(1, first_seed=500), "bad.png": png(spoiled(1)), "same.png": same}
    )
    lake, record = tonight(Accepted(archive, scored.lake), score_night, tmp_path, **ACCEPTED)
    found = {row["image_id"].rsplit("/")[-1]: row for row in rows(lake) if str(row["night"]) == NIGHT}
    assert {name: row["n_references"] for name, row in found.items()} == {
        "bad.png": GOOD,
        "good000.png": GOOD,
        "same.png": GOOD - 1,
    }
    assert found["same.png"]["score"] == pytest.approx(by_id(scored.lake)[f"{SCREW}/good000.png"]["score"], abs=1e-6)
    assert found["bad.png"]["is_anomalous"] and not found["same.png"]["is_anomalous"]
    assert record.scoring["accepted"][f"night={NIGHT}/product=screw"]["scores"] == GOOD - 1  # not among its own scores
    assert found["bad.png"]["p_value"] == pytest.approx(1 / GOOD)
    assert record.skipped == 0


def test_a_panel_of_the_accepted_images(scored: Accepted, score_night: Score, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"scoring\.max_references not in use there|max_references null there, 7 here"
    ):
        tonight(scored, score_night, tmp_path, **ACCEPTED, **{"scoring.max_references": 7})


def test_a_plan_counts_the_accepted_images(scored: Accepted) -> None:
    places = ["--archive", str(scored.archive), "--lake", str(scored.lake), "--night", NIGHT, *SMALL_OPTIONS]
    done = patchead("plan", *places, "--set=scoring.references=accepted")
    assert done.code == 0, done.err
    assert [line.split("│")[3].strip() for line in done.out.splitlines() if "product=" in line] == ["24", "24"], (
        done.out
    )
    refused = patchead("plan", *places, "--set=scoring.references=accepted", "--set=scoring.accepted=november")
    assert (refused.code, "no run is accepted as 'november'" in refused.err) == (2, True)
    imagined = patchead(
        *("plan", "--simulate", "--images", "1000", "--gpus", "2", "--device", "H100"),
        *("--lake", str(scored.lake), "--set=scoring.references=accepted", *SMALL_OPTIONS),
    )
    assert (imagined.code, "set scoring.max_references" in imagined.err) == (2, True), imagined.err


@pytest.mark.parametrize("what", ["runs/r1/receipts.parquet", "runs/r1/manifest.parquet", "embeddings"])
def test_what_is_gone_of_the_accepted_run_is_named(
    scored: Accepted, score_night: Score, tmp_path: Path, what: str
) -> None:
    lake = shutil.copytree(scored.lake, tmp_path / "copy")
    if what == "embeddings":
        shutil.rmtree(lake / what)
    else:
        (lake / what).unlink()
    named = (
        r"units/\S+\.arrow is gone \(\d+ of \d+ embedding files of the accepted run r1\)"
        if what == "embeddings"
        else f"{what} is gone"
    )
    with pytest.raises(LakeError, match=named):
        tonight(Accepted(scored.archive, lake), score_night, tmp_path, **ACCEPTED)


def test_a_lake_that_was_moved_still_has_its_accepted_embeddings(
    scored: Accepted, score_night: Score, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    write_group(archive, NIGHT, "nut", good_images(2, first_seed=600))
    lake, _ = tonight(Accepted(archive, scored.lake), score_night, tmp_path, **ACCEPTED)
    shutil.move(lake, tmp_path / "moved")
    write_group(archive, "2026-11-22", "nut", good_images(2, first_seed=700))
    later: dict[str, object] = {**ACCEPTED, "archive.night": "2026-11-22", "run.run_id": "r3", "scoring.verdict": "top"}
    del later["scoring.alpha"]  # top flags by no level
    record = score_night(archive, tmp_path / "moved", **later)
    assert (record.state, record.ok) == ("published", 2)
    top = [row for row in rows(tmp_path / "moved") if row["run_id"] == "r3"]
    (accepted,) = read_accepted(str(scored.lake), Storage(), name="october", keys=["product=nut"])
    p = [(1 + int((accepted.scores >= row["score"]).sum())) / (GOOD + 1) for row in top]
    assert [row["p_value"] for row in top] == pytest.approx(p)
    assert [row["z"] for row in top] == pytest.approx(z_of_p(np.array(p)).tolist())
    assert [row["is_anomalous"] for row in top] == [row["rank"] == 1 for row in top]


def test_what_was_scored_against_an_accepted_run_is_not_accepted(
    scored: Accepted, score_night: Score, tmp_path: Path
) -> None:
    lake, _ = tonight(scored, score_night, tmp_path, **ACCEPTED)
    done = patchead("accept", "r2", "--lake", str(lake))
    assert (done.code, "scoring.references=accepted" in done.err) == (2, True)


def test_a_night_that_drifted_is_warned_of(scored: Accepted, tmp_path: Path) -> None:
    """As a command: the warning is a line of its output."""
    archive, lake = tmp_path / "archive", shutil.copytree(scored.lake, tmp_path / "lake")
    coarse = {f"coarse{seed:02d}.png": png(texture(seed)[::2, ::2].repeat(2, 0).repeat(2, 1)) for seed in range(20)}
    write_group(archive, NIGHT, "screw", coarse)
    write_group(archive, NIGHT, "nut", good_images(20, first_seed=300))
    options = [*SMALL_OPTIONS, "--set=scoring.verdict=reference", f"--set=scoring.alpha={ALPHA}", "--night", NIGHT]
    done = patchead("score", "--archive", str(archive), "--lake", str(lake), "--local", *options)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith("warning: drift")]
    assert len(lines) == 1
    assert "in 1 of 2 groups" in lines[0] and f"night={NIGHT}/product=screw (centre " in lines[0]
    (row,) = [r for r in table(lake, "verdicts").to_pylist() if r["product"] == "screw" and str(r["night"]) == NIGHT]
    assert row["drift_p"] < 0.005


def test_groups_too_small_to_tell_are_no_tests_for_drift(
    scored: Accepted, score_night: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The coarse photos of above, beside a group of three images that are compared with accepted ones."""
    archive = tmp_path / "archive"
    coarse = {f"coarse{seed:02d}.png": png(texture(seed)[::2, ::2].repeat(2, 0).repeat(2, 1)) for seed in range(20)}
    write_group(archive, NIGHT, "screw", coarse)
    write_group(archive, NIGHT, "nut", good_images(3, first_seed=300))
    lake, record = tonight(Accepted(archive, scored.lake), score_night, tmp_path, **ACCEPTED)
    assert record.ok == 23
    judged = {row["product"]: row for row in table(lake, "verdicts").to_pylist() if row["run_id"] == "r2"}
    assert judged["nut"]["accepted"] == "october"
    assert [judged["nut"][f"drift_{name}"] for name in ("p", "shift", "scale")] == [None] * 3
    assert judged["screw"]["drift_p"] is not None
    assert "drift: in 1 of 1 groups" in capsys.readouterr().err

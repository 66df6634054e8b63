"""Thresholds that labels suggest, from a published lake to a line of settings."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchead.lake.publication import publish
from patchead.review.labels import DEFECT, GOOD, keep
from patchead.review.suggested import suggestions
from patchead.review.thresholds import thresholds
from patchead.schema import RUNS, VERDICTS, table
from patchead.scoring.verdict import VerdictSettings, judge
from patchead.settings.load import load_config
from patchead.settings.resolve import verdict_of
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import ROOT
from tests.helpers.sample_rows import NIGHT, group, rows_of, verdicts_of
from tests.helpers.warm_python import python

LATER = NIGHT + dt.timedelta(1)


def night_of(seed: int, good: int = 180, defects: int = 20, above: float = 2.5) -> np.ndarray:
    """Scores of a simulated night, the good images first: the defects overlap with them."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0.20, 0.01, good), rng.normal(0.20 + 0.01 * above, 0.008, defects)]).clip(0, 1)


def settings(lake: str, scoring: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    config = load_config(None, [], {"archive.uri": "/archive", "lake.uri": lake})
    values = config.model_dump(mode="json") | more
    return values | {"scoring": values["scoring"] | dict(scoring or {})}


def judged(
    lake: str, run_id: str, night: dt.date, scores: np.ndarray, product: str = "screw", *,
    scoring: Mapping[str, Any] | None = None, encoder: str = "e1", level: float | None = None, **more: Any,
) -> list[str]:  # fmt: skip
    """Publish a night of images with these scores, judged as a run of these settings judges them; give their ids.

    ``level`` is what the false-discovery rule found for the night.
    """
    values = settings(lake, scoring, **more)
    config = load_config(None, [], {"archive.uri": "/archive", "lake.uri": lake}).model_validate(values)
    rule = verdict_of(config, product)
    accepted = np.sort(night_of(99, 399, 0)) if rule.verdict == "reference" else None
    verdict = judge(scores, rule, reference=accepted, level=level)
    names = [f"{night}/{number:03d}" for number in range(len(scores))]
    entries: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        scored = {"score": float(scores[place]), "z": float(verdict.z[place]), "encoder_id": encoder}
        scored |= {"threshold_score": verdict.threshold_score, "rank": place + 1}
        scored |= {"is_anomalous": bool(verdict.flagged[place]), "verdict_rule": verdict.rule}
        scored |= {} if verdict.p_values is None else {"p_value": float(verdict.p_values[place])}
        entries += group(night, product, name, **scored)
    rows = rows_of(run_id, [entries])
    (row,) = verdicts_of(rows.scores.to_pylist())
    row |= {name: getattr(verdict, name) for name in ("threshold_z", "threshold_score")} | {
        "verdict_rule": verdict.rule
    }
    run = rows.run.to_pylist()[0] | {"anomalous": int(verdict.flagged.sum()), "encoder_id": encoder}
    run |= {"config_json": json.dumps(values), "finished_at": dt.datetime(2026, 11, 22, tzinfo=dt.timezone.utc)}
    rows = rows.changed(verdicts=table([row], VERDICTS), run=table([run], RUNS))
    publish(lake, Storage(), *rows.tables)
    return names


def keep_all(lake: str, images: Mapping[str, list[str]]) -> None:
    rows = [{"image_id": image, "verdict": verdict} for verdict, names in images.items() for image in names]
    keep(lake, Storage(), rows, "ann")


def labelled_lake(
    folder: Path,
    product: str = "screw",
    *,
    defects: int = 12,
    scoring: Mapping[str, Any] | None = None,
    nights: int = 2,
) -> str:
    """A lake of nights of 200, 20 of them defects; of the first 40 good images and some defects are labelled."""
    lake = str(folder / "lake")
    names = judged(lake, "r1", NIGHT, night_of(1), product, scoring=scoring)
    keep_all(lake, {GOOD: names[:40], DEFECT: names[180 : 180 + defects]})
    if nights == 2:
        judged(lake, "r2", LATER, night_of(2), product, scoring=scoring)
    return lake


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lake of the default rule; nothing is added to it."""
    return labelled_lake(tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("rule", ["auto", "reference"])
def test_each_threshold_does_what_a_run_with_it_does(two_nights: str, tmp_path: Path, rule: str) -> None:
    """The upper fit takes what it flags out, so another threshold gives every image another z (method.md §7.1)."""
    scoring = {"verdict": rule}
    lake = two_nights if rule == "auto" else labelled_lake(tmp_path, scoring=scoring)
    (found,) = thresholds(lake, Storage())
    assert (found.product, found.night, found.images, found.good, found.defects) == ("screw", LATER, 200, 40, 12)
    first, last = night_of(1), night_of(2)
    accepted = np.sort(night_of(99, 399, 0))
    seen = np.r_[0:40, 180:192]
    config = load_config(None, [], {"archive.uri": "/archive", "lake.uri": lake})

    def ran(z: float | None, scores: np.ndarray) -> np.ndarray:
        own = {} if z is None else {"thresholds": {"screw": {"z": z}}}
        asked = verdict_of(config.model_validate(settings(lake, scoring | own)), "screw")
        return judge(scores, asked, reference=accepted).flagged

    def f1(flagged: np.ndarray) -> float:
        return 2 * flagged[40:].sum() / (flagged.sum() + 12)

    now, best = found.thresholds[0], found.suggested
    assert (
        now.z == pytest.approx({"auto": 3.0, "reference": 2.326}[rule], abs=1e-3)
        and best is not None
        and best.z != now.z
    )
    for each in found.thresholds:
        flagged = ran(None if each is now else each.z, first)[seen]
        assert each.flagged == ran(None if each is now else each.z, last).sum()
        assert (each.precision, each.recall) == (flagged[40:].sum() / flagged.sum(), flagged[40:].sum() / 12)
    assert f1(ran(best.z, first)[seen]) >= max(f1(ran(z, first)[seen]) for z in np.arange(0.2, 2.8, 0.1))
    # Otherwise the z of the night as it was judged would do, and this test would show nothing.
    z = judge(last, verdict_of(config)).z
    assert rule == "reference" or any((z > each.z).sum() != each.flagged for each in found.thresholds[1:])


def test_suggestions_are_the_best_there_are() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        z, bad = np.concatenate([rng.normal(0.0, 1.0, 25), rng.normal(2.0, 1.5, 8)]), np.arange(33) >= 25
        edges = np.unique(z)
        between = (edges[:-1] + edges[1:]) / 2

        def f1(limit: float, z: np.ndarray = z, bad: np.ndarray = bad) -> float:
            return 2 * (z[bad] > limit).sum() / ((z > limit).sum() + 8)

        found = dict(suggestions(lambda limit, z=z: z > limit, bad, between[between > 0]))
        tried = [limit for limit in (*between, *z) if limit > 0]
        assert f1(found["best F1"]) >= max(f1(limit) for limit in tried) - 1e-9
        if "every defect" in found:
            assert (z[bad] > found["every defect"]).all()
            assert not any(((z[bad] > limit).all() and f1(limit) > f1(found["every defect"])) for limit in tried)
        if "no good one" in found:
            assert not (z[~bad] > found["no good one"]).any()
            assert (z[bad] > found["no good one"]).sum() == (z[bad] > max(z[~bad].max(), 0)).sum()
        assert all(limit > 0 for limit in found.values())


@pytest.mark.parametrize(("defects", "told"), [(4, "1 defect labels more"), (0, "5 defect labels more")])
def test_too_few_labels_suggest_nothing_and_say_what_is_missing(tmp_path: Path, defects: int, told: str) -> None:
    lake = labelled_lake(tmp_path, defects=defects, nights=1)
    (found,) = thresholds(lake, Storage())
    assert len(found.thresholds) == 1 and found.suggested is None
    done = patchead("thresholds", "--lake", lake)
    assert done.code == 0
    assert told in done.out and "scoring:" not in done.out


def test_labels_of_images_that_another_rule_judged_do_not_count(two_nights: str, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    shutil.copytree(two_nights, lake)
    entries = group(NIGHT + dt.timedelta(2), "screw", "later", verdict_rule="few_shot", encoder_id="e1")
    rows = rows_of("r3", [entries])
    (verdict,) = verdicts_of(rows.scores.to_pylist())
    rows = rows.changed(verdicts=table([verdict | {"verdict_rule": "few_shot"}], VERDICTS))
    publish(lake, Storage(), *rows.tables)
    (found,) = thresholds(lake, Storage())
    assert (found.rule, found.good, found.defects) == ("few_shot", 0, 0)
    assert found.left_out == ((52, "of run r1: judged by upper_fit, whose z says nothing of another rule"),)
    assert found.missing == (20, 5)


def test_the_line_to_paste_is_a_setting_and_the_output_is_plain_at_80_columns(tmp_path: Path) -> None:
    """As a process of its own, piped; the name is one that an archive could have."""
    name = "scr[bold]ew\x1b[31m: \x07"
    lake = labelled_lake(tmp_path, name, nights=1)
    command = [*python(), "-c", "from patchead.cli import main; main()", "thresholds", "--lake", lake]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "scr[bold]ew\\x1b[31m: \\x07: 40 good, 12 defect labelled" in done.stdout
    pasted = done.stdout[done.stdout.index("scoring:") :]
    file = tmp_path / "settings.yaml"
    file.write_text(f"archive: {{uri: /a}}\nlake: {{uri: /l}}\n{pasted}")
    own = load_config(file).scoring.thresholds
    (found,) = thresholds(lake, Storage())
    assert found.suggested is not None
    assert {product: each.z for product, each in own.items()} == {name: found.suggested.z}


def test_a_product_that_was_never_judged_is_refused(two_nights: str, tmp_path: Path) -> None:
    done = patchead("thresholds", "--lake", two_nights, "--product", "nut")
    assert (done.code, "no verdict on a product 'nut'" in done.err) == (2, True)
    assert "No night is judged" in patchead("thresholds", "--lake", str(tmp_path / "empty")).out


def test_a_product_without_a_name(tmp_path: Path) -> None:
    lake = labelled_lake(tmp_path, "", nights=1)
    (found,) = thresholds(lake, Storage())
    assert (found.product, found.images, found.good) == (None, 200, 40)
    assert "(no product): 40 good" in patchead("thresholds", "--lake", lake).out


def test_labels_of_scores_that_do_not_compare_do_not_count(two_nights: str, tmp_path: Path) -> None:
    """Those of a run of the same encoder and settings do, whatever threshold judged it."""
    lake, night = str(tmp_path / "lake"), LATER
    shutil.copytree(two_nights, lake)
    for run, later, told in (
        ("r3", {"encoder": "e2"}, "encoder e1 there, e2 here"),
        ("r4", {"scoring": {"fraction": 0.05}}, "scoring.fraction 0.3 there, 0.05 here"),
    ):
        night += dt.timedelta(1)
        names = judged(lake, run, night, night_of(3), **later)
        keep_all(lake, {GOOD: names[:3]})
        (found,) = thresholds(lake, Storage())
        assert (found.good, found.defects, found.suggested) == (3, 0, None)
        count, why = found.left_out[0]
        assert count == 52 and why.startswith("of run r1: ") and told in why
    keep_all(lake, {GOOD: ["nowhere", "lost"]})
    done = patchead("thresholds", "--lake", lake)
    assert f"52 labels do not count, {why}." in done.out
    assert "2 labels do not count, of images that have no row" in done.out
    judged(lake, "r5", night + dt.timedelta(1), night_of(4), scoring={"threshold_z": 5.0})
    (found,) = thresholds(lake, Storage())
    assert (found.good, found.defects, sum(count for count, _ in found.left_out)) == (40, 12, 6)


def test_where_a_false_discovery_rate_decides_nothing_is_suggested(tmp_path: Path) -> None:
    lake = labelled_lake(tmp_path, scoring={"verdict": "reference", "false_discovery": 0.1}, nights=1)
    done = patchead("thresholds", "--lake", lake).out
    assert "40 good" in done and "scoring.false_discovery decides" in done and "scoring:" not in done


@pytest.mark.parametrize("last", [0.0, 0.2])
def test_where_a_false_discovery_rate_decides_what_each_night_flagged_counts(tmp_path: Path, last: float) -> None:
    """The level of the last night is its own: at it, the night that people looked at flagged other images."""
    lake, scoring = str(tmp_path / "lake"), {"verdict": "reference", "false_discovery": 0.1}
    names = judged(lake, "r1", NIGHT, night_of(1), scoring=scoring, level=0.05)
    keep_all(lake, {GOOD: names[:40], DEFECT: names[180:192]})
    judged(lake, "r2", LATER, night_of(2), scoring=scoring, level=last)
    (found,) = thresholds(lake, Storage())
    flagged = judge(night_of(1), VerdictSettings(verdict="reference"), reference=night_of(99, 399, 0), level=0.05)
    of_labelled = flagged.flagged[np.r_[0:40, 180:192]]
    (now,) = found.thresholds
    assert (now.precision, now.recall) == (of_labelled[40:].sum() / of_labelled.sum(), of_labelled[40:].sum() / 12)
    assert now.z is None and 0 < of_labelled[40:].sum() < 12


def test_under_the_rule_top_the_share_is_suggested_and_no_threshold_of_z(tmp_path: Path) -> None:
    scoring = {"verdict": "top", "flag_top": 0.02}
    lake = labelled_lake(tmp_path, scoring=scoring, nights=1)
    (found,) = thresholds(lake, Storage())
    best = found.suggested
    assert best is not None and best.flag_top is not None and best.z is None and 0.02 < best.flag_top < 0.2
    assert (found.thresholds[0].flagged, best.flagged) == (4, round(200 * best.flag_top))
    done = patchead("thresholds", "--lake", lake)
    assert f"scoring:\n  flag_top: {best.flag_top:g}" in done.out and "thresholds:" not in done.out
    assert "no threshold of z does" in done.out

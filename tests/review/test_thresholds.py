"""Thresholds that labels suggest, from a published lake to a line of settings."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from patchead.lake.publication import publish
from patchead.review.labels import DEFECT, GOOD, keep
from patchead.review.thresholds import suggestions, thresholds
from patchead.schema import RUNS, VERDICTS, table
from patchead.settings.load import load_config
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import ROOT
from tests.helpers.sample_rows import NIGHT, group, rows_of, verdicts_of
from tests.helpers.warm_python import python

LIMIT = 3.0  # z above which the published verdicts flag
GOOD_Z = np.linspace(-1.0, 2.0, 30)
DEFECT_Z = np.array([2.4, 2.6, 2.9, 3.5, 4.0, 5.0, 6.0, 7.0])


def judged(lake: str, run_id: str, night: dt.date, product: str, z: np.ndarray) -> list[str]:
    """Publish a night of images with these z, and give their ids."""
    names = [f"{night}/{number:03d}" for number in range(len(z))]
    entries: list[dict[str, Any]] = []
    for name, value in zip(names, z, strict=True):
        scored = {"z": float(value), "score": 0.2 + 0.1 * float(value), "is_anomalous": bool(value > LIMIT)}
        entries += group(night, product, name, **scored)
    rows = rows_of(run_id, [entries])
    (verdict,) = verdicts_of(rows.scores.to_pylist())
    run = rows.run.to_pylist()[0] | {"anomalous": int((z > LIMIT).sum())}
    verdict |= {"threshold_z": LIMIT}
    rows = rows.changed(verdicts=table([verdict], VERDICTS), run=table([run], RUNS))
    publish(lake, Storage(), *rows.tables)
    return names


def label(lake: str, images: list[str], verdict: str) -> None:
    keep(lake, Storage(), [{"image_id": image, "verdict": verdict} for image in images], "ann")


def labelled_lake(folder: Path, product: str = "screw", *, defects: int = len(DEFECT_Z)) -> str:
    """A lake of two nights; the first is labelled, the second has 3 images above 2.2 and 1 above 3."""
    lake = str(folder / "lake")
    names = judged(lake, "r1", NIGHT, product, np.concatenate([GOOD_Z, DEFECT_Z]))
    label(lake, names[: len(GOOD_Z)], GOOD)
    label(lake, names[len(GOOD_Z) : len(GOOD_Z) + defects], DEFECT)
    judged(lake, "r2", NIGHT + dt.timedelta(1), product, np.array([-1.0, 0.0, 1.0, 2.3, 2.7, 3.2]))
    return lake


def test_precision_recall_and_the_last_night(tmp_path: Path) -> None:
    (found,) = thresholds(labelled_lake(tmp_path), Storage())
    assert (found.product, found.good, found.defects, found.images) == ("screw", 30, 8, 6)
    assert found.night == NIGHT + dt.timedelta(1)
    now, best = found.thresholds[:2]
    assert (now.z, now.precision, now.recall, now.flagged) == (LIMIT, 1.0, 5 / 8, 1)
    assert (best.what, best.precision, best.recall, best.flagged) == ("best F1", 1.0, 1.0, 3)
    assert best.z is not None and 2.0 < best.z < 2.4
    assert found.suggested == best


def test_suggestions_are_the_best_there_are() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        good, bad = rng.normal(0.0, 1.0, 25), rng.normal(2.0, 1.5, 8)
        tried = np.concatenate([good, bad, [-10.0]])

        def f1(limit: float, good: np.ndarray = good, bad: np.ndarray = bad) -> float:
            return 2 * (bad > limit).sum() / ((bad > limit).sum() + (good > limit).sum() + len(bad))

        found = dict(suggestions(good, bad))
        above = [limit for limit in tried if limit >= 0]
        if "best F1" in found:
            assert f1(found["best F1"]) >= max(f1(limit) for limit in above) - 1e-9
        if "every defect" in found:
            assert (bad > found["every defect"]).all()
            assert not any((bad > limit).all() for limit in tried if limit > found["every defect"])
        if "no good one" in found:
            assert not (good > found["no good one"]).any()
            assert (bad > found["no good one"]).sum() == (bad > max(good.max(), 0)).sum()
        assert all(limit > 0 for limit in found.values())


@pytest.mark.parametrize(("defects", "told"), [(4, "1 defect labels more"), (0, "5 defect labels more")])
def test_too_few_labels_suggest_nothing_and_say_what_is_missing(tmp_path: Path, defects: int, told: str) -> None:
    lake = labelled_lake(tmp_path, defects=defects)
    (found,) = thresholds(lake, Storage())
    assert len(found.thresholds) == 1 and found.suggested is None
    done = patchead("thresholds", "--lake", lake)
    assert done.code == 0
    assert told in done.out and "scoring:" not in done.out


def test_labels_of_images_that_another_rule_judged_do_not_count(tmp_path: Path) -> None:
    lake = labelled_lake(tmp_path)
    night = NIGHT + dt.timedelta(2)
    entries = group(night, "screw", "later", verdict_rule="top")
    rows = rows_of("r3", [entries])
    (verdict,) = verdicts_of(rows.scores.to_pylist())
    rows = rows.changed(verdicts=table([verdict | {"verdict_rule": "top"}], VERDICTS))
    publish(lake, Storage(), *rows.tables)
    (found,) = thresholds(lake, Storage())
    assert (found.rule, found.good, found.defects, found.other_rule) == ("top", 0, 0, 38)
    assert found.missing == (20, 5)


def test_the_line_to_paste_is_a_setting_and_the_output_is_plain_at_80_columns(tmp_path: Path) -> None:
    """As a process of its own, piped; the name is one that an archive could have."""
    name = "scr[bold]ew\x1b[31m: \x07"
    lake = labelled_lake(tmp_path, name)
    command = [*python(), "-c", "from patchead.cli import main; main()", "thresholds", "--lake", lake]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "scr[bold]ew\\x1b[31m: \\x07: 30 good, 8 defect labelled" in done.stdout
    pasted = done.stdout[done.stdout.index("scoring:") :]
    file = tmp_path / "settings.yaml"
    file.write_text(f"archive: {{uri: /a}}\nlake: {{uri: /l}}\n{pasted}")
    own = load_config(file).scoring.thresholds
    assert {product: 2.0 < each.z < 2.4 for product, each in own.items()} == {name: True}


def test_a_product_that_was_never_judged_is_refused(tmp_path: Path) -> None:
    done = patchead("thresholds", "--lake", labelled_lake(tmp_path), "--product", "nut")
    assert (done.code, "no verdict on a product 'nut'" in done.err) == (2, True)
    assert "No night is judged" in patchead("thresholds", "--lake", str(tmp_path / "empty")).out


def test_a_product_without_a_name(tmp_path: Path) -> None:
    lake = labelled_lake(tmp_path, "")
    (found,) = thresholds(lake, Storage())
    assert (found.product, found.images, pa.scalar(found.good).as_py()) == (None, 6, 30)
    assert "(no product): 30 good" in patchead("thresholds", "--lake", lake).out

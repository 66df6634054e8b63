"""A group that cannot be scored as a whole: the others are published, and SQL, the record and the exit code say so."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from patchead.cli import app
from patchead.errors import PlanError, TooManyFailuresError
from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from patchead.storage import Storage
from tests.helpers.e2e_tools import SMALL, SMALL_OPTIONS, good_images, rows, write_group

NIGHT = "2026-11-21"
PRODUCTS = ("bolt", "nut", "screw")
BAD = f"night={NIGHT}/product=nut"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("groups")
    for number, product in enumerate(PRODUCTS):
        write_group(root, NIGHT, product, good_images(6, 10 * number))
    return root


@pytest.fixture(scope="module")
def expected(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    lake = tmp_path_factory.mktemp("expected")
    night(archive, lake)
    return scores(lake)


@pytest.fixture
def mend(archive: Path, tmp_path: Path) -> Callable[[], object]:
    """A lake with a night that is embedded, one vector of one group without a direction; what puts it back."""
    night(archive, tmp_path, until="embed")
    receipts = pq.read_table(tmp_path / "runs/a/receipts.parquet")
    own = receipts.filter(pc.match_substring(receipts["image_id"], "product=nut"))
    (uri,) = pc.unique(own["embedding_uri"]).to_pylist()
    sound, file = shutil.copy(uri, tmp_path / "sound.arrow"), Path(uri)
    store = EmbeddingStore(str(tmp_path), Storage(), file.parent.parent.name)
    vectors = store.read(uri, np.arange(6)).copy()
    vectors[2, 3] = 0
    store._write_vectors(file.name, own["content_hash"], vectors, store.read_side_arrays(uri, np.arange(6)))
    return partial(shutil.copy, sound, file)


def night(archive: Path, lake: Path, until: str = "publish", **more: object) -> tuple[RunRecord, str]:
    given = SMALL | {"archive.uri": str(archive), "lake.uri": str(lake), "run.run_id": "a"}
    out = io.StringIO()
    config = load_config(None, given=given | more)
    return run_night(config, Console(file=out, width=500), InlineExecutor(), until=until), out.getvalue()


def command(archive: Path, lake: Path, *more: str) -> Result:
    places = ("--archive", str(archive), "--lake", str(lake), "--night", NIGHT, "--local")
    return CliRunner(env={"COLUMNS": "500"}).invoke(app, ["score", *SMALL_OPTIONS, *places, *more])


def scores(lake: Path) -> dict[str, float]:
    return {row["image_id"]: row["score"] for row in rows(lake)}


def test_the_others_are_published_and_retry_failed_repairs_it(
    archive: Path, expected: dict[str, float], tmp_path: Path, mend: Callable[[], object]
) -> None:
    ended = command(archive, tmp_path, "--run-id", "a")
    assert ended.exit_code == 3, ended.output
    assert f"group {BAD} cannot be scored: " in ended.output
    assert "1 of 3 groups cannot be scored" in ended.output
    found = rows(tmp_path)
    assert {row["image_id"]: row["score"] for row in found if row["status"] == "ok"} == {
        name: score for name, score in expected.items() if "product=nut" not in name
    }
    bad = [row for row in found if row["group_id"] == BAD]
    assert [(row["status"], row["score"]) for row in bad] == [("group_failed", None)] * 6
    assert all(
        "the group cannot be scored: " in row["error"] and "zero, infinite or NaN" in row["error"] for row in bad
    )
    verdicts = {row["product"]: row for row in rows(tmp_path, "verdicts")}
    assert [verdicts[product]["status"] for product in PRODUCTS] == ["ok", "group_failed", "ok"]
    assert "zero, infinite or NaN" in verdicts["nut"]["error"]
    (run,) = rows(tmp_path, "runs")
    assert (run["state"], run["groups"], run["groups_failed"]) == ("published", 3, 1)
    assert (run["images"], run["ok"], run["failed"], run["skipped"]) == (18, 12, 0, 6)
    assert run["reason"].startswith(f"1 of 3 groups cannot be scored, {BAD}: ")
    record = json.loads((tmp_path / "runs/a/run.json").read_text())
    assert record["groups_failed"] == 1
    assert [*record["scoring"]["failed_groups"]] == [BAD]

    mend()
    again = command(archive, tmp_path, "--retry-failed", "--run-id", "b")
    assert again.exit_code == 0, again.output
    assert scores(tmp_path) == pytest.approx(expected, abs=1e-12)
    assert {row["run_id"] for row in rows(tmp_path)} == {"a", "b"}
    assert [row["status"] for row in rows(tmp_path, "verdicts")] == ["ok"] * 3


def test_a_group_that_is_too_large_is_left_out_and_a_night_of_such_is_refused(tmp_path: Path) -> None:
    for product, size in {"bolt": 12, "nut": 5, "screw": 5}.items():
        write_group(tmp_path / "archive", NIGHT, product, good_images(size))
    with pytest.raises(PlanError, match=r"has 12 images, more than scoring\.max_group_size=4"):
        night(tmp_path / "archive", tmp_path / "lake", **{"scoring.max_group_size": 4})
    assert not (tmp_path / "lake/embeddings").exists()
    more = {"scoring.max_group_size": 10, "run.run_id": "b"}
    record, _ = night(tmp_path / "archive", tmp_path / "lake", **more)
    assert (record.state, record.ok, record.skipped, record.incomplete) == ("published", 10, 12, 12)
    (verdict,) = [row for row in rows(tmp_path / "lake", "verdicts") if row["status"] == "group_failed"]
    assert (verdict["product"], verdict["scored"]) == ("bolt", 0)
    assert verdict["error"].startswith(
        f"group night={NIGHT}/product=bolt has 12 images, more than scoring.max_group_size=10"
    )
    assert {row["status"] for row in rows(tmp_path / "lake") if row["product"] == "bolt"} == {"group_failed"}


def test_more_than_the_limit_publishes_nothing_and_the_same_run_goes_on(
    archive: Path, expected: dict[str, float], tmp_path: Path, mend: Callable[[], object]
) -> None:
    with pytest.raises(
        TooManyFailuresError, match=r"1 of 3 groups cannot be scored, more than run\.max_failed_groups=0\.2"
    ):
        night(archive, tmp_path, **{"run.max_failed_groups": 0.2})
    assert [row["state"] for row in rows(tmp_path, "runs")] == ["failed"]
    mend()
    night(archive, tmp_path, **{"run.max_failed_groups": 0.2})
    assert scores(tmp_path) == expected

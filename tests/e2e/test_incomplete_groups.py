"""A group that cannot be judged, drawn or named: the others are whole, its scores stay, and everything says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from patchead.cli import app
from patchead.errors import TooManyFailuresError
from patchead.lake.staging import RunFolder
from patchead.storage import Storage
from tests.helpers.e2e_tools import SMALL_OPTIONS, good_images, rows, write_group

NIGHT = "2026-11-21"
PRODUCTS = ("bolt", "nut", "screw", "washer")
OPTIONS = ("--set=scoring.verdict=top", "--set=scoring.flag_top=1")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("groups")
    for number, product in enumerate(PRODUCTS):
        write_group(root, NIGHT, product, good_images(5, 10 * number))
    return root


def command(archive: Path, lake: Path, *more: str, where: tuple[str, ...] = ("--local",)) -> Result:
    places = ("--archive", str(archive), "--lake", str(lake), "--night", NIGHT, *where)
    return CliRunner(env={"COLUMNS": "500"}).invoke(app, ["score", *SMALL_OPTIONS, *OPTIONS, *places, *more])


def group(product: str) -> str:
    return f"night={NIGHT}/product={product}"


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def score(request: pytest.FixtureRequest, archive: Path, tmp_path: Path) -> Callable[..., Result]:
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    where = ("--local",) if request.param == "local" else ("--set=resources.cpus_per_actor=1",)
    return partial(command, archive, tmp_path, where=where)


def test_scores_are_published_without_what_failed_and_retry_failed_repairs_it(
    score: Callable[..., Result], tmp_path: Path
) -> None:
    assert score("--run-id", "a", "--until", "score").exit_code == 0
    folder = RunFolder(str(tmp_path), Storage(), "a")
    digest, staged = folder.digests()[group("bolt")], folder.read_group(group("bolt"))
    others = [f"other {name}" for name in staged.image_ids]
    folder.write_group(
        group("bolt"), others, staged.patch_scores, staged.scores, staged.n_references, digest=digest
    )  # a group that cannot be judged
    blocked = tmp_path / "heatmaps" / f"night={NIGHT}" / "product=nut"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder of heatmaps is to be")
    ended = score("--run-id", "a")
    assert ended.exit_code == 3, ended.output
    assert f"warning: group {group('bolt')}: its scores could not be judged: the staged scores" in ended.output
    assert f"warning: group {group('nut')}: regions and heatmaps could not be made: cannot write" in ended.output

    found = {product: [row for row in rows(tmp_path) if row["product"] == product] for product in PRODUCTS}
    assert {row["status"] for row in found["bolt"]} == {"group_failed"}
    assert all("could not be judged" in row["error"] for row in found["bolt"])
    assert [row["status"] for row in found["nut"]] == ["ok"] * 5
    assert {row["rank"] for row in found["nut"]} == {1, 2, 3, 4, 5}
    (flagged,) = [row for row in found["nut"] if row["is_anomalous"]]
    assert flagged["error"].startswith("scored, but regions and heatmaps could not be made: cannot write")
    assert {row["product"] for row in rows(tmp_path, "regions")} == {"screw", "washer"}
    verdicts = {row["product"]: row for row in rows(tmp_path, "verdicts")}
    statuses = ["group_failed", "incomplete", "ok", "ok"]
    assert [verdicts[product]["status"] for product in PRODUCTS] == statuses
    assert verdicts["nut"]["error"].startswith("regions and heatmaps could not be made: cannot write")
    (run,) = rows(tmp_path, "runs")
    assert (run["state"], run["groups"], run["groups_failed"]) == ("published", 4, 1)
    assert (run["ok"], run["failed"], run["skipped"]) == (15, 0, 5)
    assert f"1 of 4 groups are incomplete, {group('nut')}: regions and heatmaps" in run["reason"]
    record = json.loads((tmp_path / "runs/a/run.json").read_text())
    assert [*record["scoring"]["failed_groups"]] == [group("bolt")]
    assert [*record["scoring"]["incomplete_groups"]] == [group("nut")]

    blocked.unlink()
    again = score("--retry-failed", "--run-id", "b")
    assert again.exit_code == 0, again.output
    assert {row["product"]: row["run_id"] for row in rows(tmp_path)} == dict(zip(PRODUCTS, "bbaa", strict=True))
    assert {row["product"] for row in rows(tmp_path, "regions")} == set(PRODUCTS)
    assert {row["status"] for row in rows(tmp_path, "verdicts")} == {"ok"}


def test_names_that_fail_cost_no_night_and_too_many_groups_without_pictures_do(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "tables/prototypes/_delta_log").mkdir(parents=True)
    (log := tmp_path / "tables/prototypes/_delta_log/00000000000000000000.json").write_text("no log of a table")
    (blocked := tmp_path / "heatmaps").write_text("a file where the folder of all heatmaps is to be")
    refused = command(archive, tmp_path, "--run-id", "a")
    assert isinstance(refused.exception, TooManyFailuresError), refused.output
    assert "4 of 4 groups cannot be scored and explained, more than run.max_failed_groups=0.5" in str(refused.exception)
    assert [row["state"] for row in rows(tmp_path, "runs")] == ["failed"]
    blocked.unlink()
    ended = command(archive, tmp_path, "--run-id", "a")
    assert ended.exit_code == 3, ended.output
    verdicts = rows(tmp_path, "verdicts")
    assert {row["status"] for row in verdicts} == {"incomplete"}
    assert all(
        row["error"].startswith("its regions have neither family nor name by example: cannot read") for row in verdicts
    )
    assert len(rows(tmp_path, "regions")) >= 4
    assert {row["status"] for row in rows(tmp_path)} == {"ok"}
    log.unlink()
    log.parent.rmdir()
    again = command(archive, tmp_path, "--retry-failed", "--run-id", "b")
    assert again.exit_code == 0, again.output
    assert all(row["family"] for row in rows(tmp_path, "regions"))

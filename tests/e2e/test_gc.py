"""`patchead gc`: what nobody needs goes, what a published row names stays, beside a night that runs as well."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from rich.console import Console
from typer.testing import CliRunner

from patchead.cli import app
from patchead.lake import collect as collecting
from patchead.lake.collect import Freed, Retention, collect
from patchead.lake.lease import lease
from patchead.lake.staging import RunFolder
from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.review.accept import AcceptRequest, accept
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from patchead.storage import Storage
from tests.helpers.e2e_tools import SMALL, by_id, good_images, rows, write_group
from tests.helpers.s3_server import S3Server

Score = Callable[..., RunRecord]
NIGHTS = ("2026-11-19", "2026-11-20", "2026-11-21")
NOTHING_KEPT = Retention(1, 0, 0, 0, 0)
ALL = {"explain.heatmaps": "all"}


def files(lake: Path) -> dict[str, int]:
    return {str(path.relative_to(lake)): path.stat().st_size for path in lake.rglob("*") if path.is_file()}


def gc(lake: Path, kept: Retention = NOTHING_KEPT, *, apply: bool = True) -> dict[str, Freed]:
    return {freed.what.split()[0]: freed for freed in collect(str(lake), Storage(), kept, apply=apply)}


def units(lake: Path) -> set[str]:
    return {name for name in files(lake) if "/units/" in name}


def heatmaps_named(lake: Path) -> set[str]:
    return {row["heatmap_path"] for row in by_id(lake).values() if row["heatmap_path"]}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, score_night: Score) -> Path:
    """Archive and lake of three nights, of which the second was scored twice; tests must not change them."""
    root = tmp_path_factory.mktemp("three")
    archive, lake = root / "archive", root / "lake"
    for number, night in enumerate(NIGHTS):
        write_group(archive, night, "screw", good_images(6, 10 * number))
        score_night(archive, lake, **ALL, **{"archive.night": night, "run.run_id": f"run-{night}"})
    again = {"archive.night": NIGHTS[1], "run.run_id": "again", "scoring.fraction": 0.5}
    score_night(archive, lake, **ALL, **again)
    return root


@pytest.fixture
def three_nights(scored: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of them, files as old as they were."""
    shutil.copytree(scored, tmp_path, dirs_exist_ok=True)
    return tmp_path / "archive", tmp_path / "lake"


def test_what_nobody_needs_goes_and_what_is_published_stays(
    three_nights: tuple[Path, Path], score_night: Score
) -> None:
    archive, lake = three_nights
    published, before = {name: rows(lake, name) for name in ("scores", "regions", "verdicts", "runs")}, files(lake)
    would = gc(lake, apply=False)
    assert files(lake) == before
    did = gc(lake)
    joined = did.pop("small")
    assert "the old ones go as replaced files" in joined.left
    assert {what: freed for what, freed in would.items() if what != "small"} == did
    after = files(lake)
    gone = {name: size for name, size in before.items() if name not in after and "/parts/" not in name}
    tables = {name for name in gone if name.startswith("tables/")}
    assert sum(freed.size for freed in did.values()) == sum(gone.values())
    assert sum(freed.files for freed in did.values()) == len(gone)
    assert {name: rows(lake, name) for name in published} == published
    assert heatmaps_named(lake) == {name for name in after if name.startswith("heatmaps/")}
    assert did["heatmaps"].files == 6  # of the night's first run
    assert did["staged"].files == sum("/groups/" in n or "/explained/" in n for n in before if n.startswith("runs/"))
    assert did["embeddings"].files == 2
    assert len(units(lake)) == 1
    assert did["replaced"].files == len(tables) > 0
    assert {what for what, freed in gc(lake).items() if freed.size} == {"replaced"}  # what was joined
    assert all(freed.size == 0 for freed in gc(lake).values())
    newest = score_night(archive, lake, **ALL, **{"archive.night": NIGHTS[2], "run.run_id": "newest"})
    oldest = score_night(archive, lake, **ALL, **{"archive.night": NIGHTS[0], "run.run_id": "oldest"})
    assert (newest.reused, newest.embedded, oldest.reused, oldest.embedded) == (6, 0, 0, 6)


def test_everything_has_its_time(three_nights: tuple[Path, Path]) -> None:
    _, lake = three_nights
    assert all(freed.size == 0 for freed in gc(lake, Retention(3, 1, 1, 1, 1)).values())
    for path in lake.rglob("*"):
        if path.is_file():
            os.utime(path, (1, path.stat().st_mtime - 2 * 86_400))
    found = gc(lake, Retention(2, 1, 1, 1, 1), apply=False)
    assert {what for what, freed in found.items() if freed.files} == {"embeddings", "staged", "heatmaps"}
    assert found["embeddings"].files == 1


def test_old_entries_of_the_tables_logs_go_once_a_checkpoint_holds_them(three_nights: tuple[Path, Path]) -> None:
    _, lake = three_nights
    logs = list((lake / "tables").glob("*/_delta_log/*.json"))
    tables = list((lake / "tables").iterdir())
    for table in tables:
        DeltaTable(table).create_checkpoint()
    assert gc(lake, apply=False)["log"].files == 0
    for path in (lake / "tables").glob("*/_delta_log/*"):
        os.utime(path, (1, path.stat().st_mtime - 31 * 86_400))
    published = {name: rows(lake, name) for name in ("scores", "runs")}
    would, did = gc(lake, apply=False)["log"], gc(lake)["log"]
    assert would == did
    gone = [path for path in logs if not path.exists()]
    assert len(gone) >= did.files == len(logs) - len(tables)  # the newest entry of each stays for now
    assert did.size > 0
    assert {name: rows(lake, name) for name in published} == published
    assert gc(lake)["log"].files == 0


def test_embeddings_that_an_accepted_run_names_stay(three_nights: tuple[Path, Path]) -> None:
    _, lake = three_nights
    accept(str(lake), Storage(), AcceptRequest(run_id=f"run-{NIGHTS[0]}", name="november"))
    assert gc(lake)["embeddings"].files == 1  # of the second night alone
    assert len(units(lake)) == 2


class CollectsMeanwhile(InlineExecutor):
    """Collects between the units, and before each stage that calls tasks."""

    def __init__(self, lake: Path) -> None:
        self.lake, self.found = lake, list[dict[str, Freed]]()

    def map_units(self, *arguments: Any, **options: Any) -> Iterator[pa.Table]:
        for done in super().map_units(*arguments, **options):
            self.found.append(gc(self.lake))
            yield done

    def run_tasks(self, *arguments: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        self.found.append(gc(self.lake))
        for done in super().run_tasks(*arguments, **options):
            self.found.append(gc(self.lake))
            yield done


@pytest.mark.slow
def test_a_night_that_runs_meanwhile_publishes_all_it_would(three_nights: tuple[Path, Path], tmp_path: Path) -> None:
    archive, lake = three_nights
    given = SMALL | ALL | {"archive.uri": str(archive), "lake.images_per_file": 2, "scoring.fraction": 0.4}

    def run(lake: Path, executor: InlineExecutor) -> list[dict[str, Any]]:
        write_group(archive, NIGHTS[2], "nut", good_images(6, 70))
        places = {"lake.uri": str(lake), "run.run_id": "meanwhile"}
        record = run_night(load_config(None, given=given | places), Console(quiet=True), executor)
        assert (record.ok, record.images) == (24, 24)
        left_out = ("heatmap_path",)
        return [{key: row[key] for key in row if key not in left_out} for row in by_id(lake).values()]

    collector = CollectsMeanwhile(lake)
    found = run(lake, collector)
    assert len(collector.found) > 8
    assert all(each["embeddings"].left == "meanwhile at work: the next time" for each in collector.found)
    assert sum(each["staged"].files for each in collector.found) > 0  # of the earlier runs
    assert {name for name in files(lake) if name.startswith("heatmaps/")} >= heatmaps_named(lake)
    assert len(heatmaps_named(lake)) == 24
    assert found == run(tmp_path / "undisturbed", InlineExecutor())


def test_a_run_that_nobody_goes_on_with_goes_and_one_at_work_stays(tmp_path: Path, score_night: Score) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    write_group(archive, NIGHTS[0], "screw", good_images(6))
    config = load_config(None, given=SMALL | {"archive.uri": str(archive), "lake.uri": str(lake), "run.run_id": "half"})
    run_night(config, Console(quiet=True), InlineExecutor(), until="score")
    with lease(RunFolder(str(lake), Storage(), "half"), "half"):
        before = files(lake)
        found = gc(lake)
        assert all(freed.files == 0 for freed in found.values())
        assert {name for name in before if name not in files(lake)} == set()
    assert gc(lake, Retention(1, 0, 1, 0, 0))["runs"].files == 0
    found = gc(lake)
    assert found["runs"].files >= 4
    assert not (lake / "runs" / "half").exists()
    assert found["embeddings"].files == 1
    assert score_night(archive, lake, **{"run.run_id": "half"}).embedded == 6


def test_a_run_that_begins_while_embeddings_are_removed_keeps_their_files(
    three_nights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lake = three_nights
    forget, begun = collecting.forget_units, list[Any]()

    def begin_meanwhile(*arguments: Any) -> None:
        forget(*arguments)
        held = lease(RunFolder(str(lake), Storage(), "new"), "new")
        held.__enter__()
        begun.append(held)

    monkeypatch.setattr(collecting, "forget_units", begin_meanwhile)
    before = units(lake)
    assert gc(lake)["embeddings"].left == "a run has begun meanwhile: the files go the next time"
    assert units(lake) == before
    begun[0].__exit__(None, None, None)
    monkeypatch.undo()
    for name in before:
        os.utime(lake / name, (1, 1))
    assert gc(lake)["embeddings"].files == 2  # no receipt names them
    assert len(units(lake)) == 1


def test_half_written_and_damaged_files_go_after_their_time(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    for name in ("runs/a/.run.json.1.tmp", "embeddings/e/units/.x.2.tmp", "embeddings/e/damaged/u", "runs/a/run.json"):
        (lake / name).parent.mkdir(parents=True, exist_ok=True)
        (lake / name).write_bytes(b"12345")
    kept = Retention(1, 99, 99, 99, 3)
    assert all(freed.files == 0 for freed in gc(lake, kept).values())
    for path in files(lake):
        os.utime(lake / path, (1, (lake / path).stat().st_mtime - 2 * 86_400))
    assert gc(lake, kept)["set"] == Freed("set aside as damaged, or half written", 2, 10)
    assert gc(lake, Retention(1, 99, 99, 99, 1))["set"].size == 5
    assert set(files(lake)) == {"runs/a/run.json"}


@pytest.mark.slow
def test_on_s3(tmp_path: Path, s3: S3Server, use_keys: None, score_night: Score) -> None:
    lake = f"{s3.bucket()}/lake"
    archive = tmp_path / "archive"
    for number, night in enumerate(NIGHTS[:2]):
        write_group(archive, night, "screw", good_images(6, 10 * number))
        score_night(archive, lake, **{"archive.night": night, "storage.endpoint_url": s3.storage.endpoint})
    would = list(collect(lake, s3.storage, NOTHING_KEPT))
    assert [freed.files for freed in would[:2]] == [1, 4]
    did = list(collect(lake, s3.storage, NOTHING_KEPT, apply=True))
    assert [(each.what, each.files, each.size) for each in did] == [
        (each.what, each.files, each.size) for each in would
    ]
    joined = list(collect(lake, s3.storage, NOTHING_KEPT, apply=True))
    assert [each.what.split()[0] for each in joined if each.files] == ["replaced"]
    again = list(collect(lake, s3.storage, NOTHING_KEPT, apply=True))
    assert [freed.files for freed in again] == [0] * 8, again
    table = DeltaTable(f"{lake}/tables/scores", storage_options=s3.storage.delta_options(lake))
    assert table.to_pyarrow_table().num_rows == 12


def test_the_command_fits_80_columns_and_changes_nothing_without_apply(
    three_nights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lake = three_nights
    monkeypatch.chdir(lake.parent)
    kept = [f"--set=retention.{name}=0" for name in ("staged_days", "unfinished_days", "replaced_days")]
    options = ["gc", "--lake", "lake", *kept, "--set=retention.embeddings_nights=1"]
    runner, before = CliRunner(env={"COLUMNS": "80"}), files(lake)
    dry = runner.invoke(app, options)
    assert dry.exit_code == 0, dry.output
    lines = dry.output.splitlines()
    assert len(lines) == 10
    assert max(map(len, lines)) <= 80
    assert lines[0] == "lake: would remove"
    assert lines[-1].endswith("together; remove it with --apply")
    assert files(lake) == before
    assert runner.invoke(app, [*options, "--apply"]).output.splitlines()[0] == "lake: removed"
    assert len(files(lake)) < len(before)

"""A night tells where it is: metrics, JSON logs, lines, and its heartbeat, which `patchead runs --follow` reads."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from patchead.commands.follow import where
from patchead.lake.heartbeat import beat_of, read_json
from patchead.lake.lease import lease
from patchead.lake.staging import RunFolder
from patchead.nightly.progress import Stages
from patchead.nightly.run import run_night
from patchead.runtime import metrics
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL, good_images, png, spoiled, write_group

NIGHT = "2003-02-01"  # of no other test: the metrics of a process add up


def of(name: str, product: str, stage: str) -> float:
    return metrics.values(f"patchead_{name}").get((NIGHT, product, stage), 0)


def test_a_night_tells_its_numbers_by_product_and_what_it_does_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(9) | {"bad.png": png(spoiled(100))})
    write_group(tmp_path / "archive", NIGHT, "nut", good_images(6, 50) | {"no.png": b"no image"})
    given = SMALL | {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake")}
    given |= {"run.max_failed_fraction": 0.5, "run.run_id": "told", "run.log_level": "debug"}
    before = time.time()
    run_night(load_config(None, given=given), Console(quiet=True), InlineExecutor())
    assert [of("images_listed", product, "catalog") for product in ("screw", "nut")] == [10, 7]
    for name in ("embedded", "decoded"):
        assert [of(f"images_{name}", product, "embed") for product in ("screw", "nut")] == [10, 6]
    assert [of("images_failed", product, "embed") for product in ("screw", "nut")] == [0, 1]
    assert [of("images_scored", product, "score") for product in ("screw", "nut")] == [10, 6]
    assert [of("products_done", product, "score") for product in ("screw", "nut")] == [1, 1]
    assert [of("images_flagged", product, "publish") for product in ("screw", "nut")] == [1, 0]
    sizes = sum(path.stat().st_size for path in (tmp_path / "archive").rglob("product=screw/*.png"))
    assert of("bytes_read", "screw", "embed") == sizes
    assert of("last_success_timestamp_seconds", "", "publish") >= before
    assert of("in_hand", "", "embed") == of("stage_images_left", "", "embed") == 0

    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    beat = json.loads((tmp_path / "lake/runs/told/heartbeat.json").read_text())
    assert set(beat["progress"]["seconds"]) == {"catalog", "encoder", "embed", "score", "explain", "name", "publish"}
    assert {record["run_id"] for record in records} == {"told"}
    units = [record for record in records if "unit" in record]
    assert sorted(unit["group"] for unit in units) == [f"night={NIGHT}/product={name}" for name in ("nut", "screw")]
    assert {(record["stage"], record["level"]) for record in units} == {("embed", "debug")}
    groups = [record for record in records if record["message"].startswith("group is scored")]
    assert [(group["stage"], group["product"]) for group in groups] == [("score", "screw"), ("score", "nut")]


def test_a_failed_night_is_a_line_of_json_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "hunter2-hunter2")
    write_group(tmp_path / "archive-hunter2-hunter2", NIGHT, "screw", good_images(2) | {"no.png": b"no image"})
    ended = patchead(
        *("score", "--local", "--set=run.log_level=error", *(f"--set={key}={value}" for key, value in SMALL.items())),
        *("--archive", str(tmp_path / "archive-hunter2-hunter2"), "--lake", str(tmp_path / "lake")),
    )
    assert ended.code == 4
    record = json.loads(next(line for line in ended.err.splitlines() if line.startswith("{")))
    assert (record["level"], record["message"].startswith("run failed: 1 of 3 images")) == ("error", True)
    assert "hunter2" not in ended.err


def test_where_the_output_is_no_terminal_a_line_says_where_a_stage_is_though_nothing_comes() -> None:
    sink = io.StringIO()
    stages = Stages(Console(file=sink, width=200), lines_every=0.01)
    with stages.stage("embed", 8) as advance:
        advance(2)
        while sink.getvalue().count("\n") < 2:
            time.sleep(0.01)
        assert (stages.now()["stage"], stages.now()["done"], stages.now()["total"]) == ("embed", 2, 8)
        advance(6)
    lines = sink.getvalue().splitlines()
    assert lines[0].startswith("embed    2 of 8 images, ")
    assert lines[0].endswith(" left")
    assert lines[-1].startswith("embed    8 images in ")
    assert stages.now()["stage"] is None
    assert set(stages.now()["seconds"]) == {"embed"}


def test_a_run_is_followed_by_its_heartbeats_until_it_has_ended(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), Storage(), "night")
    stages = Stages(Console(quiet=True))
    follow = ("runs", "--lake", str(tmp_path), "--follow", "night", "--every", "0.1")
    assert "has no run 'night'" in patchead(*follow).err
    with stages.stage("embed", 10) as advance:
        advance(4)
        folder.write_json("heartbeat.json", beat_of(20) | {"progress": stages.now()})
    folder.write_json("run.json", {"state": "failed", "error": "the store said no"})
    assert patchead(*follow).code == 1
    folder.write_json("run.json", {"state": "published", "error": None})
    ended = patchead(*follow)
    assert (ended.code, ended.out.strip()) == (0, "run night: published")


def test_the_heartbeat_of_a_run_says_where_it_is_and_is_followed(tmp_path: Path) -> None:
    stages = Stages(Console(quiet=True))
    folder = RunFolder(str(tmp_path), Storage(), "night")
    with lease(folder, "night", interval_s=0.01) as held, stages.stage("embed", 10) as advance:
        held.progress = stages.now
        advance(4)
        while (read_json(folder.files, "heartbeat.json") or {}).get("progress", {}).get("done") != 4:
            time.sleep(0.01)
        beat = read_json(folder.files, "heartbeat.json")
        assert beat is not None
        assert re.fullmatch(r"\d\d:\d\d:\d\d embed    4 of 10 images, [\d.]+ images/s, \d+ s left", where(beat))

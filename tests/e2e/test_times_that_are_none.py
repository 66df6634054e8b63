"""Capture times that are none: null, and the run says how many there are and which, as of all that it passes over."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from patchead.nightly.run import run_night
from patchead.nightly.run_report import print_record
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL, by_id, png, texture
from tests.helpers.sample_files import parquet, write

SHARD = "night=2026-11-21/product=screw/a.parquet"


def test_the_record_and_the_last_lines_name_them(tmp_path: Path) -> None:
    times = ["2026-11-21T02:00:00Z", "yesterday", "n/a", *[None] * 3]
    images = [png(texture(number)) for number in range(6)]
    table = parquet({"id": [*"012345"], "image": images, "captured_at": times})
    archive = write(tmp_path / "archive", {SHARD: table})
    places = {"archive.uri": archive, "lake.uri": str(tmp_path / "lake"), "run.run_id": "r"}
    config = load_config(None, given=SMALL | places)
    run_night(config, Console(quiet=True), InlineExecutor(), until="catalog")
    record = run_night(config, Console(quiet=True), InlineExecutor())  # with the listing that was kept
    out = io.StringIO()
    print_record(record, Console(file=out, width=300))
    expected = f"warning: 2 captured_at that are no time: {SHARD}#1 has 'yesterday', {SHARD}#2 has 'n/a'. They are null"
    assert expected in out.getvalue()
    (told,) = json.loads((tmp_path / "lake/runs/r/run.json").read_text())["unreadable"].values()
    assert told["count"] == 2
    rows = by_id(tmp_path / "lake")
    assert [rows[f"{SHARD}#{number}"]["captured_at"] is None for number in range(6)] == [False] + [True] * 5
    assert record.ok == 6

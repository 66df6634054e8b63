"""A whole run in one process: what it leaves, stage by stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from patchead.errors import SettingsError
from patchead.lake.tables import published
from patchead.nightly.run import STAGES, run_night
from patchead.nightly.run_record import RunRecord
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from patchead.storage import Storage
from tests.helpers.e2e_tools import SMALL, good_images, write_group


@pytest.fixture
def run(tmp_path: Path):
    write_group(tmp_path / "archive", "2026-11-21", "screw", good_images(6))

    def call(until: str, **given: object) -> RunRecord:
        places = {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake"), "run.run_id": "r"}
        config = load_config(None, given=SMALL | places | given)
        return run_night(config, Console(quiet=True), InlineExecutor(), until=until)

    return call


def test_a_run_goes_on_stage_by_stage_under_its_id(run, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    states = []
    for stage in STAGES:
        assert not published(lake, Storage(), "r")
        record = run(stage)
        states.append((record.state, record.embedded, record.reused))
    n = record.images
    assert states == [
        ("stopped after catalog", 0, 0),
        ("stopped after embed", n, 0),
        ("stopped after score", 0, n),
        ("published", 0, n),
    ]
    assert record.scoring["tasks_done"] == 0  # the scores of the call before were staged
    assert published(lake, Storage(), "r")


def test_a_stage_that_is_none_is_refused(run) -> None:
    with pytest.raises(SettingsError, match=r"until must be one of catalog, embed, score, publish; got 'explain'"):
        run("explain")

"""A whole run in one process: what it leaves, stage by stage."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from patchead.encoders import EncoderSpec, timm_encoder
from patchead.errors import SettingsError, TooManyFailuresError
from patchead.lake.publication import published
from patchead.nightly.run import STAGES, run_night
from patchead.nightly.run_record import RunRecord
from patchead.runtime.inline_executor import InlineExecutor
from patchead.schema import OK
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


def test_a_run_goes_on_stage_by_stage_under_its_id(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, build = str(tmp_path / "lake"), timm_encoder.build
    built = list[EncoderSpec]()
    monkeypatch.setattr(timm_encoder, "build", lambda spec: built.append(spec) or build(spec))
    states, encoders = [], []
    for stage in STAGES:
        assert not published(lake, Storage(), "r")
        record = run(stage)
        states.append((record.state, record.embedded, record.reused))
        encoders.append(len(built))
    n = record.images
    assert states == [
        ("stopped after catalog", 0, 0),
        ("stopped after embed", n, 0),
        ("stopped after score", 0, n),
        ("published", 0, n),
    ]
    assert encoders == [0, 1, 2, 3]  # one is enough for its id and to embed
    assert record.scoring["tasks_done"] == 0  # the scores of the call before were staged
    assert published(lake, Storage(), "r")


def test_a_stage_that_is_none_is_refused(run) -> None:
    with pytest.raises(SettingsError, match=r"until must be one of catalog, embed, score, publish; got 'explain'"):
        run("explain")


def test_a_run_that_goes_on_does_not_list_the_archive_again(run, tmp_path: Path) -> None:
    folder = tmp_path / "archive" / "night=2026-11-21" / "product=screw"
    (folder / "notes.txt").write_text("no image")
    first = run("catalog")
    (folder / "late.png").write_bytes((folder / "good000.png").read_bytes())
    (folder / "notes.txt").unlink()
    again = run("embed")
    assert (again.images, again.ignored_files, again.embedded) == (first.images, 1, first.images)
    other_settings = run("embed", **{"archive.products": ["screw"]})
    assert (other_settings.images, other_settings.ignored_files) == (first.images + 1, 0)
    receipts = pq.read_table(tmp_path / "lake" / "runs" / "r" / "receipts.parquet")
    assert receipts.num_rows == first.images + 1
    assert set(receipts["status"].to_pylist()) == {OK}


def test_after_too_many_failures_the_mended_archive_is_listed(run, tmp_path: Path) -> None:
    image = tmp_path / "archive" / "night=2026-11-21" / "product=screw" / "good000.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:90])
    with pytest.raises(TooManyFailuresError, match=r"1 of 6 images failed(.|\n)*good000\.png"):
        run("publish")
    image.write_bytes(whole)
    assert (run("publish").state, run("publish").state) == ("published", "already published")

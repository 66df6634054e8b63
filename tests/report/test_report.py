"""`patchead report`: what stands on the page of a night, and what is said where something is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from patchead.commands.report import report_of_run
from patchead.errors import ReportError
from patchead.nightly.run_record import RunRecord
from patchead.report.write import ReportRequest, write_report
from patchead.settings.load import load_config
from tests.helpers.command import patchead
from tests.helpers.report_lakes import BEFORE, NIGHT, lake_of_nights


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return lake_of_nights(tmp_path_factory.mktemp("nights"), images=12, flagged=2, failed=1)


def page_of(lake: str, out: Path, *options: str) -> tuple[str, dict[str, Any]]:
    done = patchead("report", "--lake", lake, "--out", str(out), *options)
    assert done.code == 0, done.err
    text = (out / "index.html").read_text(encoding="utf-8")
    data = re.search(r'id="data">(.*?)</script>', text)
    assert data is not None
    return text, json.loads(data[1])


def test_the_newest_night_with_what_it_is_compared_by(lake: str, tmp_path: Path) -> None:
    text, data = page_of(lake, tmp_path)
    assert "Saturday, 21 November 2026" in text
    assert "<title>4 of 24 flagged, night of 2026-11-21</title>" in text
    assert "<strong>2</strong> not an image" in text
    assert re.search(r"<strong>4</strong>\s*<span>of 24 scored, 16\.7%</span>\s*<span [^>]*>4 on 2026-11-20", text)
    assert data["groups"] == ["nut", "screw"]
    assert data["keys"] == {"station": ["1", "2"]}
    assert 'data-key="station" data-value="2"' in text
    images = data["images"]
    assert [image.get("flagged") for image in images[:5]] == [1, 1, 1, 1, None]
    assert [image["z"] for image in images[:4]] == sorted((image["z"] for image in images[:4]), reverse=True)
    assert images[0]["boxes"][0] == [40, 30, 60, 50, 0.5]
    assert set(images[0]["files"]) == {"thumbnail", "picture", "heatmap"}
    assert "retention" in images[0]["nearest"]
    assert [image["lacking"] for image in images[-2:]] == ["failed", "failed"]


@pytest.mark.slow
def test_the_drawings_are_of_every_image_and_night(lake: str, tmp_path: Path) -> None:
    text, _ = page_of(lake, tmp_path, "--set=report.images=1", "--set=report.pictures=0")
    titles = re.findall(r"<title>([^<]*)</title>", text)
    bars = [re.fullmatch(r"[\d.]+ to [\d.]+: (\d+) (not flagged|flagged)", title) for title in titles]
    counts = {what: sum(int(bar[1]) for bar in bars if bar and bar[2] == what) for what in ("not flagged", "flagged")}
    assert counts == {"not flagged": 20, "flagged": 4}
    assert titles.count("The fitted normal of good images: centre 0.1000, scale 0.0200") == 2
    assert titles.count("Above 0.1600 an image is flagged") == 2
    assert titles.count(f"{BEFORE}: 2 of 12 flagged") == titles.count(f"{NIGHT}: 2 of 12 flagged") == 2
    assert text.count('role="img"') == 4  # two of each group
    assert "var(--hot)" in text
    assert "#0a0b0" not in text


@pytest.mark.slow
def test_another_night_fewer_images_and_no_copies(lake: str, tmp_path: Path) -> None:
    options = ("--night", str(BEFORE), "--set=report.images=5", "--set=report.pictures=1", "--set=report.compared=0")
    text, data = page_of(lake, tmp_path, *options)
    assert "first night in this lake" in text
    assert "The worst 5 of 26 images are on this page." in text
    assert len(data["images"]) == len(list((tmp_path / "thumbnails").iterdir())) == 5
    assert len(list((tmp_path / "pictures").iterdir())) == len(list((tmp_path / "heatmaps").iterdir())) == 1


@pytest.mark.slow
def test_what_changed_and_the_results_of_another_lane(tmp_path: Path) -> None:
    here = lake_of_nights(tmp_path, ["screw"], images=9, flagged=6, flagged_before=0)
    assert lake_of_nights(tmp_path, ["nut", "bolt"], images=5, flagged=1, lane="trial") == here
    text, data = page_of(here, tmp_path / "main", "--set=report.compared=0")
    assert data["groups"] == ["screw"]
    assert "screw: 6 of 9 flagged (66.7%), on 2026-11-20 0 of 9 (0.0%)." in text
    done = patchead("report", "--lake", here, "--lane", "trial")
    assert f"open      {here}/reports/lane=trial/night={NIGHT}/index.html" in done.out


@pytest.mark.slow
def test_originals_that_are_gone_are_told(tmp_path: Path) -> None:
    here = lake_of_nights(tmp_path, ["screw"], images=5, flagged=1)
    for file in (tmp_path / "archive").rglob("*.jpg"):
        file.unlink()
    done = patchead("report", "--lake", here)
    assert done.code == 0, done.err
    assert "warning: 5 of 5 images have no picture" in done.out
    assert f"open      {here}/reports/night={NIGHT}/index.html" in done.out


@pytest.mark.slow
def test_a_page_in_an_object_store(lake: str, s3: Any) -> None:
    out = s3.bucket()
    done = write_report(ReportRequest(lake, f"{out}/page", images=5), s3.storage, lambda line: None)
    filesystem, path = s3.storage.filesystem(f"{out}/page")
    assert done.uri == f"{out}/page/index.html"
    assert len(filesystem.glob(f"{path}/thumbnails/*.webp")) == 5
    assert b"of 26 images are on this page" in filesystem.cat_file(f"{path}/index.html")


def test_a_night_without_images_is_refused(lake: str, tmp_path: Path) -> None:
    done = patchead("report", "--lake", lake, "--out", str(tmp_path), "--night", "2026-12-24")
    assert (done.code, "its newest nights are 2026-11-21, 2026-11-20" in done.err) == (2, True)


def test_a_report_that_cannot_be_written_leaves_the_night_published(tmp_path: Path) -> None:
    here = lake_of_nights(tmp_path, ["screw"], images=5, flagged=1)
    (Path(here) / "reports").write_text("in the way")
    config = load_config(None, [], {"archive.uri": "unused://", "lake.uri": here, "run.report": True})
    with pytest.raises(ReportError, match="published, but the report of 2026-11-21 could not be written") as raised:
        report_of_run(RunRecord("r", config, nights=[NIGHT], state="published"), Console())
    assert raised.value.exit_code == 6

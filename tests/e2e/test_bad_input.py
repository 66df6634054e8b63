"""Whatever an archive holds, every image ends as one row, and a bad one changes nothing for the good ones."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from patchead.errors import ArchiveError, PatcheadError, TooManyFailuresError
from patchead.nightly.run_record import RunRecord
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, by_id, good_images, png, rows, table, texture, write_group

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"
SCREW = f"night={NIGHT}/product=screw"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def readable_oddities() -> dict[str, bytes]:
    """Unusual images that must be scored."""
    plain = Image.fromarray(texture(200))
    grey16 = Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "grey16.png": encoded(grey16, "PNG"),
        "palette.png": encoded(plain.convert("P"), "PNG"),
        "rgba.png": encoded(plain.convert("RGBA"), "PNG"),
        "cmyk.jpg": encoded(plain.convert("CMYK"), "JPEG"),
        "rotated.jpg": encoded(Image.fromarray(texture(201)), "JPEG", exif=exif),
        "black.png": encoded(Image.new("RGB", (48, 48)), "PNG"),
        "twin1.png": png(texture(202)),
        "twin2.png": png(texture(202)),
    }


def unreadable() -> dict[str, bytes]:
    """Files that must become failed rows."""
    jpeg = encoded(Image.fromarray(texture(300, 96)), "JPEG")
    return {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "empty.png": b"",
        "text.png": b"this is a text file\n",
        "bomb.png": encoded(Image.new("1", (20_000, 10_000)), "PNG"),
    }


def add_hostile_shards(folder: Path, image: bytes) -> None:
    with tarfile.open(folder / "hostile.tar", "w") as shard:
        for name in ("../../x.png", "inside.png"):
            member = tarfile.TarInfo(name)
            member.size = len(image)
            shard.addfile(member, io.BytesIO(image))
    pq.write_table(pa.table({"image_id": ["a"], "photo": [image]}), folder / "wrong-column.parquet")


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    return good_images(6) | readable_oddities() | {"inside.png": png(texture(400))}


@dataclass(frozen=True)
class Clean:
    """A night of readable images alone: 15 screws, 6 black ones, and groups that are too small. Not to be changed."""

    archive: Path
    lake: Path
    record: RunRecord

    def rows(self, *products: str) -> list[dict[str, Any]]:
        return [row for row in rows(self.lake) if row["product"] in products]

    def screws(self) -> dict[str, dict[str, Any]]:
        """By file name."""
        return {row["image_id"].rpartition("/")[2]: row for row in self.rows("screw")}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, good: dict[str, bytes], score_night: Score) -> Clean:
    root = tmp_path_factory.mktemp("clean")
    archive, lake = root / "archive", root / "lake"
    write_group(archive, NIGHT, "screw", good)
    write_group(archive, NIGHT, "one", good_images(1))
    write_group(archive, NIGHT, "four", good_images(4))
    write_group(archive, NIGHT, "same", {f"copy{i}.png": png(texture(1)) for i in range(6)})
    write_group(archive, NIGHT, "black", {f"b{i}.png": png(np.zeros((40 + i, 40, 3), np.uint8)) for i in range(6)})
    return Clean(archive, lake, score_night(archive, lake))


def test_every_bad_image_is_a_row_and_changes_nothing_for_the_good_ones(
    tmp_path: Path, good: dict[str, bytes], clean: Clean, score_night: Score
) -> None:
    loose = {name: data for name, data in good.items() if name != "inside.png"}
    folder = write_group(tmp_path / "archive", NIGHT, "screw", loose | unreadable())
    add_hostile_shards(folder, good["inside.png"])
    record = score_night(tmp_path / "archive", tmp_path / "lake", **{"run.max_failed_fraction": 1})

    found = by_id(tmp_path / "lake")
    failed = {i.removeprefix(f"{SCREW}/"): row["error"] for i, row in found.items() if row["status"] == "failed"}
    assert set(failed) == {*unreadable(), "hostile.tar#../../x.png", "wrong-column.parquet"}
    reasons = {
        "truncated.jpg": "truncated",
        "empty.png": "empty",
        "text.png": "not an image",
        "bomb.png": "20000x10000",
        "hostile.tar#../../x.png": "unsafe",
        "wrong-column.parquet": "archive.image_column",
    }
    assert [name for name, reason in reasons.items() if reason not in failed[name].replace(" x ", "x")] == []
    assert (record.images, record.ok, record.failed, record.skipped) == (21, 15, 6, 0)

    scored = {
        i.rpartition("/")[2].rpartition("#")[2]: row["score"] for i, row in found.items() if row["status"] == "ok"
    }
    assert scored == pytest.approx({name: row["score"] for name, row in clean.screws().items()}, abs=1e-6)


def test_twins_are_no_reference_of_each_other(clean: Clean) -> None:
    found = clean.screws()
    assert found["twin1.png"]["n_references"] == found["twin2.png"]["n_references"] == 13
    assert found["good000.png"]["n_references"] == 14
    assert found["twin1.png"]["score"] == pytest.approx(found["twin2.png"]["score"], abs=1e-7)


def test_too_many_failures_publish_nothing(tmp_path: Path, clean: Clean, score_night: Score) -> None:
    archive = shutil.copytree(clean.archive, tmp_path / "archive")
    lake = shutil.copytree(clean.lake, tmp_path / "lake")
    before = table(lake)
    (archive / f"night={NIGHT}/product=screw/text.png").write_bytes(b"no image")
    with pytest.raises(TooManyFailuresError, match=r"1 of 33 images failed(.|\n)*text\.png(.|\n)*max_failed_fraction"):
        score_night(archive, lake)
    assert table(lake).equals(before)


def test_small_and_identical_groups_get_a_status_and_no_score(clean: Clean) -> None:
    few, black = clean.rows("one", "four", "same"), clean.rows("black")
    assert {row["status"] for row in few} == {"too_few_images"}
    assert all(row["score"] is None and row["error"] for row in few)
    assert {(row["status"], row["z"], row["is_anomalous"]) for row in black} == {("ok", 0.0, False)}
    assert all(row["score"] == pytest.approx(0, abs=1e-6) for row in black)
    assert (clean.record.images, clean.record.ok, clean.record.skipped) == (32, 21, 11)


def fails(*arguments: str, code: int, words: list[str], env: dict[str, str] | None = None) -> None:
    done = patchead("score", *SMALL_OPTIONS, *arguments, env=env)
    assert done.code == code, done
    assert [word for word in words if word not in done.err] == [], done.err


def test_an_empty_archive_is_one_clear_message(tmp_path: Path, score_night: Score) -> None:
    (tmp_path / "archive").mkdir()
    with pytest.raises(ArchiveError, match=f"no image.*{re.escape(str(tmp_path / 'archive'))}"):
        score_night(tmp_path / "archive", tmp_path / "lake")
    assert [path.name for path in (tmp_path / "lake/tables").iterdir()] == ["runs"]
    assert [run["state"] for run in rows(tmp_path / "lake", "runs")] == ["failed"]


def test_an_unreachable_endpoint_is_one_clear_message(tmp_path: Path, pauses: list[float]) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    places = ["--archive", str(tmp_path), "--lake", "s3://bucket/lake", "--set=storage.endpoint_url=http://127.0.0.1:9"]
    fails(*places, code=1, words=["error:", "s3://bucket/lake", "storage.endpoint_url"], env=keys)


def test_an_unwritable_lake_is_one_clear_message(tmp_path: Path, score_night: Score) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(6))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PatcheadError, match=re.escape(str(tmp_path / "file/lake"))):
        score_night(tmp_path / "archive", tmp_path / "file/lake")


def test_bad_settings_are_exit_code_2(tmp_path: Path) -> None:
    places = ["--archive", str(tmp_path / "archive"), "--lake", str(tmp_path / "lake")]
    fails(*places, "--set=scoring.fractoin=1", code=2, words=["scoring.fractoin", "Did you mean 'scoring.fraction'?"])
    assert list(tmp_path.iterdir()) == []


def test_failed_images_are_exit_code_3_and_too_many_exit_code_4(tmp_path: Path) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(6) | {"text.png": b"no image"})
    places = ["--local", "--archive", str(tmp_path / "archive"), "--lake", str(tmp_path / "lake")]
    fails(*places, code=4, words=["1 of 7 images failed", "nothing was published"])
    assert not (tmp_path / "lake/tables/scores").exists()
    done = patchead("score", *SMALL_OPTIONS, *places, "--set=run.max_failed_fraction=0.2")
    assert (done.code, done.err) == (3, "")
    assert "7 images = 6 scored + 1 failed + 0 skipped" in done.out
    assert len(rows(tmp_path / "lake")) == 7


def test_a_dry_run_prints_the_plan_and_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("a dry run starts no Ray"))
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(6))
    places = ["--archive", str(tmp_path / "archive"), "--lake", str(tmp_path / "lake")]
    done = patchead("score", *SMALL_OPTIONS, *places, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert [word for word in (SCREW, "6 images", "16 patches x 64", "symmetric") if word not in done.out] == []
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]

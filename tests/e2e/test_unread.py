"""What the storage did not give is no bad picture: tried again, not published, and the same run id goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patchead.errors import TooManyFailuresError, UnreadError
from patchead.nightly.run_record import RunRecord
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, good_images, rows, write_group
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.s3_server import S3Server

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"
ONCE = {"storage.attempts": 1, "lake.images_per_file": 4}


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3.endpoint, lambda method, path: None) as found:
        yield found


@pytest.fixture
def archive(tmp_path: Path, s3: S3Server) -> str:
    return uploaded(tmp_path, s3, 9)


def uploaded(tmp_path: Path, s3: S3Server, count: int) -> str:
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(count))
    target = f"{s3.bucket()}/archive"
    filesystem, path = s3.storage.filesystem(target)
    filesystem.put(f"{tmp_path}/archive/", f"{path}/", recursive=True)
    return target


def scores(lake: Path) -> dict[str, float]:
    return {row["image_id"]: row["score"] for row in rows(lake)}


@pytest.mark.parametrize(
    "fault", ["404", "cut", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("403", "503", "reset"))]
)
def test_what_fails_once_is_read_in_the_second_pass(
    tmp_path: Path, archive: str, proxy: FaultyProxy, score_night: Score, fault: str, pauses: list[float]
) -> None:
    score_night(tmp_path / "archive", tmp_path / "sound")
    seen = Counter[str]()

    def rule(method: str, path: str) -> str | None:
        if method != "GET" or not path.endswith(".png"):
            return None
        seen[path] += 1
        return fault if seen[path] <= (2 if fault == "reset" else 1) and "3.png" in path else None

    proxy.rule = rule
    record = score_night(archive, tmp_path / "lake", **ONCE, **{"storage.endpoint_url": proxy.endpoint})
    assert proxy.seen[fault] >= 1
    assert (record.state, record.failed, record.unread) == ("published", 0, 0)
    assert scores(tmp_path / "lake") == pytest.approx(scores(tmp_path / "sound"), abs=1e-6)


def test_what_stays_unread_is_not_published_and_the_same_run_goes_on(
    tmp_path: Path, archive: str, proxy: FaultyProxy, score_night: Score, pauses: list[float]
) -> None:
    settings = ONCE | {"storage.endpoint_url": proxy.endpoint, "run.run_id": "a", "run.max_failed_fraction": 0.5}
    proxy.rule = lambda method, path: "503" if path.endswith("good003.png") and method == "GET" else None
    with pytest.raises(TooManyFailuresError, match=r"(?s)1 of 9 images could not be read.*good003\.png.*--run-id a"):
        score_night(archive, tmp_path / "lake", **settings)
    assert not (tmp_path / "lake/tables/scores").exists()
    proxy.rule = lambda method, path: None
    record = score_night(archive, tmp_path / "lake", **settings)
    assert (record.state, record.failed, record.embedded, record.reused) == ("published", 0, 1, 8)


def test_a_fraction_of_unread_images_may_be_allowed_and_is_tried_again_later(
    tmp_path: Path, archive: str, proxy: FaultyProxy, score_night: Score, pauses: list[float]
) -> None:
    score_night(tmp_path / "archive", tmp_path / "sound")
    settings = ONCE | {"storage.endpoint_url": proxy.endpoint, "run.max_failed_fraction": 0.5}
    proxy.rule = lambda method, path: "403" if path.endswith("good003.png") and method == "GET" else None
    record = score_night(archive, tmp_path / "lake", **settings, **{"run.max_unread_fraction": 0.2})
    assert (record.state, record.failed, record.unread) == ("published", 1, 1)
    (failed,) = (row for row in rows(tmp_path / "lake") if row["status"] == "failed")
    assert failed["error"].startswith("not read, tried twice: cannot read")
    proxy.rule = lambda method, path: None
    places = ["--archive", archive, "--lake", str(tmp_path / "lake"), f"--set=storage.endpoint_url={proxy.endpoint}"]
    again = ["score", "--local", "--retry-failed", "--night", NIGHT, *SMALL_OPTIONS, *places]
    ended = patchead(*again)
    assert (ended.code, ended.err) == (0, "")
    assert "1 embedded, 8 reused" in ended.out
    assert scores(tmp_path / "lake") == pytest.approx(scores(tmp_path / "sound"), abs=1e-6)
    assert "nothing to do" in patchead(*again).out
    assert patchead("score", "--local", "--retry-failed", *SMALL_OPTIONS, *places).code == 2


def test_retrying_leaves_products_without_failures_alone(tmp_path: Path, score_night: Score) -> None:
    folder = write_group(tmp_path / "archive", NIGHT, "screw", good_images(6) | {"bad.png": b"no image"})
    write_group(tmp_path / "archive", NIGHT, "cable", good_images(6, 30))
    score_night(tmp_path / "archive", tmp_path / "lake", **{"run.max_failed_fraction": 0.5, "run.run_id": "a"})
    (folder / "bad.png").write_bytes(good_images(1, 90)["good000.png"])
    places = ["--archive", str(tmp_path / "archive"), "--lake", str(tmp_path / "lake"), "--run-id", "b"]
    assert patchead("score", "--local", "--retry-failed", "--night", NIGHT, *SMALL_OPTIONS, *places).code == 0
    found = rows(tmp_path / "lake")
    assert {(row["product"], row["run_id"]) for row in found} == {("screw", "b"), ("cable", "a")}
    assert {row["status"] for row in found} == {"ok"}


def test_an_archive_that_goes_away_ends_the_run_with_one_message(
    tmp_path: Path, s3: S3Server, proxy: FaultyProxy, score_night: Score, pauses: list[float]
) -> None:
    archive, left = uploaded(tmp_path, s3, 400), [40]

    def rule(method: str, path: str) -> str | None:
        if method == "GET" and path.endswith(".png"):
            left[0] -= 1
        return "503" if left[0] < 0 else None

    proxy.rule = rule
    settings = ONCE | {"storage.endpoint_url": proxy.endpoint, "run.max_failed_fraction": 1.0}
    with pytest.raises(UnreadError, match="the archive cannot be read any more: of the last 200 images none") as caught:
        score_night(archive, tmp_path / "lake", **settings)
    assert len(str(caught.value).splitlines()) == 1
    assert proxy.seen["503"] < 300

"""A store that fails now and then changes no score; one that fails for good ends in bounded time with one message."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patchead.errors import LakeError
from patchead.files import Folder
from patchead.nightly.run_record import RunRecord
from patchead.retries import RETRIES
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, good_images, rows, table, write_group
from tests.helpers.faulty_proxy import FaultyProxy, some_of
from tests.helpers.moto_server import MotoServer
from tests.helpers.s3_server import S3Server

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"
TRANSIENT = ("503", "500", "reset", "cut", "stall")


def upload(folder: Path, s3: S3Server, target: str) -> None:
    filesystem, path = s3.storage.filesystem(target)
    filesystem.put(f"{folder}/", f"{path}/", recursive=True)


@pytest.fixture(params=["seaweedfs", pytest.param("moto", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, s3_keys: S3Server) -> Iterator[S3Server]:
    """Two servers that have nothing in common; the keys of the environment are those of the first."""
    if request.param == "seaweedfs":
        yield request.getfixturevalue("s3")
        return
    with MotoServer(s3_keys.access_key, s3_keys.secret_key) as server:
        yield server


@pytest.mark.parametrize("stall_s", [0.2, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_fifth_of_all_requests_failing_changes_no_score(
    tmp_path: Path, store: S3Server, score_night: Score, pauses: list[float], stall_s: float
) -> None:
    s3 = store
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(12))
    score_night(tmp_path / "archive", tmp_path / "lake")
    bucket = s3.bucket()
    upload(tmp_path / "archive", s3, f"{bucket}/archive")
    before = RETRIES.total
    with FaultyProxy(s3.endpoint, some_of(TRANSIENT, 0.2, seed=1), stall_s=stall_s) as proxy:
        record = score_night(
            f"{bucket}/archive", f"{bucket}/lake", **{"storage.endpoint_url": proxy.endpoint, "storage.attempts": 10}
        )
    assert sum(count for fault, count in proxy.seen.items() if fault != "well") > 10
    assert set(proxy.seen) == {"well", *TRANSIENT}
    assert (record.state, record.failed) == ("published", 0)
    options = s3.storage.delta_options(f"{bucket}/lake")
    there = table(f"{bucket}/lake", options=options).sort_by("image_id")["score"].to_pylist()
    assert there == pytest.approx([row["score"] for row in rows(tmp_path / "lake")], abs=1e-6)
    assert RETRIES.total > before
    assert record.storage_retries > 0


@pytest.mark.parametrize("fault", ["503", "500", "reset", "cut"])
def test_a_fault_for_good_is_one_error_after_as_many_requests_as_are_allowed(
    s3: S3Server, fault: str, pauses: list[float]
) -> None:
    bucket = s3.bucket()
    Folder(f"{bucket}/x", s3.storage).write("y", lambda sink: sink.write(b"whole" * 1000))
    with FaultyProxy(s3.endpoint, lambda method, path: fault if method == "GET" else None) as proxy:
        folder = Folder(f"{bucket}/x", proxy.storage(s3.storage, attempts=3))
        with pytest.raises(LakeError, match="cannot read") as caught:
            folder.open("y")
        # aiohttp sends a request once more where the connection that it took from its pool is gone.
        assert proxy.seen[fault] in ((3, 6) if fault == "reset" else (3,))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_bodies_that_are_cut_again_and_again_are_fetched_again(
    tmp_path: Path, s3: S3Server, times: int, pauses: list[float]
) -> None:
    bucket, left = s3.bucket(), [times]
    Folder(f"{bucket}/x", s3.storage).write("y", lambda sink: sink.write(b"whole" * 1000))

    def rule(method: str, path: str) -> str | None:
        left[0] -= 1
        return "cut" if left[0] >= 0 else None

    with FaultyProxy(s3.endpoint, rule) as proxy:
        folder = Folder(f"{bucket}/x", proxy.storage(s3.storage))
        assert folder.open("y").read() == b"whole" * 1000
        left[0] = times
        filesystem, path = folder.storage.filesystem(folder.uri_of("y"))
        with filesystem.open(path, "rb", block_size=1000, cache_type="readahead") as stream:
            assert stream.read() == b"whole" * 1000
        left[0] = times - 1
        filesystem.get_file(path, str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == b"whole" * 1000


def test_a_store_that_stalls_is_given_up_at_the_deadline(s3: S3Server) -> None:
    bucket = s3.bucket()
    Folder(f"{bucket}/x", s3.storage).write("y", lambda sink: sink.write(b"whole"))
    with FaultyProxy(s3.endpoint, lambda method, path: "stall", stall_s=3600) as proxy:
        storage = proxy.storage(s3.storage, attempts=1000, deadline_seconds=1.0)
        with pytest.raises(LakeError, match=r"storage\.deadline_seconds"):
            Folder(f"{bucket}/x", storage).open("y")
        assert proxy.seen["stall"] <= 2


def test_a_command_on_a_store_that_fails_for_good_prints_one_line(
    tmp_path: Path, s3: S3Server, pauses: list[float]
) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", good_images(6))
    bucket = s3.bucket()
    with FaultyProxy(s3.endpoint, lambda method, path: "503") as proxy:
        places = ["--local", "--archive", f"{bucket}/archive", "--lake", str(tmp_path / "lake"), "--run-id", "a"]
        ended = patchead("score", *SMALL_OPTIONS, *places, f"--set=storage.endpoint_url={proxy.endpoint}")
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert json.loads((tmp_path / "lake/runs/a/run.json").read_text())["state"] == "failed"

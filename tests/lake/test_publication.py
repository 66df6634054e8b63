"""A night is whole for readers after each commit: of processes that are killed, or paused while another publishes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from patchead.lake import publication
from patchead.lake.publication import ReplacedError, publish, published, remove_replaced
from patchead.lake.query import connect, query
from patchead.lake.run_list import list_runs
from patchead.lake.tables import read_rows
from patchead.storage import Storage
from tests.helpers.forked import Forked, Forkserver
from tests.helpers.lakes import SLOW_ON_S3
from tests.helpers.publishers import CODE, night_of
from tests.helpers.sample_rows import NIGHT, group, rows_of

Publishers = Callable[..., AbstractContextManager[Forked]]
PAIRS = """
SELECT scores.run_id, image_id, x, verdicts.images FROM scores JOIN regions USING (run_id, image_id)
JOIN verdicts ON verdicts.run_id = scores.run_id AND verdicts.group_id = scores.group_id
JOIN runs ON runs.run_id = scores.run_id ORDER BY image_id
"""
COMMITS = ("regions", "verdicts", "runs: publishing", "scores", "runs: published", "old regions", "old verdicts")
KEYS = {
    "scores": ["run_id", "image_id", "group_id"],
    "regions": ["run_id", "image_id"],
    "verdicts": ["run_id", "group_id"],
    "runs": ["run_id"],
}
PUBLICATION = 4  # commits after which readers see the new night


def publish_night(lake: str, run_id: str, storage: Storage | None = None) -> None:
    publish(lake, storage or Storage(), *night_of(run_id).tables)


def seen_by_views(lake: str, storage: Storage) -> set[str]:
    """Whose night the views show, whole: every image with its region and its verdict, once."""
    with connect(lake, storage) as connection:
        rows = connection.execute(PAIRS).fetchall()
        assert [row[1:] for row in rows] == [("a", 1, 2), ("b", 1, 2)], rows
        for view, count in (("regions", 2), ("verdicts", 1), ("latest", 2)):
            found = connection.execute(f"SELECT count(*), count(DISTINCT run_id) FROM {view}").fetchone()
            assert found == (count, 1), view
    return {row[0] for row in rows}


def seen_by_others(lake: str, storage: Storage) -> set[str]:
    """The same without the views, as docs/tables.md says to join."""
    scores, regions, verdicts, runs = (read_rows(lake, storage, name, KEYS[name]) for name in KEYS)
    assert sorted(scores["image_id"].to_pylist()) == ["a", "b"]
    found = scores.join(regions, ["run_id", "image_id"], join_type="left semi").join(runs, "run_id", join_type="inner")
    found = found.join(verdicts, ["run_id", "group_id"], join_type="left semi")
    assert sorted(found["image_id"].to_pylist()) == ["a", "b"]
    return set(found["run_id"].to_pylist())


def seen(lake: str, storage: Storage | None = None) -> str:
    (run_id,) = seen_by_views(lake, storage or Storage())
    assert seen_by_others(lake, storage or Storage()) == {run_id}
    return run_id


@pytest.fixture
def publishers(forkserver: Forkserver) -> Publishers:
    """Processes that publish, as tests/helpers/publishers.py says."""

    def start(*arguments: str, storage: Storage | None = None) -> AbstractContextManager[Forked]:
        environment = {**os.environ, **({"AWS_ENDPOINT_URL": storage.endpoint or ""} if storage else {})}
        return forkserver.started(CODE, *arguments, env=environment)

    return start


def went_on(work: Forked) -> tuple[int, str]:
    work.send_signal(signal.SIGCONT)
    return work.wait(), work.err


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([PUBLICATION - 1, PUBLICATION, len(COMMITS) - 1], id="around-the-publication"),
        pytest.param([*range(len(COMMITS))], id="all", marks=pytest.mark.slow),
    ],
)
def test_killed_after_any_commit_readers_have_one_whole_night_and_the_same_run_completes(
    tmp_path: Path, publishers: Publishers, points: list[int]
) -> None:
    publish_night(str(tmp_path / "first"), "old")
    lakes = {done: str(tmp_path / f"lake{done}") for done in points}
    for lake in lakes.values():
        shutil.copytree(tmp_path / "first", lake)
    with publishers("new", "SIGKILL", *(f"{lake}:{done}" for done, lake in lakes.items())) as work:
        work.wait()
    assert work.out.split() == ["-9"] * len(lakes), work.err
    for done, lake in lakes.items():
        assert seen(lake) == ("new" if done >= PUBLICATION else "old"), COMMITS[:done]
        assert published(lake, Storage(), "new") == (done > PUBLICATION)
        listed = {run.run_id: run for run in list_runs(lake, Storage())}
        if COMMITS.index("runs: publishing") < done <= PUBLICATION:
            assert listed["new"].state == "dead"
            assert "it was publishing: run it again" in str(listed["new"].reason)
        publish_night(lake, "new")
        remove_replaced(lake, Storage(), "new")  # as a run that is published already does
        assert seen(lake) == "new"
        for name, rows in (("scores", 2), ("regions", 2), ("verdicts", 1)):
            there = read_rows(lake, Storage(), name, ["run_id"])["run_id"].to_pylist()
            assert there == ["new"] * rows, (name, COMMITS[:done])


def killed_on_s3(s3: Any, points: list[int], publishers: Publishers) -> None:
    lakes = {done: f"{s3.bucket()}/lake" for done in points}
    for lake in lakes.values():
        publish_night(lake, "old", s3.storage)
    places = (f"{lake}:{done}" for done, lake in lakes.items())
    with publishers("new", "SIGKILL", *places, storage=s3.storage) as work:
        work.wait()
    assert work.out.split() == ["-9"] * len(lakes), work.err
    for done, lake in lakes.items():
        assert seen(lake, s3.storage) == ("new" if done >= PUBLICATION else "old")
        publish_night(lake, "new", s3.storage)
        remove_replaced(lake, s3.storage, "new")
        assert seen(lake, s3.storage) == "new"
        assert len(read_rows(lake, s3.storage, "regions", ["run_id"])) == 2


@pytest.mark.slow
def test_killed_on_s3_readers_have_one_whole_night_and_the_same_run_completes(s3: Any, publishers: Publishers) -> None:
    killed_on_s3(s3, [PUBLICATION], publishers)


@pytest.mark.parametrize(
    "commits", [PUBLICATION, *(pytest.param(commits, marks=pytest.mark.slow) for commits in (1, PUBLICATION - 1))]
)
def test_a_paused_writer_that_wakes_after_another_run_published_refuses_and_says_so(
    tmp_path: Path, commits: int, publishers: Publishers
) -> None:
    lake = str(tmp_path / "lake")
    publish_night(lake, "old")
    with publishers("paused", "SIGSTOP", f"{lake}:{commits}") as work:
        work.wait_until_stopped()
        publish_night(lake, "quick")
        assert seen(lake) == "quick"
        code, said = went_on(work)
    assert code == 1
    assert "run quick has" in said
    assert "run paused" in said
    assert seen(lake) == "quick"
    for name, rows in (("regions", 2), ("verdicts", 1)):
        assert read_rows(lake, Storage(), name, ["run_id"])["run_id"].to_pylist().count("quick") == rows


@pytest.mark.slow
def test_queries_see_whole_nights_while_runs_are_published(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    publish_night(lake, "r0")

    seen_runs, read_again, ended = list[str](), threading.Event(), threading.Event()

    def publish_again_and_again() -> None:
        for number in range(1, 8):
            publish_night(lake, f"r{number}")
            read_again.clear()
            while not ended.is_set() and not read_again.wait(0.01):
                pass

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(publish_again_and_again)
        try:
            while not writing.done():
                seen_runs.append(whole(query(lake, Storage(), PAIRS)))
                read_again.set()
        finally:
            ended.set()
        writing.result()
    assert whole(query(lake, Storage(), PAIRS)) == "r7"
    assert seen_runs == sorted(seen_runs)


def whole(rows: pa.Table) -> str:
    """The run of a night's rows, of which none is missing."""
    assert [(row["image_id"], row["x"], row["images"]) for row in rows.to_pylist()] == [("a", 1, 2), ("b", 1, 2)]
    (run_id,) = {*rows["run_id"].to_pylist()}
    return str(run_id)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_writers_killed_and_paused_at_random_leave_one_whole_night(
    tmp_path: Path, seed: int, publishers: Publishers
) -> None:
    """Four writers of one night, each killed or paused somewhere; queries all the while; then all are run again."""
    lake, rng = str(tmp_path / "lake"), random.Random(seed)
    publish_night(lake, "r0")
    ids = [f"r{number}" for number in range(1, 5)]
    chosen = {name: (rng.choice(["SIGKILL", "SIGSTOP"]), rng.randrange(len(COMMITS))) for name in ids}
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(publishers(name, sent, f"{lake}:{commits}"))
            for name, (sent, commits) in chosen.items()
        }
        running, paused = dict(started), list[str]()
        while running or paused:
            whole(query(lake, Storage(), PAIRS))
            if not running:  # whoever is paused wakes up behind all others, one after the other
                name = paused.pop(rng.randrange(len(paused)))
                running[name] = started[name]
                started[name].send_signal(signal.SIGCONT)
            for name, work in list(running.items()):
                if work.has_stopped():
                    paused.append(name)
                elif work.poll() is None:
                    continue
                del running[name]
    for name in ids:
        with suppress(ReplacedError):
            publish_night(lake, name)
            remove_replaced(lake, Storage(), name)
        whole(query(lake, Storage(), PAIRS))
    last = seen(lake)
    assert read_rows(lake, Storage(), "regions", ["run_id"])["run_id"].to_pylist() == [last] * 2
    states = read_rows(lake, Storage(), "runs", ["run_id", "state"]).to_pylist()
    assert {row["run_id"] for row in states if row["state"] == "published"} >= {"r0", last}


@pytest.mark.slow
@pytest.mark.parametrize("done", range(len(COMMITS)))
def test_killed_on_s3_after_any_commit(s3: Any, done: int, publishers: Publishers) -> None:
    killed_on_s3(s3, [done], publishers)


@SLOW_ON_S3
def test_a_run_that_publishes_between_the_look_at_the_fence_and_the_commit_wins(
    lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delta refuses the later commit: its snapshot of the table is older than what it would replace."""
    publish_night(lake.uri, "old", lake.storage)
    write, came_between = publication.write_deltalake, []

    def later(table: DeltaTable, *arguments: Any, **options: Any) -> None:
        if table.table_uri.rstrip("/").endswith("scores") and not came_between:
            came_between.append(1)
            publish_night(lake.uri, "quick", lake.storage)
        write(table, *arguments, **options)

    monkeypatch.setattr(publication, "write_deltalake", later)
    with pytest.raises(ReplacedError, match=r"run quick has published groups of run slow"):
        publish_night(lake.uri, "slow", lake.storage)
    assert seen(lake.uri, lake.storage) == "quick"
    assert read_rows(lake.uri, lake.storage, "regions", ["run_id"])["run_id"].to_pylist() == ["quick"] * 2


@pytest.mark.slow
def test_a_run_that_was_replaced_before_it_could_end_is_not_published_again(
    tmp_path: Path, publishers: Publishers
) -> None:
    lake = str(tmp_path / "lake")
    publish_night(lake, "old")
    with publishers("killed", "SIGKILL", f"{lake}:{PUBLICATION}") as work:
        work.wait()
    assert seen(lake) == "killed"
    publish_night(lake, "quick")
    with pytest.raises(ReplacedError, match=r"run quick has replaced what run killed had published"):
        publish_night(lake, "killed")
    assert seen(lake) == "quick"
    assert read_rows(lake, Storage(), "regions", ["run_id"])["run_id"].to_pylist() == ["quick"] * 2


@pytest.mark.slow
def test_a_run_that_never_published_may_replace_a_later_one_on_purpose(tmp_path: Path, publishers: Publishers) -> None:
    lake = str(tmp_path / "lake")
    publish_night(lake, "old")
    with publishers("slow", "SIGSTOP", f"{lake}:1") as work:
        work.wait_until_stopped()
        publish_night(lake, "quick")
        went_on(work)
    assert sorted({*read_rows(lake, Storage(), "regions", ["run_id"])["run_id"].to_pylist()}) == ["quick"]
    publish_night(lake, "slow")
    assert seen(lake) == "slow"


def test_what_was_replaced_in_part_is_not_written_again_and_the_rest_is_published(tmp_path: Path) -> None:
    lake, storage = str(tmp_path / "lake"), Storage()
    both = rows_of("both", [group(NIGHT, "x", "a", "b"), group(NIGHT, "y", "c")])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("patchead.lake.publication._Writer.refuse_if_replaced", _interrupt)
        publish(lake, storage, *both.tables)
    publish(lake, storage, *rows_of("again", [group(NIGHT, "y", "c")]).tables)
    assert publish(lake, storage, *both.tables)
    found = query(lake, storage, "SELECT image_id, run_id, state FROM latest JOIN runs USING (run_id) ORDER BY 1")
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("a", "both", "published"),
        ("b", "both", "published"),
        ("c", "again", "published"),
    ]


def _interrupt(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_latest_has_each_image_once_where_runs_with_other_groups_have_scored_it(tmp_path: Path) -> None:
    lake, storage = str(tmp_path / "lake"), Storage()
    publish(lake, storage, *rows_of("whole", [group(NIGHT, "x", "a", "b", "c")]).tables)
    finer = [group(NIGHT, "x", *names, group_id=f"night={NIGHT}/product=x/station={names[0]}") for names in ("a", "b")]
    publish(lake, storage, *rows_of("finer", finer).tables)
    assert len(query(lake, storage, "SELECT * FROM scores")) == 5
    found = query(lake, storage, "SELECT image_id, run_id FROM latest ORDER BY ALL").to_pylist()
    assert [row["image_id"] for row in found] == ["a", "b", "c"]


def test_the_views_of_one_night_open_no_files_of_other_nights(tmp_path: Path) -> None:
    lake, storage = str(tmp_path / "lake"), Storage()
    for day in range(4):
        night = NIGHT.replace(day=day + 1)
        publish(lake, storage, *rows_of(f"r{day}", [group(night, None if day % 2 else "x", f"{day}")]).tables)
    with connect(lake, storage) as connection:
        for view in ("regions", "verdicts", "latest"):
            where = f"FROM {view} WHERE night = DATE '{NIGHT.replace(day=1)}'"
            assert connection.execute(f"SELECT count(*) {where}").fetchone() == (1,)
            plan = connection.execute(f"EXPLAIN ANALYZE SELECT * {where}").fetchall()[0][1]
            scans = [line for line in plan.split("│") if "Scanning Files" in line]
            assert scans
            assert all("/4" not in line or "1/4" in line or "0/4" in line for line in scans), plan

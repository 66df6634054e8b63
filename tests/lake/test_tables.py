from __future__ import annotations

import datetime as dt
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from patchead.errors import LakeError, ValidationError
from patchead.files import Folder
from patchead.lake import preflight as preflight_module
from patchead.lake import publication, tables
from patchead.lake.preflight import preflight
from patchead.lake.publication import ReplacedError, publish, published
from patchead.lake.replaced_groups import groups_predicate
from patchead.lake.tables import delta_uri
from patchead.result_tables import OPTIONAL
from patchead.schema import OK, SCORES, TABLES, completed
from patchead.storage import Storage
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.lakes import SLOW_ON_S3
from tests.helpers.old_lakes import publish_as_version_1
from tests.helpers.polars_process import read_delta
from tests.helpers.sample_rows import AWKWARD, AWKWARD_TOO, NEXT_NIGHT, NIGHT, Rows, failed, group, rows_of


def publish_rows(lake: Any, rows: Rows) -> bool:
    return publish(lake.uri, lake.storage, *rows.tables)


def table_of(lake: Any, name: str) -> DeltaTable:
    uri = delta_uri(lake.uri, lake.storage, name)
    return DeltaTable(uri, storage_options=lake.storage.delta_options(uri))


def runs_of(lake: Any, name: str = "scores") -> dict[str, str]:
    """Which run each image's row is of; an image with two rows fails."""
    rows = table_of(lake, name).to_pyarrow_table(columns=["image_id", "run_id"]).to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows), rows
    return {row["image_id"]: row["run_id"] for row in rows}


def commits(lake: Any) -> dict[str, int]:
    """Commits of each table behind its creation."""
    return {name: table_of(lake, name).version() for name in TABLES}


def run_ids(lake: Any) -> list[str]:
    return sorted(set(table_of(lake, "runs").to_pyarrow_table()["run_id"].to_pylist()))


def test_a_run_is_published_once_in_one_commit_of_scores(lake: Any) -> None:
    assert not published(lake.uri, lake.storage, "r1")
    rows = rows_of("r1", [group(NIGHT, "x", "a", "b"), group(NIGHT, AWKWARD, "c"), failed(NIGHT, "x", "d")])
    assert publish_rows(lake, rows)
    # A row of runs says that it is being published, another one that it is; nothing was replaced, nothing removed.
    first = {"scores": 1, "regions": 1, "verdicts": 1, "runs": 2}
    assert commits(lake) == first
    assert published(lake.uri, lake.storage, "r1")
    assert not published(lake.uri, lake.storage, "r2")
    assert table_of(lake, "scores").history(1)[0]["run_id"] == "r1"
    assert not publish_rows(lake, rows)
    assert commits(lake) == first
    found = completed(table_of(lake, "scores").to_pyarrow_table().sort_by("image_id"), SCORES)
    assert found.equals(rows.scores.sort_by("image_id"))


def test_a_new_run_replaces_exactly_its_groups(lake: Any) -> None:
    first = [group(NIGHT, AWKWARD, "a1", "a2"), group(NIGHT, AWKWARD_TOO, "b"), group(NEXT_NIGHT, AWKWARD, "c")]
    publish_rows(lake, rows_of("r1", [*first, failed(NIGHT, AWKWARD, "bad"), failed(NIGHT, None, "lost")]))
    publish_rows(lake, rows_of("r2", [group(NIGHT, AWKWARD, "a2", "a3")]))
    assert runs_of(lake) == {"a2": "r2", "a3": "r2", "b": "r1", "c": "r1", "lost": "r1"}
    assert runs_of(lake, "regions") == {"a2": "r2", "a3": "r2", "b": "r1", "c": "r1"}
    publish_rows(lake, rows_of("r3", [group(NIGHT, AWKWARD_TOO, "b"), group(NEXT_NIGHT, AWKWARD, "c")]))
    assert runs_of(lake) == {"a2": "r2", "a3": "r2", "b": "r3", "c": "r3", "lost": "r1"}
    # The second and the third have removed what they replaced.
    assert commits(lake) == {"scores": 3, "regions": 5, "verdicts": 5, "runs": 6}
    assert run_ids(lake) == ["r1", "r2", "r3"]


@SLOW_ON_S3
def test_a_night_without_regions_loses_its_earlier_ones(lake: Any) -> None:
    publish_rows(lake, rows_of("r1", [group(NIGHT, "x", "a", "b"), group(NEXT_NIGHT, "x", "c")]))
    publish_rows(lake, rows_of("r2", [group(NIGHT, "x", "a", "b")], regions=False))
    assert runs_of(lake, "regions") == {"c": "r1"}
    assert runs_of(lake) == {"a": "r2", "b": "r2", "c": "r1"}


@SLOW_ON_S3
def test_rows_with_unknown_keys_are_published_and_replaced(lake: Any) -> None:
    lost = [failed(None, None, "n1", "n2"), failed(NIGHT, None, "m"), failed(None, "x", "o"), failed(NIGHT, "", "e")]
    publish_rows(lake, rows_of("r1", [*lost, group(NIGHT, "x", "a"), failed(NEXT_NIGHT, None, "k")]))
    assert set(runs_of(lake).values()) == {"r1"}
    publish_rows(lake, rows_of("r2", [failed(None, None, "n1"), failed(NIGHT, None, "m", "e")]))
    assert runs_of(lake) == {"n1": "r2", "m": "r2", "e": "r2", "o": "r1", "a": "r1", "k": "r1"}
    rows = {row["image_id"]: row for row in table_of(lake, "scores").to_pyarrow_table().to_pylist()}
    assert (rows["n1"]["night"], rows["n1"]["product"]) == (None, None)
    assert (rows["e"]["night"], rows["e"]["product"]) == (NIGHT, None)
    assert (rows["o"]["night"], rows["o"]["product"]) == (None, "x")


@SLOW_ON_S3
def test_finer_groups_of_one_night_and_product_are_replaced_one_by_one(lake: Any) -> None:
    def station(number: str, *images: str) -> list[dict[str, Any]]:
        name = f"night={NIGHT}/product={AWKWARD}/station={number}"
        return group(NIGHT, AWKWARD, *images, group_id=name)

    unnamed = group(NIGHT, AWKWARD, "u", group_id=None)
    publish_rows(lake, rows_of("r1", [station("1", "a"), station("10", "b"), station("o'2", "c"), unnamed]))
    publish_rows(lake, rows_of("r2", [station("1", "a"), station("o'2", "c2")]))
    assert runs_of(lake) == {"a": "r2", "b": "r1", "c2": "r2", "u": "r1"}
    assert runs_of(lake, "regions") == {"a": "r2", "b": "r1", "c2": "r2", "u": "r1"}
    publish_rows(lake, rows_of("r3", [group(NIGHT, AWKWARD, "a", "d")]))
    assert runs_of(lake) == {"a": "r3", "d": "r3"}, (
        "a group of the whole night and product takes the place of its parts"
    )


def test_a_publish_that_dies_before_runs_is_completed(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_rows(lake, rows_of("r1", [group(NIGHT, "x", "a", "b")]))
    rows, write = rows_of("r2", [group(NIGHT, "x", "a", "b")]), publication.write_deltalake
    for stop_at, there in (("scores", "r1"), ("runs", "r1")):

        def dies(table: DeltaTable, *args: Any, stop_at: str = stop_at, **options: Any) -> None:
            if table.table_uri.rstrip("/").endswith(stop_at):
                raise KeyboardInterrupt
            write(table, *args, **options)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(publication, "write_deltalake", dies)
            publish_rows(lake, rows)
        assert not published(lake.uri, lake.storage, "r2")
        assert set(runs_of(lake).values()) == {there}
    assert publish_rows(lake, rows)
    assert runs_of(lake) == {"a": "r2", "b": "r2"} == runs_of(lake, "regions")
    assert run_ids(lake) == ["r1", "r2"]


def test_invalid_rows_touch_nothing(local: Any) -> None:
    good = rows_of("r1", [group(NIGHT, "x", "a", "b")])
    with pytest.raises(ValidationError, match="no row: 'a'"):
        publish_rows(local, good.changed(scores=good.scores.slice(1)))
    assert not Path(local.uri).exists()


def test_an_empty_run_is_published_and_changes_no_group(local: Any) -> None:
    publish_rows(local, rows_of("r1", [group(NIGHT, "x", "a")]))
    publish_rows(local, rows_of("r2", []))
    assert runs_of(local) == {"a": "r1"}
    assert published(local.uri, local.storage, "r2")


def test_publishers_of_different_nights_both_succeed(lake: Any) -> None:
    nights = [NIGHT + dt.timedelta(days) for days in range(4)]

    def one(night: dt.date) -> None:
        assert publish_rows(lake, rows_of(f"r-{night}", [group(night, AWKWARD, f"{night}/{i}") for i in range(3)]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, nights))
    assert run_ids(lake) == [f"r-{night}" for night in nights]
    assert (
        runs_of(lake)
        == {f"{night}/{i}": f"r-{night}" for night in nights for i in range(3)}
        == runs_of(lake, "regions")
    )


def test_of_publishers_of_one_night_at_once_each_wins_or_says_who_did(local: Any) -> None:
    def one(run_id: str) -> str:
        try:
            publish_rows(local, rows_of(run_id, [group(NIGHT, "x", "a", "b"), group(NEXT_NIGHT, "x", "c")]))
        except ReplacedError as exc:
            return str(exc)
        return ""

    ids = ["r1", "r2", "r3"]
    with ThreadPoolExecutor(3) as pool:
        said = dict(zip(ids, pool.map(one, ids), strict=True))
    published_ones = [run_id for run_id in ids if not said[run_id]]
    (last,) = set(runs_of(local).values())
    assert last in published_ones
    assert set(runs_of(local, "regions").values()) == {last}
    assert all(f"of run {run_id}" in said[run_id] for run_id in ids if run_id not in published_ones)
    states = {row["run_id"]: row["state"] for row in table_of(local, "runs").to_pyarrow_table().to_pylist()}
    assert states == {run_id: "published" if run_id in published_ones else "publishing" for run_id in ids}


@pytest.mark.slow
def test_readers_never_see_half_a_night(local: Any) -> None:
    images = [f"{i:03}" for i in range(50)]
    publish_rows(local, rows_of("r0", [group(NIGHT, "x", *images)]))
    seen, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(runs_of(local))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for number in range(1, 6):
            publish_rows(local, rows_of(f"r{number}", [group(NIGHT, "x", *images)]))
            reads = len(seen)
            while len(seen) < reads + 2 and not reader.done():
                time.sleep(0.005)
        stop.set()
        reader.result()
    assert {len(rows) for rows in seen} == {50}
    assert {len(set(rows.values())) for rows in seen} == {1}
    assert {f"r{number}" for number in range(1, 6)} <= {run for rows in seen for run in rows.values()}
    assert commits(local)["scores"] == 6


def test_a_table_that_is_always_taken_is_given_up(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []

    def refuses(*_args: Any, **_options: Any) -> None:
        raise CommitFailedError("a concurrent transaction\n added data")

    monkeypatch.setattr(publication, "write_deltalake", refuses)
    monkeypatch.setattr(tables.time, "sleep", tried.append)
    with pytest.raises(LakeError, match=r"other writers were quicker 10 times .a concurrent transaction added data"):
        publish_rows(local, rows_of("r1", [group(NIGHT, "x", "a")]))
    assert len(tried) == 10
    assert max(tried) <= 5


def scores_in(pairs: Sequence[tuple[dt.date | None, str | None, str | None]]) -> pa.Table:
    return rows_of("r", [group(n, p, f"{i}", group_id=g) for i, (n, p, g) in enumerate(pairs)]).scores


def test_predicates_name_what_is_replaced() -> None:
    nights = [NIGHT + dt.timedelta(days) for days in range(3)]
    whole = groups_predicate(scores_in([(n, p, f"night={n}/product={p}") for n in nights for p in ("x", "o'y")]))
    assert whole == (
        "(night IN (DATE '2026-11-20', DATE '2026-11-21', DATE '2026-11-22') AND product IN ('o''y', 'x'))"
    )
    quoted = groups_predicate(scores_in([(NIGHT, "a/b", f"product=a%2Fb/night={NIGHT}")]))
    assert quoted == "(night IN (DATE '2026-11-20') AND product IN ('a/b'))"
    finer = groups_predicate(scores_in([(NIGHT, "x", "s=1"), (NEXT_NIGHT, None, "s=2")]))
    assert finer == (
        "(night IN (DATE '2026-11-20', DATE '2026-11-21') AND (product IN ('x') OR product IS NULL)"
        " AND group_id IN ('s=1', 's=2'))"
    )
    nameless = groups_predicate(scores_in([(None, None, None), (NIGHT, None, None)]))
    assert nameless == "((night IN (DATE '2026-11-20') OR night IS NULL) AND product IS NULL AND group_id IS NULL)"
    assert groups_predicate(SCORES.empty_table()) == ""


@pytest.mark.slow
def test_many_nights_are_published_at_once(local: Any) -> None:
    nights = [NIGHT + dt.timedelta(days) for days in range(120)]
    entries = [group(n, f"product {i % 7}", f"{n}") for i, n in enumerate(nights)]
    publish_rows(local, rows_of("r1", entries))
    publish_rows(local, rows_of("r2", entries))
    assert set(runs_of(local).values()) == {"r2"}
    assert commits(local)["scores"] == 2


@SLOW_ON_S3
def test_polars_reads_the_table(lake: Any, tmp_path: Path) -> None:
    entries = [group(NIGHT, AWKWARD, "a", "b"), group(NEXT_NIGHT, AWKWARD_TOO, "c"), failed(None, None, "d")]
    publish_rows(lake, rows_of("r1", entries))
    uri = delta_uri(lake.uri, lake.storage, "scores")
    options = lake.storage.delta_options(uri)
    found = read_delta(tmp_path, uri, options).sort_by("image_id")
    assert found["image_id"].to_pylist() == ["a", "b", "c", "d"]
    assert found["product"].to_pylist() == [AWKWARD, AWKWARD, AWKWARD_TOO, None]
    assert found["night"].to_pylist() == [NIGHT, NIGHT, NEXT_NIGHT, None]
    assert len(read_delta(tmp_path, uri, options, product=AWKWARD, status=OK)) == 2


def test_s3_is_found_by_the_environment_alone(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    uri, rows = s3.bucket(), rows_of("r1", [group(NIGHT, "x", "a")])
    preflight(uri, Storage())
    publish(uri, Storage(), *rows.tables)
    assert published(uri, Storage(), "r1")
    assert published(uri.replace("s3://", "s3a://"), Storage(), "r1")


def test_a_writable_lake_passes_and_nothing_stays(lake: Any) -> None:
    preflight(lake.uri, lake.storage)
    assert Folder(lake.uri, lake.storage).names("") == []


def test_wrong_keys_are_refused(s3: Any, use_keys: Any) -> None:
    uri, rows = s3.bucket(), rows_of("r1", [group(NIGHT, "x", "a")])
    arguments = (uri, s3.storage, *rows.tables)
    publish(*arguments)
    for keys in ((s3.access_key, "wrong"), ("nobody", "wrong")):
        use_keys(*keys)
        for attempt in (lambda: preflight(uri, s3.storage), lambda: published(uri, s3.storage, "r1")):
            with pytest.raises(LakeError, match=r"s3://.*AWS_SECRET_ACCESS_KEY") as caught:
                attempt()
            assert "\n" not in str(caught.value)
            assert "\x1b" not in str(caught.value)
    use_keys(s3.reader_key, s3.reader_secret)
    assert published(uri, s3.storage, "r1")
    with pytest.raises(LakeError, match=r"cannot write .*access denied"):
        preflight(uri, s3.storage)
    rows = rows_of("r2", [group(NIGHT, "x", "a")])
    with pytest.raises(LakeError, match=r"cannot publish to .*lacked the necessary privileges"):
        publish(uri, s3.storage, *rows.tables)


def test_a_lake_that_cannot_be_written_is_refused(tmp_path: Path, s3: Any) -> None:
    (tmp_path / "file").write_text("")
    for uri, why in (
        (str(tmp_path / "file" / "lake"), "cannot write .*file/lake"),
        ("s3://there-is-no-such-bucket/lake", "cannot write s3://there-is-no-such-bucket.*(not exist|NoSuchBucket)"),
        (str(tmp_path / "a%20b"), "lake.uri must be an address without '%'"),
        ("s3://bucket/lake#1", "lake.uri must be an address without '%'"),
    ):
        with pytest.raises(LakeError, match=why):
            preflight(uri, s3.storage)


def test_a_store_that_ignores_conditions_is_refused_before_any_work(s3: Any) -> None:
    with FaultyProxy(s3.endpoint, lambda method, path: "unconditional" if method == "PUT" else None) as proxy:
        uri, storage = f"{s3.bucket()}/lake", proxy.storage(s3.storage)
        with pytest.raises(LakeError, match=r"does not honour conditional writes.*`If-None-Match: \*`.*lake\.uri"):
            preflight(uri, storage)
        assert proxy.seen["unconditional"] == 2
        assert Folder(uri, s3.storage).names("") == []
        # What it is for: on such a store the second of two writers that both saw no file replaces the first one's.
        filesystem, path = storage.filesystem(f"{uri}/commit")
        for writer in (b"first", b"second"):
            filesystem.pipe_file(path, writer, mode="create")
        assert filesystem.cat_file(path) == b"second"
    filesystem, path = s3.storage.filesystem(f"{uri}/commit")
    with pytest.raises(OSError, match="condition"):
        filesystem.pipe_file(path, b"third", mode="create")


@pytest.mark.parametrize("answer", ["501", "503"])
def test_a_store_that_refuses_every_condition_is_told_from_one_that_fails(
    s3: Any, answer: str, pauses: list[float]
) -> None:
    asked: list[str] = []

    def rule(method: str, path: str) -> str | None:
        asked.append(method)
        return answer if asked.count("PUT") > 1 and method == "PUT" else None

    why = "does not honour conditional writes" if answer == "501" else "cannot write .*SlowDown|cannot write .*reduce"
    with FaultyProxy(s3.endpoint, rule) as proxy, pytest.raises(LakeError, match=why):
        preflight(f"{s3.bucket()}/lake", proxy.storage(s3.storage))


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_endpoint_that_does_not_answer_is_given_up_in_time(
    s3: Any, silent_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "_PREFLIGHT_SECONDS", 0.1)
    with pytest.raises(LakeError, match=rf"no answer within 0\.1 s.*{silent_endpoint}"):
        preflight("s3://bucket/lake", Storage(endpoint_url=silent_endpoint))


def test_an_endpoint_that_refuses_is_told_in_time(s3_keys: Any, pauses: list[float]) -> None:
    with pytest.raises(LakeError, match="cannot write s3://bucket/lake"):
        preflight("s3://bucket/lake", Storage(endpoint_url="http://127.0.0.1:9"))
    assert sum(pauses) < 15


@SLOW_ON_S3
def test_a_lake_of_schema_version_1_gets_the_columns_that_it_lacks(lake: Any) -> None:
    old = rows_of("r1", [group(NIGHT, "x", "a", "b"), group(NEXT_NIGHT, "x", "c")])
    publish_as_version_1(lake, old)
    new = rows_of("r2", [group(NIGHT, "x", "a", "b")])
    assert publish_rows(lake, new)
    assert not publish_rows(lake, old)  # known, though an earlier version wrote it
    assert runs_of(lake) == {"a": "r2", "b": "r2", "c": "r1"} == runs_of(lake, "regions")
    scores = {row["image_id"]: row for row in table_of(lake, "scores").to_pyarrow_table().to_pylist()}
    assert (scores["a"]["verdict_rule"], scores["a"]["threshold_score"]) == ("mad", 0.5)
    assert (scores["c"]["verdict_rule"], scores["c"]["threshold_score"], scores["c"]["score"]) == (None, None, 0.25)
    (verdict,) = table_of(lake, "verdicts").to_pyarrow_table().to_pylist()
    assert (verdict["run_id"], verdict["night"], verdict["scored"]) == ("r2", NIGHT, 2)
    assert (scores["c"]["lane"], scores["c"]["path"]) == ("main", "/archive/c")  # an archive that no run tells
    assert {*SCORES.names} - OPTIONAL <= {*table_of(lake, "scores").to_pyarrow_table().column_names}

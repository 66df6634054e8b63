from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import pytest
from duckdb_extensions import import_extension

from patchead.errors import LakeError
from patchead.lake.publication import publish
from patchead.lake.query import connect, query
from patchead.lake.tables import delta_uri, open_table
from patchead.lake.views import ADDRESSES
from patchead.result_tables import OPTIONAL
from patchead.schema import TABLES
from patchead.storage import Storage
from tests.helpers.lakes import SLOW_ON_S3
from tests.helpers.old_lakes import publish_as_version_1
from tests.helpers.sample_rows import AWKWARD, AWKWARD_TOO, NEXT_NIGHT, NIGHT, Rows, failed, group, rows_of


def publish_rows(lake: Any, rows: Rows) -> None:
    publish(lake.uri, lake.storage, *rows.tables)


@pytest.mark.parametrize("lake", ["local", "s3"], indirect=True)
def test_the_three_views_join(lake: Any) -> None:
    entries = [
        group(NIGHT, AWKWARD, "a", "b", score=0.45),
        group(NEXT_NIGHT, AWKWARD_TOO, "c"),
        failed(None, None, "d"),
    ]
    publish_rows(lake, rows_of("r1", entries))
    found = query(
        lake.uri,
        lake.storage,
        "SELECT image_id, scores.night, scores.product, score, x, state FROM scores "
        "LEFT JOIN regions USING (run_id, image_id) JOIN (SELECT DISTINCT run_id, state FROM runs) USING (run_id) "
        "ORDER BY image_id",
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("a", NIGHT, AWKWARD, 0.45, 1, "published"),
        ("b", NIGHT, AWKWARD, 0.45, 1, "published"),
        ("c", NEXT_NIGHT, AWKWARD_TOO, 0.25, 1, "published"),
        ("d", None, None, None, None, "published"),
    ]
    by_product = "SELECT image_id FROM scores WHERE product = '{}' AND night = DATE '2026-11-20' ORDER BY image_id"
    partition = query(lake.uri, lake.storage, by_product.format(AWKWARD.replace("'", "''")))
    assert partition["image_id"].to_pylist() == ["a", "b"]


def test_an_open_connection_sees_the_next_publication(lake: Any) -> None:
    publish_rows(lake, rows_of("r1", [group(NIGHT, "x", "a")]))
    with connect(lake.uri, lake.storage) as connection:
        count = "SELECT count(*), count(DISTINCT run_id), any_value(run_id) FROM scores"
        assert connection.execute(count).fetchone() == (1, 1, "r1")
        publish_rows(lake, rows_of("r2", [group(NIGHT, "x", "a", "b")]))
        assert connection.execute(count).fetchone() == (2, 1, "r2")


def test_tables_without_rows_can_be_asked(local: Any) -> None:
    publish_rows(local, rows_of("r1", []))
    found = query(local.uri, local.storage, "SELECT run_id, (SELECT count(*) FROM scores) AS scores FROM runs")
    assert found.to_pylist() == [{"run_id": "r1", "scores": 0}]


def test_a_folder_with_awkward_characters(tmp_path: Any, s3: Any) -> None:
    name = "o'brien's lake ü=1"
    for uri, storage in ((f"{tmp_path}/{name}", Storage()), (f"{s3.bucket()}/{name}", s3.storage)):
        rows = rows_of("r1", [group(NIGHT, AWKWARD, "a")])
        publish(uri, storage, *rows.tables)
        assert query(uri, storage, "SELECT product FROM scores")["product"].to_pylist() == [AWKWARD]


def test_a_relative_lake(local: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_rows(local, rows_of("r1", [group(NIGHT, "x", "a")]))
    monkeypatch.chdir(tmp_path)
    assert query("lake", Storage(), "SELECT image_id FROM scores")["image_id"].to_pylist() == ["a"]


def test_duckdb_reads_s3_natively_without_this_package(s3: Any) -> None:
    uri = s3.bucket()
    rows = rows_of("r1", [group(NIGHT, AWKWARD, "a", "b"), failed(None, None, "d")])
    publish(uri, s3.storage, *rows.tables)
    with duckdb.connect() as connection:
        for name in ("httpfs", "delta"):
            import_extension(name, con=connection)
            connection.load_extension(name)
        connection.execute(
            "CREATE SECRET (TYPE s3, key_id $key, secret $secret, endpoint $host, url_style 'path', use_ssl false)",
            {"key": s3.access_key, "secret": s3.secret_key, "host": s3.endpoint.removeprefix("http://")},
        )
        table = delta_uri(uri, s3.storage, "scores")
        found = connection.execute(f"SELECT image_id, product FROM delta_scan('{table}') ORDER BY image_id").fetchall()
    assert found == [("a", AWKWARD), ("b", AWKWARD), ("d", None)]


def test_a_lake_without_tables_is_told(lake: Any) -> None:
    with pytest.raises(LakeError, match=r"no table scores in .*nothing is published there yet"):
        query(lake.uri, lake.storage, "SELECT 1")


def test_a_wrong_query_is_told(local: Any) -> None:
    publish_rows(local, rows_of("r1", [group(NIGHT, "x", "a")]))
    for sql, why in (("SELECT scoer FROM scores", "scoer"), ("SELEC 1", "syntax error")):
        with pytest.raises(LakeError, match=rf"(?s)the query failed: .*{why}"):
            query(local.uri, local.storage, sql)


def test_wrong_keys_are_refused_and_never_quoted(s3: Any, use_keys: Any) -> None:
    uri = s3.bucket()
    rows = rows_of("r1", [group(NIGHT, "x", "a")])
    publish(uri, s3.storage, *rows.tables)
    use_keys(s3.access_key, "not-the-secret")
    with pytest.raises(LakeError, match=r"cannot read s3://.*AWS_SECRET_ACCESS_KEY") as caught:
        query(uri, s3.storage, "SELECT 1")
    assert "not-the-secret" not in str(caught.value)
    use_keys(s3.reader_key, s3.reader_secret)
    with connect(uri, s3.storage) as connection:
        assert connection.execute("SELECT image_id FROM scores").fetchall() == [("a",)]
        assert s3.reader_secret not in str(connection.execute("FROM duckdb_secrets()").fetchall())


def test_missing_keys_are_told(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    uri = s3.bucket()
    rows = rows_of("r1", [group(NIGHT, "x", "a")])
    publish(uri, s3.storage, *rows.tables)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(LakeError, match="AWS_ACCESS_KEY_ID"):
        query(uri, s3.storage, "SELECT 1")


@pytest.mark.parametrize("module", ["duckdb", "duckdb_extension_delta"])
def test_without_duckdb_the_extra_is_named(local: Any, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LakeError, match=r"pip install 'patchead\[query\]'"):
        connect(local.uri, local.storage)


def test_a_statement_cannot_load_what_nobody_signed(local: Any, tmp_path: Path) -> None:
    publish_rows(local, rows_of("r1", [group(NIGHT, "x", "a")]))
    delta = Path(import_module("duckdb_extension_delta").__path__[0]) / f"extensions/v{duckdb.__version__}"
    changed = bytearray((delta / "delta.duckdb_extension").read_bytes())
    changed[1_000_000] ^= 1
    (tmp_path / "another.duckdb_extension").write_bytes(changed)
    with pytest.raises(LakeError, match="signature"):
        query(local.uri, local.storage, f"LOAD '{tmp_path}/another.duckdb_extension'")
    with pytest.raises(LakeError, match="allow_unsigned_extensions"):
        query(local.uri, local.storage, "SET allow_unsigned_extensions = true")


@SLOW_ON_S3
def test_a_lake_of_schema_version_1_has_every_view_and_column(lake: Any) -> None:
    publish_as_version_1(lake, rows_of("r1", [group(NIGHT, "x", "a")]))
    asked = "SELECT image_id, score, scores.verdict_rule, scores.threshold_score, scale FROM scores "
    found = query(lake.uri, lake.storage, asked + "LEFT JOIN verdicts USING (run_id, group_id)")
    (row,) = found.to_pylist()
    assert tuple(row.values()) == ("a", 0.25, None, None, None)
    for name, schema in TABLES.items():
        columns = query(lake.uri, lake.storage, f"SELECT * FROM {name}").column_names
        assert sorted(columns) == sorted([*schema.names, *(ADDRESSES if name == "scores" else ())]), name
    publish_rows(lake, rows_of("r2", [group(NIGHT, "x", "a")]))
    assert query(lake.uri, lake.storage, "SELECT verdict_rule FROM scores").to_pylist() == [{"verdict_rule": "mad"}]
    assert query(lake.uri, lake.storage, "SELECT run_id FROM verdicts").to_pylist() == [{"run_id": "r2"}]


@SLOW_ON_S3
def test_two_lanes_stand_side_by_side_and_the_views_show_one(lake: Any) -> None:
    publish_rows(lake, rows_of("r1", [group(NIGHT, "x", "a", "b"), failed(NIGHT, "x", "f")]))
    publish_rows(lake, rows_of("r2", [group(NIGHT, "x", "a", "b", score=0.45)], lane="other"))
    publish_rows(lake, rows_of("r3", [group(NIGHT, "x", "a", "c")]))  # replaces r1 alone
    both = query(lake.uri, lake.storage, "SELECT lane, image_id, run_id FROM scores ORDER BY ALL").to_pylist()
    assert [tuple(row.values()) for row in both] == [
        ("main", "a", "r3"), ("main", "c", "r3"), ("other", "a", "r2"), ("other", "b", "r2"),
    ]  # fmt: skip
    for name in ("regions", "verdicts"):
        assert set(query(lake.uri, lake.storage, f"SELECT run_id FROM {name}")["run_id"].to_pylist()) == {"r2", "r3"}
    shown = {lane: query(lake.uri, lake.storage, "FROM worst ORDER BY image_id", lane) for lane in ("main", "other")}
    assert [shown[lane]["image_id"].to_pylist() for lane in shown] == [["a", "c"], ["a", "b"]]
    assert query(lake.uri, lake.storage, "FROM drift", "other")["scored"].to_pylist() == [2]


def test_a_column_that_says_nothing_is_not_there_until_it_does(lake: Any) -> None:
    publish_rows(lake, rows_of("r1", [group(NIGHT, "x", "a")]))
    assert not OPTIONAL & {field.name for field in open_columns(lake)}
    publish_rows(lake, rows_of("r2", [group(NEXT_NIGHT, "x", "b", member="m")]))
    assert OPTIONAL & {field.name for field in open_columns(lake)} == {"member"}
    publish_rows(lake, rows_of("r3", [group(NEXT_NIGHT, "y", "c")]))
    found = query(lake.uri, lake.storage, "SELECT member, p_value FROM latest ORDER BY image_id").to_pylist()
    assert found == [{"member": member, "p_value": None} for member in (None, "m", None)]


def open_columns(lake: Any) -> Any:
    table = open_table(lake.uri, lake.storage, "scores")
    assert table is not None
    return table.schema().fields

"""`patchead query`: its views, its forms, and every statement of docs/sql.md."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sql_page import PAGE, answered, statements

from patchead.errors import SettingsError
from patchead.lake.query import query
from patchead.lake.sql_setup import ENGINES, sql_setup
from patchead.nightly.run_record import RunRecord
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import ROOT, good_images, png, rows, spoiled, table, write_group

NIGHTS = ("2026-11-20", "2026-11-21")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, score_night: Callable[..., RunRecord]) -> str:
    """Two nights of two products: a defect in each group, a damaged file, one night scored twice, a label."""
    root = tmp_path_factory.mktemp("sql")
    for night in NIGHTS:
        for seed, product in enumerate(("nut", "screw")):
            images = {**good_images(8, 100 * seed), "bad.png": png(spoiled(7)), "torn.png": b"no image"}
            write_group(root / "archive", night, product, images)
    for run_id, night in (("r1", NIGHTS[0]), ("r2", NIGHTS[1]), ("r3", NIGHTS[1])):
        settings = {"archive.night": night, "run.run_id": run_id, "run.max_failed_fraction": 0.5}
        score_night(root / "archive", root / "lake", **settings)
    labels = root / "labels.csv"
    labels.write_text(f"image_id,verdict\nnight={NIGHTS[1]}/product=nut/bad.png,defect\n")
    assert patchead("feedback", str(labels), "--lake", str(root / "lake")).code == 0
    return str(root / "lake")


@pytest.mark.parametrize("number", range(len(statements(PAGE.read_text(encoding="utf-8")))))
def test_a_statement_of_the_page_answers(lake: str, number: int) -> None:
    sql = statements(PAGE.read_text(encoding="utf-8"))[number]
    found = query(lake, Storage(), sql)
    assert found.num_columns >= 1
    question = PAGE.read_text(encoding="utf-8").split(sql)[0].rsplit("## ", 1)[-1]
    if "Are there nights without" not in question and "another setting" not in question:
        assert found.num_rows > 0


def test_the_page_has_fourteen_questions_and_an_answer_to_each() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(statements(page)) >= 14
    assert len(re.findall(r"```sql\n.*?```\n\n```text\n", page, re.DOTALL)) == len(statements(page))
    assert "/tmp/" not in page


@pytest.mark.slow
def test_the_page_is_written_for_another_lake(lake: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    once = answered(page, lake)  # over the answers of the demo
    assert statements(once) == statements(page)
    assert "bad.png" in once
    assert once.count("```text") == page.count("```text")


def test_the_worst_come_first_and_failed_are_told(lake: str) -> None:
    worst = query(lake, Storage(), "FROM worst").to_pylist()
    assert [row["image_id"].rpartition("/")[2] for row in worst[:2]] == ["bad.png"] * 2
    assert [str(row["night"]) for row in worst] == [NIGHTS[1]] * 18 + [NIGHTS[0]] * 18  # once, although scored twice
    failed = query(lake, Storage(), "FROM failed").to_pylist()
    assert [(row["status"], row["image_id"].rpartition("/")[2]) for row in failed] == [("failed", "torn.png")] * 4
    assert all(row["error"] for row in failed)


def test_drift_is_from_the_night_before(lake: str) -> None:
    found = query(lake, Storage(), "FROM drift").to_pylist()
    assert [(row["product"], str(row["night"])) for row in found] == [
        (product, night) for product in ("nut", "screw") for night in NIGHTS
    ]
    for before, after in (found[:2], found[2:]):
        assert before["median_change"] is None and before["other_encoder"] is False
        assert after["median_change"] == pytest.approx(after["median"] - before["median"])
        assert after["change_in_scales"] == pytest.approx(after["median_change"] / before["scale"])


@pytest.mark.slow
def test_every_form_holds_the_rows(lake: str) -> None:
    sql = (
        "SELECT night, product, image_id, score, is_anomalous, [night] AS nights FROM latest "
        "JOIN runs USING (run_id, night) ORDER BY ALL"
    )
    expected = query(lake, Storage(), sql).to_pylist()

    def written(form: str) -> str:
        done = patchead("query", sql, "--lake", lake, "--format", form)
        assert done.code == 0, done.err
        return done.out

    lines = list(csv.DictReader(io.StringIO(written("csv"))))
    assert [line["image_id"] for line in lines] == [row["image_id"] for row in expected]
    assert [line["score"] for line in lines] == ["" if row["score"] is None else str(row["score"]) for row in expected]
    assert json.loads(lines[0]["nights"]) == [str(night) for night in expected[0]["nights"]]
    objects = json.loads(written("json"))
    assert [one["score"] for one in objects] == [row["score"] for row in expected]
    assert objects[0]["night"] == NIGHTS[0]
    assert len(written("markdown").splitlines()) == len(expected) + 2
    code = f"import sys; from patchead.cli import main; sys.argv = {['patchead', 'query', sql, '--lake', lake]!r} + "
    command = [sys.executable, "-c", f"{code}['--format', 'parquet']; main()"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert pq.read_table(io.BytesIO(data)).to_pylist() == expected


def test_wide_rows_are_blocks_of_lines_and_nothing_is_wider_than_the_terminal(lake: str) -> None:
    done = patchead("query", "FROM worst LIMIT 2", "--lake", lake, env={"COLUMNS": "80"})
    assert "-- row 2 of 2" in done.out
    narrow = patchead("query", "SELECT image_id FROM worst LIMIT 2", "--lake", lake)
    assert "-- row" not in narrow.out


def test_statements_of_a_file_and_several_at_once(lake: str, tmp_path: Path) -> None:
    file = tmp_path / "morning.sql"
    file.write_text(
        "CREATE TEMP TABLE bad AS FROM worst WHERE is_anomalous;\nSELECT count(*) AS many FROM bad; -- ; no\n"
    )
    done = patchead("query", "--file", str(file), "--lake", lake)
    many = sum(row["is_anomalous"] is True for row in rows(lake))
    assert many > 1
    assert (done.code, "many" in done.out, f" {many} " in done.out) == (0, True, True)
    for arguments, told in (
        ([], "got neither"),
        (["SELECT 1", "--file", str(file)], "got both"),
        (["--file", str(tmp_path / "none.sql")], "none.sql cannot be read"),
        (["SELECT 1; SELECT 2", "--format", "csv"], "--format csv is of one statement; got 2"),
        (["SELECT 1", "--format", "xml"], "'xml' is not one of"),
    ):
        refused = patchead("query", *arguments, "--lake", lake)
        assert (refused.code, told in refused.err) == (2, True), refused.err


def test_lists_times_and_intervals_are_readable(lake: str) -> None:
    sql = (
        "SELECT [DATE '2026-11-20'] AS days, INTERVAL 90 SECOND + INTERVAL 1 DAY AS took, INTERVAL 14 MONTH AS long, "
        "'x'::BLOB AS bytes, {'a': 1} AS made, 'nan'::DOUBLE AS none, 1.5::DECIMAL(4, 2) AS price, true AS yes"
    )
    done = patchead("query", sql, "--lake", lake, "--format", "json")
    (row,) = json.loads(done.out)
    expected = {"days": ["2026-11-20"], "took": "1 day, 0:01:30", "long": "14 months 0:00:00", "bytes": "eA=="}
    assert row == {**expected, "made": {"a": 1}, "none": None, "price": "1.50", "yes": True}
    shown = patchead("query", sql, "--lake", lake).out
    assert "1 day, 0:01:30" in shown and '["2026-11-20"]' in shown


def test_station_member_and_part_are_in_the_scores(tmp_path: Path, score_night: Callable[..., RunRecord]) -> None:
    folder = tmp_path / "archive/night=2026-11-21/product=nut/station=3"
    folder.mkdir(parents=True)
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for number, (name, data) in enumerate(good_images(6).items()):
            note = json.dumps({"line": f"L{number % 2}", "serial": f"p{number}", "unasked": 1}).encode()
            for member, content in ((name, data), (name.replace(".png", ".json"), note)):
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    (folder / "s.tar").write_bytes(sink.getvalue())
    settings = {"archive.keys": ["line"], "archive.part_id_column": "serial"}
    score_night(tmp_path / "archive", tmp_path / "lake", **settings)
    sql = """
        SELECT json_extract_string(keys_json, '$.line') AS line, json_extract_string(keys_json, '$.station') AS station,
        count(*) AS n, min(member) AS first, min(part_id) AS part, json_keys(keys_json) AS keys
        FROM latest GROUP BY ALL ORDER BY line
    """
    expected = {"station": "3", "n": 3, "keys": ["line", "station"]}
    assert query(str(tmp_path / "lake"), Storage(), sql).to_pylist() == [
        {"line": f"L{number}", "first": f"good00{number}.png", "part": f"p{number}", **expected} for number in range(2)
    ]


def test_no_column_of_a_night_is_null_in_every_row_but_what_says_why(lake: str) -> None:
    without_window = {"search_alike", "search_offset"}  # nobody asked how far the parts lie alike
    for name in ("scores", "regions", "verdicts", "runs"):
        found = table(lake, name)
        kept = [c for c in found.column_names if c not in without_window]
        empty = [c for c in kept if found[c].null_count == found.num_rows]
        assert empty in ([], ["reason"], ["error"]), name


def test_another_lane_keeps_its_results_and_its_run_id(tmp_path: Path, score_night: Callable[..., RunRecord]) -> None:
    write_group(tmp_path / "archive", NIGHTS[0], "nut", {**good_images(6), "bad.png": png(spoiled(7))})
    for lane, fraction in (("main", 0.3), ("few", 0.6)):
        score_night(
            tmp_path / "archive",
            tmp_path / "lake",
            **{"run.run_id": lane, "run.lane": lane, "scoring.fraction": fraction},
        )
    compared = """
        SELECT a.image_id, a.score AS here, b.score AS there FROM scores AS a JOIN scores AS b USING (night, image_id)
        WHERE a.lane = 'main' AND b.lane = 'few'
    """
    found = query(str(tmp_path / "lake"), Storage(), compared).to_pylist()
    assert len(found) == 7
    assert any(row["here"] != row["there"] for row in found)
    with pytest.raises(SettingsError, match=r"already published with other settings \(run.lane\)"):
        score_night(tmp_path / "archive", tmp_path / "lake", **{"run.run_id": "main", "run.lane": "few"})


def asked_of(engine: str, lake: str) -> list[list[list[Any]] | str]:
    """What an engine, in a process of its own, answers to the statements of the page."""
    asked = {
        "setup": patchead("sql-setup", engine, "--lake", lake).out,
        "statements": statements(PAGE.read_text(encoding="utf-8"), engine),
    }
    command = [sys.executable, "-m", "tests.helpers.sql_engines", engine]
    places = {"cwd": Path(lake).parent, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False, **places)
    assert done.returncode == 0, done.stderr
    answers: list[list[list[Any]] | str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def plain(value: Any) -> Any:
    """A value as every engine writes it: numbers to ten digits, all else as text."""
    if isinstance(value, str) and re.fullmatch(r"-?\d+\.\d+", value):  # a decimal
        return float(f"{float(value):.10g}")
    if isinstance(value, float):
        return float(f"{value:.10g}")
    return value if value is None or isinstance(value, (int, bool)) else str(value)[:19]  # of a time, no zone


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["duckdb", "polars", "datafusion", "clickhouse", "spark"])
def test_every_engine_gives_the_same_answers(lake: str, engine: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    answers = asked_of(engine, lake)
    own = [one != other for one, other in zip(statements(page), statements(page, engine), strict=True)]
    for sql, found, its_own in zip(statements(page), answers, own, strict=True):
        assert not isinstance(found, str), found
        expected = [[plain(value) for value in row.values()] for row in query(lake, Storage(), sql).to_pylist()]
        rows = [[plain(value) for value in row] for row in found]
        if its_own and engine == "polars":
            rows, expected = ([row[:2] + row[4:] for row in each] for each in (rows, expected))
        assert rows == expected, sql
    assert sum(own) == (engine != "duckdb")


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_is_told_of_every_table_and_view(lake: str, engine: str) -> None:
    text = sql_setup(engine, lake, Storage())
    for name in ("scores", "regions", "verdicts", "runs", "feedback", "latest", "worst", "failed", "drift", "families"):
        assert re.search(rf"\b{name}\b( AS\n|\", ctx)", text), name
    assert f"{lake}/tables/scores" in text
    assert ("Not run here" in text) == (engine in ("trino", "athena", "snowflake", "bigquery"))
    assert "'second'" in sql_setup(engine, lake, Storage(), lane="second")


def test_an_engine_that_is_not_known_is_told(lake: str) -> None:
    done = patchead("sql-setup", "oracle", "--lake", lake)
    assert (done.code, "one of duckdb, polars" in done.err) == (2, True)

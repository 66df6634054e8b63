from __future__ import annotations

from typing import Any

import pytest

from patchead.errors import LakeError
from patchead.lake.asked_views import asked_views
from patchead.lake.publication import publish
from patchead.lake.query import connect, query
from tests.helpers.sample_rows import NIGHT, group, rows_of

READS = {
    "runs": "",
    "scores": "runs",
    "regions": "scores runs",
    "latest": "SELECT * FROM scores",
    "worst": "FROM latest",
}


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT * FROM runs", {"runs"}),
        ('SELECT * FROM "LATEST"', {"latest", "scores", "runs"}),
        ("WITH w AS (FROM main.worst) SELECT * FROM w", {"worst", "latest", "scores", "runs"}),
        ("SELECT 1; SELECT count(*) FROM regions", {"regions", "scores", "runs"}),
        ("SELECT 1", set(READS)),
        ("SHOW TABLES", set(READS)),
        ("SELECT * FROM duckdb_views() WHERE view_name <> 'runs'", set(READS)),
        ("SELECT * FROM information_schema.tables WHERE table_name <> 'runs'", set(READS)),
    ],
)
def test_what_a_statement_names_and_what_that_reads(sql: str, names: set[str]) -> None:
    assert asked_views(sql, READS) == names


def test_every_view_answers_alone_as_it_does_among_all(local: Any) -> None:
    publish(local.uri, local.storage, *rows_of("r1", [group(NIGHT, "x", "a", "b")]).tables)
    with connect(local.uri, local.storage) as connection:
        every = [name for (name,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()]
        among_all = {name: connection.execute(f"FROM {name}").to_arrow_table() for name in every}
    for name, table in among_all.items():
        assert query(local.uri, local.storage, f"FROM {name}").equals(table)


def test_a_name_that_is_put_together_is_found_and_a_wrong_one_is_told_what_is_near(local: Any) -> None:
    publish(local.uri, local.storage, *rows_of("r1", [group(NIGHT, "x", "a")]).tables)
    found = query(local.uri, local.storage, "SELECT count(*) AS n FROM query_table('lat' || 'est'), runs")
    assert found.to_pylist() == [{"n": 1}]
    with pytest.raises(LakeError, match=r"(?s)lates does not exist.*Did you mean .*latest"):
        query(local.uri, local.storage, "SELECT * FROM lates, runs")

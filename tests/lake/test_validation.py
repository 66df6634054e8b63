from __future__ import annotations

import math
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from patchead.errors import ValidationError
from patchead.lake.validation import validate
from patchead.schema import OK, REGIONS, SCORES, TOO_FEW_IMAGES
from tests.helpers.sample_rows import NEXT_NIGHT, NIGHT, Rows, failed, group, rows_of


def good() -> Rows:
    few = group(NEXT_NIGHT, "x", "e", status=TOO_FEW_IMAGES)
    return rows_of("r1", [group(NIGHT, "x", "a", "b", "c"), failed(NIGHT, "x", "d"), few, failed(None, None, "f")])


def check(rows: Rows) -> None:
    validate(rows.scores, rows.manifest, regions=rows.regions, verdicts=rows.verdicts, run=rows.run)


def with_value(table: pa.Table, image: str, column: str, value: object) -> pa.Table:
    changed = pc.if_else(
        pc.equal(table["image_id"], image), pa.scalar(value, table.schema.field(column).type), table[column]
    )
    return table.set_column(table.column_names.index(column), column, changed)


def scores_with(image: str, column: str, value: object) -> Callable[[Rows], Rows]:
    return lambda rows: rows.changed(scores=with_value(rows.scores, image, column, value))


def run_with(column: str, value: object) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        type_ = rows.run.schema.field(column).type
        there = [value, *rows.run[column].to_pylist()[1:]]  # of the first night
        return rows.changed(
            run=rows.run.set_column(rows.run.column_names.index(column), column, pa.array(there, type_))
        )

    return change


def test_consistent_rows_pass() -> None:
    check(good())
    check(rows_of("empty", []))


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (lambda r: r.changed(scores=r.scores.slice(1)), "6 images in the manifest, but 5 rows"),
        (lambda r: r.changed(scores=r.scores.slice(1)), "1 images with no row: 'a'"),
        (lambda r: r.changed(scores=pa.concat_tables([r.scores, r.scores.slice(0, 1)])), "more than one row: 'a'"),
        (scores_with("a", "image_id", "z"), "a row, but not in the manifest: 'z'"),
        (scores_with("a", "score", None), "status ok but no score: 'a'"),
        (scores_with("a", "score", math.nan), "status ok but no score: 'a'"),
        (scores_with("a", "score", -0.001), "score outside of 0 … 1: 'a'"),
        (scores_with("a", "score", 1.001), "score outside of 0 … 1: 'a'"),
        (scores_with("a", "max_patch", math.inf), "max_patch outside of 0 … 1: 'a'"),
        (scores_with("a", "z", math.inf), "a z that is not finite: 'a'"),
        (scores_with("a", "rank", None), "status ok but no rank: 'a'"),
        (scores_with("a", "is_anomalous", None), "status ok but no is_anomalous: 'a'"),
        (scores_with("d", "score", 0.5), "a score without status ok: 'd'"),
        (scores_with("a", "status", "fine"), "unknown status: 'a'"),
        (scores_with("a", "status", None), "unknown status: 'a'"),
        (scores_with("a", "run_id", "other"), "rows of another run than r1"),
        (scores_with("a", "is_anomalous", True), "anomalous = 0 of night 2026-11-20, the rows say 1"),
        (run_with("ok", 4), "ok = 4 of night 2026-11-20, the rows say 3"),
        (run_with("images", 5), "images = 5 of night 2026-11-20, the rows say 4"),
        (run_with("skipped", 1), "skipped = 1 of night 2026-11-20, the rows say 0"),
        (run_with("failed", None), "failed = None of night 2026-11-20, the rows say 1"),
        (lambda r: r.changed(run=r.run.slice(3)), "the run record has 0 rows"),
        (lambda r: r.changed(run=r.run.slice(1)), "the run record is of the nights 2026-11-21, None, the rows of"),
        (run_with("run_id", "another"), "the run record has 3 rows; they must be of one run"),
        (scores_with("a", "lane", "other"), "rows of another lane than main"),
        (lambda r: r.changed(regions=with_value(r.regions, "a", "image_id", "d")), "a region, but no row.*: 'd'"),
        (lambda r: r.changed(regions=with_value(r.regions, "a", "image_id", "q")), "a region, but no row.*: 'q'"),
        (
            lambda r: scores_with("a", "is_anomalous", True)(r.changed(regions=r.regions.slice(1))),
            "1 images with a flag, but no region: 'a'",
        ),
        (scores_with("a", "verdict_rule", "top"), "the verdict's rule is mad, the rows say mad"),
        (scores_with("a", "verdict_rule", None), "status ok but no verdict_rule: 'a'"),
        (scores_with("a", "threshold_score", 0.6), "the verdict's threshold_score is 0.5, the rows say 0.5"),
        (scores_with("a", "threshold_score", None), "the verdict's threshold_score is 0.5, the rows say 0.5"),
        (scores_with("a", "is_anomalous", True), "a score of 0.25 is flagged, the threshold is 0.5"),
        (scores_with("a", "is_anomalous", True), "the verdict says flagged = 0, the rows say 1"),
        (scores_with("a", "score", 0.6), "a score of 0.6 is not flagged, the threshold is 0.5"),
        (lambda r: r.changed(verdicts=r.verdicts.slice(1)), "1 groups with no verdict: 'night=2026-11-20/product=x'"),
        (lambda r: r.changed(verdicts=pa.concat_tables([r.verdicts] * 2)), "2 groups with more than one verdict"),
        (lambda r: r.changed(scores=r.scores.slice(0, 4)), "1 groups with a verdict, but no row"),
        (lambda r: r.changed(verdicts=r.verdicts.drop_columns(["skew"])), "columns of verdicts are not those"),
        (lambda r: r.changed(scores=r.scores.drop_columns(["z"])), "columns of scores are not those of the schema"),
        (lambda r: r.changed(regions=r.regions.cast(REGIONS.set(8, pa.field("y", pa.int64())))), "columns of regions"),
    ],
)
def test_a_contradiction_is_named(break_it: Callable[[Rows], Rows], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        check(break_it(good()))


def test_all_faults_are_told_at_once_with_few_examples() -> None:
    rows = rows_of("r1", [group(NIGHT, "x", *(f"i{n}" for n in range(20)), score=2.0)])
    with pytest.raises(ValidationError) as caught:
        check(run_with("ok", 1)(rows))
    text = str(caught.value)
    assert "20 images with score outside of 0 … 1: 'i0', 'i1', 'i2', 'i3', 'i4', …" in text
    assert "ok = 1 of night 2026-11-20, the rows say 20" in text


def test_a_status_of_the_schema_is_never_unknown() -> None:
    assert {OK, "failed", TOO_FEW_IMAGES} == set(good().scores["status"].to_pylist())
    assert good().scores.schema.equals(SCORES)

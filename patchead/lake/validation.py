"""The last look at a run's rows before they are published: one row per image, and every number possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import values
from patchead.errors import ValidationError
from patchead.schema import FAILED, GROUP_FAILED, INCOMPLETE, OK, REGIONS, RUNS, SCORES, SKIPPED, VERDICTS

_EXAMPLES = 5
_ROUNDING = 1e-9  # a mean of distances in [0, 1] may leave it by its last bit
_NEEDED = ("score", "rank", "z", "max_patch", "is_anomalous", "n_references", "verdict_rule")


def validate(scores: pa.Table, manifest: pa.Table, *, regions: pa.Table, verdicts: pa.Table, run: pa.Table) -> None:
    """Compare the rows of one run with the manifest (design.md §3.7).

    Raises:
        ValidationError: with every contradiction found: an image without a row or with two, a row of no image, an ok
            row without a finite score in [0, 1], a region of an image that is not ok, a flagged image without one (of
            an incomplete group: that does not say why), a group without its verdict or with flags that its threshold
            does not give, counts that do not add up.
    """
    tables = {"scores": (scores, SCORES), "regions": (regions, REGIONS), "verdicts": (verdicts, VERDICTS)}
    faults = list(_schemas(tables | {"run": (run, RUNS)}))
    if not faults:
        faults = [*_images(scores, manifest), *_values(scores), *_regions(scores, regions, verdicts)]
        faults += [*_verdicts(scores, verdicts), *_counts(scores, run)]
    if faults:
        raise ValidationError("the rows contradict the manifest; nothing was published:\n  " + "\n  ".join(faults))


def _schemas(tables: Mapping[str, tuple[pa.Table, pa.Schema]]) -> Iterator[str]:
    for name, (rows, schema) in tables.items():
        if not rows.schema.equals(schema):
            yield f"the columns of {name} are not those of the schema: {rows.schema.to_string()}"


def _images(scores: pa.Table, manifest: pa.Table) -> Iterator[str]:
    if scores.num_rows != manifest.num_rows:
        yield f"{manifest.num_rows} images in the manifest, but {scores.num_rows} rows"
    counts = scores["image_id"].value_counts()
    values, times = counts.field("values"), counts.field("counts")
    yield from _named("more than one row", values.filter(pc.greater(times, 1)))
    yield from _named("no row", _missing(manifest["image_id"], scores["image_id"]))
    yield from _named("a row, but not in the manifest", _missing(scores["image_id"], manifest["image_id"]))


def _values(scores: pa.Table) -> Iterator[str]:
    ids, status = scores["image_id"], scores["status"]
    allowed = pa.array([OK, FAILED, *SKIPPED])
    yield from _named("an unknown status", ids.filter(pc.invert(pc.is_in(status, value_set=allowed))))
    ok = scores.filter(pc.equal(status, OK))
    for name in _NEEDED:
        yield from _named(f"status ok but no {name}", ok["image_id"].filter(pc.is_null(ok[name], nan_is_null=True)))
    for name in ("score", "max_patch"):
        inside = pc.and_(pc.greater_equal(ok[name], 0.0), pc.less_equal(ok[name], 1.0 + _ROUNDING))
        yield from _named(f"{name} outside of 0 … 1", ok["image_id"].filter(pc.invert(inside)))
    yield from _named("a z that is not finite", ok["image_id"].filter(pc.invert(pc.is_finite(ok["z"]))))
    unscored = scores.filter(pc.not_equal(status, OK))
    yield from _named("a score without status ok", unscored["image_id"].filter(pc.is_valid(unscored["score"])))


def _regions(scores: pa.Table, regions: pa.Table, verdicts: pa.Table) -> Iterator[str]:
    ok = scores.filter(pc.equal(scores["status"], OK))
    yield from _named("a region, but no row with status ok", pc.unique(_missing(regions["image_id"], ok["image_id"])))
    flagged = ok.filter(pc.fill_null(ok["is_anomalous"], False))
    incomplete = values(verdicts.filter(pc.equal(verdicts["status"], INCOMPLETE))["group_id"])
    told = pc.and_(pc.is_in(flagged["group_id"], value_set=incomplete), pc.is_valid(flagged["error"]))
    flagged = flagged.filter(pc.invert(told))
    yield from _named("a flag, but no region", _missing(flagged["image_id"], regions["image_id"]))


def _verdicts(scores: pa.Table, verdicts: pa.Table) -> Iterator[str]:
    """One verdict per group that was embedded, and the rows of the group are what it says."""
    embedded = scores.filter(pc.not_equal(scores["status"], FAILED))
    ids, times = (verdicts["group_id"].value_counts().field(name) for name in ("values", "counts"))
    yield from _named("more than one verdict", ids.filter(pc.greater(times, 1)), "groups")
    yield from _named("no verdict", pc.unique(_missing(embedded["group_id"], verdicts["group_id"])), "groups")
    yield from _named("a verdict, but no row", _missing(verdicts["group_id"], embedded["group_id"]), "groups")
    said = {row["group_id"]: row for row in verdicts.to_pylist()}
    for found in _by_group(embedded):
        if (verdict := said.get(found["group_id"])) is not None:
            for fault in _contradictions(found, verdict):
                yield f"group {found['group_id']}: {fault}"


def _by_group(scores: pa.Table) -> list[dict[str, Any]]:
    """Of each group: its counts, what its rows say of the verdict, and the scores next to the threshold."""
    ok, flagged = pc.equal(scores["status"], OK), pc.fill_null(scores["is_anomalous"], False)
    columns = {
        "group_id": scores["group_id"],
        "ok": ok,
        "group_failed": pc.equal(scores["status"], GROUP_FAILED),
        "flagged": flagged,
        "lowest_flagged": pc.if_else(flagged, scores["score"], None),
        "highest_other": pc.if_else(flagged, None, scores["score"]),
        "rule": scores["verdict_rule"],
        "threshold": scores["threshold_score"],
    }
    wanted = [("ok", "sum"), ("ok", "count"), ("group_failed", "sum")]
    wanted += [("flagged", "sum"), ("lowest_flagged", "min"), ("highest_other", "max")]
    wanted += [("rule", "min"), ("rule", "max"), ("threshold", "min"), ("threshold", "max"), ("threshold", "count")]
    return pa.table(columns).group_by("group_id").aggregate(wanted).to_pylist()


def _contradictions(found: dict[str, Any], verdict: dict[str, Any]) -> Iterator[str]:
    counted = {"images": found["ok_count"], "scored": found["ok_sum"], "flagged": found["flagged_sum"]}
    for name, number in counted.items():
        if verdict[name] != number:
            yield f"the verdict says {name} = {verdict[name]}, the rows say {number}"
    if (verdict["status"] == GROUP_FAILED) != bool(found["group_failed_sum"]) or (
        found["group_failed_sum"] not in (0, found["ok_count"])
    ):
        yield f"the verdict's status is {verdict['status']}, {found['group_failed_sum']} rows say {GROUP_FAILED}"
    if {found["rule_min"], found["rule_max"]} != {verdict["verdict_rule"]}:
        yield f"the verdict's rule is {verdict['verdict_rule']}, the rows say {found['rule_min']}"
    threshold = verdict["threshold_score"]
    known = found["ok_sum"] if threshold is not None else 0
    if {found["threshold_min"], found["threshold_max"]} != {threshold} or found["threshold_count"] != known:
        yield f"the verdict's threshold_score is {threshold}, the rows say {found['threshold_min']}"
    lowest, highest = found["lowest_flagged_min"], found["highest_other_max"]
    if lowest is not None and (threshold is None or lowest < threshold - _ROUNDING):
        yield f"a score of {lowest} is flagged, the threshold is {threshold}"
    if None not in (highest, threshold) and highest > threshold + _ROUNDING:
        yield f"a score of {highest} is not flagged, the threshold is {threshold}"


def _counts(scores: pa.Table, run: pa.Table) -> Iterator[str]:
    """Each night of the rows has one row of the run, and that says what they say."""
    records, nights = run.to_pylist(), set(scores["night"].to_pylist())
    if not records or len({(record["run_id"], record["lane"]) for record in records}) > 1:
        yield f"the run record has {len(records)} rows; they must be of one run, and there must be one"
        return
    there = [record["night"] for record in records]
    if sorted(map(str, there)) != sorted(map(str, nights or there)):
        yield f"the run record is of the nights {', '.join(map(str, there))}, the rows of {', '.join(map(str, nights))}"
    for record in records:
        night = record["night"]
        own = scores.filter(pc.is_null(scores["night"]) if night is None else pc.equal(scores["night"], night))
        for name, found in _counted(own).items():
            if record[name] != found:
                yield f"the run record says {name} = {record[name]} of night {night}, the rows say {found}"
    for name in ("run_id", "lane"):
        if pc.sum(pc.not_equal(scores[name], records[0][name])).as_py():
            yield f"rows of another {'run' if name == 'run_id' else name} than {records[0][name]}"


def _counted(scores: pa.Table) -> dict[str, int]:
    by_status = {status: pc.sum(pc.equal(scores["status"], status)).as_py() or 0 for status in (OK, FAILED, *SKIPPED)}
    return {
        "images": scores.num_rows,
        "ok": by_status[OK],
        "failed": by_status[FAILED],
        "skipped": sum(by_status[status] for status in SKIPPED),
        "anomalous": pc.sum(scores["is_anomalous"]).as_py() or 0,
    }


def _missing(wanted: pa.ChunkedArray, there: pa.ChunkedArray) -> pa.ChunkedArray:
    return wanted.filter(pc.invert(pc.is_in(wanted, value_set=there)))


def _named(fault: str, ids: pa.Array | pa.ChunkedArray, what: str = "images") -> Iterator[str]:
    if len(ids):
        examples = ", ".join(map(repr, ids.slice(0, _EXAMPLES).to_pylist()))
        yield f"{len(ids)} {what} with {fault}: {examples}{', …' if len(ids) > _EXAMPLES else ''}"

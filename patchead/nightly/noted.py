"""What a night's stages note in the run record: counts of each night, and what the pools held."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import count
from patchead.nightly.embed import Embedded
from patchead.nightly.meanwhile import Meanwhile
from patchead.nightly.run_record import RunRecord
from patchead.runtime.pool import Pool, reserved_seconds
from patchead.schema import FAILED, GROUP_FAILED, OK, SKIPPED

_NAMED = 5


def note_embedded(record: RunRecord, manifest: pa.Table, done: Embedded) -> None:
    """Note what became of the images of a manifest, in its order, in the embed stage."""
    record.embedded, record.reused, record.failed = done.embedded, done.reused, done.failed
    record.unread = done.unread.num_rows
    fresh, failed = pc.is_in(manifest["image_id"], value_set=done.fresh), pc.equal(done.receipts["status"], FAILED)
    masks = {"embedded": fresh, "failed": failed, "reused": pc.invert(pc.or_(fresh, failed))}
    for name, mask in masks.items():
        record.note(name, manifest["night"].filter(mask))


def note_scored(record: RunRecord, done: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    """Note what the score stage has done, and why which groups cannot be scored."""
    record.scoring |= done
    note_failed_groups(record, failed)


def note_failed_groups(record: RunRecord, failed: Mapping[str, str]) -> None:
    """Note why which groups have no scores in the tables."""
    record.scoring["failed_groups"] = dict(failed)
    record.groups_failed = len(failed)


def which_failed(record: RunRecord) -> str | None:
    """Say which groups could not be scored, and of which something is missing; None where all is there."""
    told = []
    for key, lack in (("failed_groups", "groups cannot be scored"), ("incomplete_groups", "groups are incomplete")):
        found: Mapping[str, str] = record.scoring.get(key, {})
        named = "; ".join(f"{name}: {why}" for name, why in islice(found.items(), _NAMED))
        told += [f"{len(found)} of {record.groups} {lack}, {named}"] if found else []
    return "; ".join(told) or None


def note_published(record: RunRecord, scores: pa.Table, verdicts: pa.Table, incomplete: Mapping[str, str]) -> None:
    """Note what is about to be published: SCORES and VERDICTS, and what of which groups is missing."""
    if incomplete:
        record.scoring["incomplete_groups"] = dict(incomplete)
    lacking = pc.is_in(scores["group_id"], value_set=pa.array([*incomplete], pa.string()))
    record.in_incomplete_groups = count(scores.filter(lacking), OK)
    record.ok, record.skipped = count(scores, OK), sum(count(scores, status) for status in SKIPPED)
    record.in_failed_groups = count(scores, GROUP_FAILED)
    record.anomalous = pc.sum(scores["is_anomalous"]).as_py() or 0
    skipped = pc.is_in(scores["status"], value_set=pa.array(SKIPPED))
    masks = {"ok": pc.equal(scores["status"], OK), "skipped": skipped, "anomalous": scores["is_anomalous"]}
    for name, mask in masks.items():
        record.note(name, scores["night"].filter(mask))
    record.note("groups", verdicts["night"])
    record.note("groups_failed", verdicts["night"].filter(pc.equal(verdicts["status"], GROUP_FAILED)))


def note_held(
    record: RunRecord, seconds: Mapping[str, float], embed_pool: Pool, score_pool: Pool, meanwhile: Meanwhile | None
) -> None:
    """Note what the pools have held: ``seconds`` of the stages by now."""
    embedding = sum(seconds.get(name, 0.0) for name in ("embed", "prompts"))
    held = [(embed_pool, embedding), (score_pool, seconds.get("score", 0.0))]
    if meanwhile is not None:
        held.append((meanwhile.pool, meanwhile.seconds))
    record.cpu_seconds, record.gpu_seconds = reserved_seconds(held)

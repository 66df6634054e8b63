"""What a run refuses to do, because it would spoil what is published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from patchead.errors import PlanError, SettingsError, TooManyFailuresError
from patchead.lake.publication import published_settings
from patchead.nightly.run_record import RunRecord
from patchead.result_tables import MAIN
from patchead.schema import FAILED
from patchead.settings.identity import differing
from patchead.settings.model import Config
from patchead.storage import Storage


def refuse_other_run(record: RunRecord, published_json: str) -> None:
    """Refuse a published run id for other settings: a run id names one run, and another one is a mistake."""
    published = json.loads(published_json)
    lanes = record.config.run.lane, published["run"].get("lane", MAIN)
    if names := [*differing(record.config, published), *(["run.lane"] if len(set(lanes)) > 1 else [])]:
        raise SettingsError(
            f"run.run_id {record.run_id!r} is already published with other settings ({', '.join(names)}). "
            "Give every run an id of its own, or none."
        )


def refuse_trial_among_full_runs(config: Config, storage: Storage) -> None:
    """Refuse a limited run where full ones are published: it would replace whole groups by their first images."""
    if config.archive.limit is None:
        return
    if any(json.loads(text)["archive"]["limit"] is None for text in published_settings(config.lake.uri, storage)):
        raise SettingsError(
            f"archive.limit={config.archive.limit} is for trials, and {config.lake.uri} holds full runs: their groups "
            "would be replaced by their first images. Give the trial a lake.uri of its own."
        )


def refuse_unread(record: RunRecord, unread: pa.Table, allowed: float) -> None:
    """Refuse to publish where the storage kept more than the fraction ``allowed`` of the images back."""
    if record.unread <= allowed * record.images:
        return
    examples = "\n".join(f"  {row['image_id']}: {row['error']}" for row in unread.slice(0, 5).to_pylist())
    raise TooManyFailuresError(
        f"{record.unread} of {record.images} images could not be read, tried twice, more than "
        f"run.max_unread_fraction={allowed:g} allows; nothing was published. The first ones:\n{examples}\n"
        f"See to the storage and run again with --run-id {record.run_id}: what was embedded is kept."
    )


def refuse_failed_groups(
    record: RunRecord, failed: Mapping[str, str], groups: int, allowed: float, done: str = "scored"
) -> None:
    """Refuse to publish where more than the fraction ``allowed`` of the ``groups`` cannot be ``done``, and say why."""
    if len(failed) <= allowed * groups:
        return
    examples = "\n".join(f"  {name}: {why}" for name, why in islice(failed.items(), 5))
    raise TooManyFailuresError(
        f"{len(failed)} of {groups} groups cannot be {done}, more than run.max_failed_groups={allowed:g} allows; "
        f"nothing was published. The first ones:\n{examples}\nMend the cause and run again with --run-id "
        f"{record.run_id}: what was {done} is kept."
    )


def refuse_unplanned(refused: Mapping[str, str], groups: int, allowed: float) -> None:
    """Refuse a night of which more than the fraction ``allowed`` of the ``groups`` cannot be planned."""
    if len(refused) > allowed * groups:
        raise PlanError(next(iter(refused.values())))


def refuse_too_many_failures(record: RunRecord, receipts: pa.Table, allowed: float) -> None:
    """Refuse to publish where more than the fraction ``allowed`` of the images failed; names the first ones."""
    if record.failed <= allowed * record.images:
        return
    errors = receipts.filter(pc.equal(receipts["status"], FAILED)).slice(0, 5)
    examples = "\n".join(f"  {row['image_id']}: {row['error']}" for row in errors.to_pylist())
    raise TooManyFailuresError(
        f"{record.failed} of {record.images} images failed, more than run.max_failed_fraction={allowed:g} allows; "
        f"nothing was published. The first ones:\n{examples}\nMend the archive, or raise run.max_failed_fraction."
    )

"""Accept a published run: its groups become what later nights are compared with (method.md §7.4)."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from patchead.archive.keys import without_night
from patchead.arrow_columns import by_group
from patchead.errors import LakeError, SettingsError, nearest_name
from patchead.hashing import text_digest
from patchead.lake.accepted import Accepted, read_accepted, write_accepted
from patchead.lake.tables import read_rows
from patchead.review.labels import DEFECT, GOOD, Labels, labels
from patchead.review.same_scores import deciding, kept_settings
from patchead.schema import OK
from patchead.scoring.verdict import mad_null
from patchead.settings.model import Config
from patchead.storage import Storage

_COLUMNS = ["image_id", "content_hash", "night", "product", "group_id", "score", "is_anomalous", "status"]
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class AcceptRequest:
    """Say what to accept of a run."""

    run_id: str
    name: str | None = None
    """What to accept it as; default: the run's id."""
    products: Collection[str] = ()
    """These alone; default: every one."""
    night: dt.date | None = None
    """This one alone, of a run that covers several."""
    without_flagged: bool = False
    """Leave flagged images out, except those that people called good."""
    replace: bool = False
    """Take the place of another run, or of other images of this one, that is accepted under the name."""


@dataclass(frozen=True)
class Outcome:
    """Say what became of one group."""

    accepted: Accepted
    is_new: bool
    """False where the same was accepted before."""
    left_out: int
    """Scored images that are not among its scores."""
    flagged: int
    """Flagged images that are among its scores."""


def accept(lake_uri: str, storage: Storage, request: AcceptRequest) -> list[Outcome]:
    """Record the groups of a published run in the table of accepted runs. Accepting the same again changes nothing.

    The scores of all its images count, flagged ones too, except those that people called defects (`patchead
    feedback`): what is left out without having been looked at would make later p-values too small.

    Raises:
        SettingsError: the run has no such product or night, or the name is taken.
        LakeError: the run is not published, or a later one has taken its place, or the lake cannot be read or written.
    """
    run = _published_run(lake_uri, storage, request.run_id)
    config = _settings_of(run, request.run_id)
    if config.scoring.references == "accepted":
        raise SettingsError(
            f"run {request.run_id} was itself compared with an accepted run (scoring.references=accepted), so its "
            "scores are no group's own. Accept a run with scoring.references=night."
        )
    groups = by_group(_chosen(_scores(lake_uri, storage, request.run_id), request))
    said = labels(lake_uri, storage)
    common = {
        "name": request.name or request.run_id,
        "run_id": request.run_id,
        "accepted_at": dt.datetime.now(dt.timezone.utc),
        "encoder_id": run["encoder_id"],
    }
    settings, contents = deciding(config), json.loads(run["scoring_json"] or "{}").get("prompt_contents", {})
    before = {row.keys: row for row in read_accepted(lake_uri, storage, name=common["name"])}
    found = []
    for group, rows in groups.items():
        kept = kept_settings(settings, contents.get(without_night(group)))
        of_group = {"settings_digest": text_digest(kept), "settings_json": kept}
        found.append(_outcome(rows, said, before, common | of_group, request))
    if new := [outcome.accepted for outcome in found if outcome.is_new]:
        write_accepted(lake_uri, storage, new)
    return found


def _outcome(
    rows: pa.Table,
    said: Labels,
    before: Mapping[str, Accepted],
    common: Mapping[str, Any],
    request: AcceptRequest,
) -> Outcome:
    """One group: what of it is accepted, and whether it was before."""
    kept = []
    for row in rows.to_pylist():
        verdict = said.of(row["image_id"], row["content_hash"])
        unseen = request.without_flagged and row["is_anomalous"] and verdict != GOOD
        if verdict != DEFECT and not unseen:
            kept.append(row)
    first = rows.slice(0, 1).to_pylist()[0]
    if not kept:
        raise SettingsError(f"nothing of {first['group_id']} is left to accept: every image is flagged or a defect.")
    kept.sort(key=lambda row: (row["score"], row["image_id"]))
    scores = [row["score"] for row in kept]
    null = mad_null(pa.array(scores).to_numpy())
    accepted = Accepted(
        {
            **common,
            **{name: first[name] for name in ("product", "group_id", "night")},
            "keys": without_night(first["group_id"]),
            "n": len(kept),
            "centre": null.centre,
            "scale": null.scale,
            "scores": scores,
            "image_ids": [row["image_id"] for row in kept],
        }
    )
    flagged = sum(bool(row["is_anomalous"]) for row in kept)
    same = before.get(accepted.keys)
    if same is None or not _equal(same, accepted):
        if same is not None and not request.replace:
            raise SettingsError(_taken(same, accepted))
        return Outcome(accepted, True, rows.num_rows - len(kept), flagged)
    return Outcome(same, False, rows.num_rows - len(kept), flagged)


def _equal(before: Accepted, now: Accepted) -> bool:
    names = ("run_id", "group_id", "encoder_id", "settings_digest", "image_ids", "scores")
    return all(before.values[name] == now.values[name] for name in names)


def _taken(before: Accepted, now: Accepted) -> str:
    what = f"run {before.run_id} ({before.values['n']} images)"
    if before.run_id == now.run_id:
        what += f", now with {now.values['n']}"
    return f"name {now.name!r} is taken for {now.keys}: {what}. Choose another --name, or --replace it."


def _published_run(lake_uri: str, storage: Storage, run_id: str) -> dict[str, Any]:
    published = ("state", "=", "published")
    runs = read_rows(lake_uri, storage, "runs", ["run_id", "finished_at"], [published])
    if not pc.any(pc.equal(runs["run_id"], run_id)).as_py():
        newest = runs.sort_by([("finished_at", "descending")])["run_id"].to_pylist()[:_NAMED]
        there = f"Published runs, the newest first: {', '.join(newest)}." if newest else "No run is published there."
        raise LakeError(f"{lake_uri} has no published run {run_id!r}.{nearest_name(run_id, newest)} {there}")
    columns = ["config_json", "encoder_id", "scoring_json"]
    return read_rows(lake_uri, storage, "runs", columns, [published, ("run_id", "=", run_id)]).to_pylist()[0]


def _settings_of(run: Mapping[str, Any], run_id: str) -> Config:
    try:
        return Config.model_validate(json.loads(run["config_json"]))
    except ValidationError as exc:
        raise LakeError(
            f"the settings of run {run_id} are of another version ({exc.error_count()} cannot be read). Score that "
            "night again, and accept the new run."
        ) from exc


def _scores(lake_uri: str, storage: Storage, run_id: str) -> pa.Table:
    """Its scored images that are still its own."""
    rows = read_rows(lake_uri, storage, "scores", _COLUMNS, [("run_id", "=", run_id)])
    rows = rows.filter(pc.equal(rows["status"], OK))
    if not rows.num_rows:
        raise LakeError(
            f"run {run_id} has no scored image in {lake_uri}: a later run has taken the place of its groups, or it had "
            "none. `SELECT DISTINCT run_id FROM scores` says which runs have."
        )
    return rows


def _chosen(rows: pa.Table, request: AcceptRequest) -> pa.Table:
    """Those of the products and the night; a group keys' night must be one."""
    products = [name or "" for name in pc.unique(rows["product"]).to_pylist()]
    if unknown := [name for name in request.products if name not in products]:
        raise SettingsError(
            f"run {request.run_id} has no product {unknown[0]!r}.{nearest_name(unknown[0], products)} It has "
            f"{', '.join(sorted(products)[:_NAMED])}{' …' if len(products) > _NAMED else ''}."
        )
    if request.products:
        rows = rows.filter(pc.is_in(pc.fill_null(rows["product"], ""), value_set=pa.array(sorted(request.products))))
    nights = sorted(night for night in pc.unique(rows["night"]).to_pylist() if night is not None)
    if request.night is not None:
        rows = rows.filter(pc.equal(rows["night"], request.night))
        if not rows.num_rows:
            raise SettingsError(f"run {request.run_id} has no night {request.night}. It has {_dates(nights)}.")
    elif len(nights) > 1:
        raise SettingsError(
            f"run {request.run_id} covers {len(nights)} nights, {_dates(nights)}; one is accepted at a time: --night."
        )
    return rows


def _dates(nights: list[dt.date]) -> str:
    return ", ".join(map(str, nights[:_NAMED])) + (" …" if len(nights) > _NAMED else "")

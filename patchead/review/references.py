"""Which accepted group each group of a night is compared with, and where its embeddings are (method.md §7.4)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import ndtri

from patchead.archive.keys import without_night
from patchead.arrow_columns import values
from patchead.errors import LakeError, SettingsError
from patchead.files import Folder, plain_name
from patchead.lake.accepted import Accepted, list_accepted, read_accepted
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.run_tables import MANIFEST_FILE, RECEIPTS_FILE, read_table
from patchead.lake.tables import read_rows
from patchead.review.same_scores import difference
from patchead.schema import MANIFEST, RECEIPTS
from patchead.scoring.conformal import scores_needed
from patchead.scoring.panel import reference_panel
from patchead.settings.model import Config
from patchead.settings.resolve import level_of, level_setting
from patchead.storage import Storage, join

_NAMED = 10
_REMEDY = "Accept a run of these settings with `patchead accept`, or set them as they were."


def choose(
    config: Config, lake_uri: str, storage: Storage, groups: Iterable[str], encoder_id: str
) -> dict[str, Accepted]:
    """Find the accepted group that each of ``groups`` is compared with: of ``scoring.accepted``, else the newest.

    The newest that has enough scores for the group's level; where none has, the newest, which `require_scores` refuses.

    Returns:
        By group id, with scores and images.

    Raises:
        SettingsError: a group has none of its encoder and settings; the text names both sides.
        LakeError: the table of accepted runs cannot be read.
    """
    keys = {group: without_night(group) for group in groups}
    found = _listed(config, lake_uri, storage, keys)
    fitting = {key: _fitting(config, encoder_id, rows) for key, rows in found.items()}
    full = {
        (row.name, row.keys): row
        for chosen in sorted({row.name for row in fitting.values()})
        for row in read_accepted(lake_uri, storage, keys=fitting, name=chosen)
    }
    return {group: full[fitting[key].name, key] for group, key in keys.items()}


def counts(config: Config, lake_uri: str, storage: Storage, groups: Iterable[str]) -> dict[str, int]:
    """Count the accepted images of each of ``groups``, for a plan that builds no encoder: of the first that is tried.

    Raises:
        SettingsError: a group has none.
        LakeError: the table of accepted runs cannot be read.
    """
    keys = {group: without_night(group) for group in groups}
    found = _listed(config, lake_uri, storage, keys)
    most = config.scoring.max_references
    return {group: min(found[key][0].values["n"], most or found[key][0].values["n"]) for group, key in keys.items()}


def require_scores(accepted: Mapping[str, Accepted], config: Config) -> None:
    """Refuse a level that a group's accepted scores are too few for.

    Args:
        accepted: by group id.
        config: of the run.

    Raises:
        SettingsError: naming the group, how many scores it has and needs, and the setting that is its level.
    """
    for group, row in accepted.items():
        product = row.values["product"]
        n, level = len(row.scores), level_of(config, product)
        if n < (needed := scores_needed(level)):
            raise SettingsError(
                f"{group} is compared with {n} scores of {row.name!r} (run {row.run_id}), and level {level:.3g} needs "
                f"at least {needed}: p is never below 1 / (scores + 1). Accept a night of more images, or "
                f"{_to_allow(n, level_setting(config, product))}."
            )


def _to_allow(n: int, setting: str) -> str:
    """What to do with the setting of the level so that ``n`` scores are enough for it."""
    least = 1 / (n + 1)
    if setting.endswith("z"):
        return f"lower {setting} to {math.floor(-100 * ndtri(least)) / 100:g} or less"
    return f"raise {setting} to {math.ceil(1e4 * least) / 1e4:g} or more"


def recorded_bits(accepted: Mapping[str, Accepted], lake_uri: str, storage: Storage) -> dict[str, int]:
    """Look up how many bits the 16-bit images of accepted groups were found to use, as their runs recorded it.

    Args:
        accepted: by group id.
        lake_uri, storage: the lake.

    Returns:
        By the same ids; without those whose accepted images have no such bits.

    Raises:
        LakeError: the table of runs cannot be read.
    """
    wanted = sorted({row.run_id for row in accepted.values()})
    rows = read_rows(lake_uri, storage, "runs", ["run_id", "scoring_json"], [("run_id", "in", wanted)])
    bits = {row["run_id"]: json.loads(row["scoring_json"] or "{}").get("bit_depth", {}) for row in rows.to_pylist()}
    found = {group: bits.get(row.run_id, {}).get(row.values["group_id"]) for group, row in accepted.items()}
    return {group: of for group, of in found.items() if of is not None}


def embeddings_of(
    accepted: Mapping[str, Accepted],
    lake_uri: str,
    storage: Storage,
    store: EmbeddingStore,
    *,
    max_references: int | None,
    seed: int,
) -> dict[str, pa.Table]:
    """Find where the embeddings of accepted images are.

    Args:
        accepted: by group id.
        lake_uri, storage: the lake.
        store: of the run.
        max_references, seed: of a panel of them, see `reference_panel`; default: all.

    Returns:
        By group id, rows with group_id, image_id, content_hash, part_id, embedding_uri, row and a turn that is null, as
        those of prompts, in order of image id.

    Raises:
        LakeError: receipts, manifest or embeddings are gone, or cannot be read.
    """
    runs: dict[str, pa.Table] = {}
    for row in accepted.values():
        if row.run_id not in runs:
            runs[row.run_id] = _images_of(row, lake_uri, storage, store)
    found = {}
    for group, row in accepted.items():
        wanted = sorted(row.image_ids)
        if max_references is not None:
            wanted = [wanted[place] for place in reference_panel(wanted, max_references, seed)]
        place = pc.index_in(pa.array(wanted), value_set=values(runs[row.run_id]["image_id"]))
        if place.null_count:
            missing = wanted[int(np.flatnonzero(np.asarray(pc.is_null(place)))[0])]
            raise LakeError(f"the receipts of the accepted run {row.run_id} lack {missing}. {_GONE}")
        rows = runs[row.run_id].take(place)
        found[group] = rows.append_column("group_id", pa.repeat(row.values["group_id"], rows.num_rows))
    _require_there(found, accepted, store)
    return found


_GONE = "Score its night again under a new run id and accept that, or set scoring.references=night."


def _images_of(row: Accepted, lake_uri: str, storage: Storage, store: EmbeddingStore) -> pa.Table:
    """The images of an accepted run, with their parts, and where their embeddings are now."""
    folder = Folder(join(lake_uri, "runs", plain_name("run_id", row.run_id)), storage)
    (found, made_for), (parts, _) = (
        _kept(folder, *of) for of in ((RECEIPTS_FILE, RECEIPTS), (MANIFEST_FILE, MANIFEST))
    )
    if made_for["store_id"] != store.encoder_id:
        raise LakeError(
            f"the embeddings of the accepted run {row.run_id} are of {made_for['store_id']}, not {store.encoder_id}."
        )
    place = pc.index_in(found["image_id"], value_set=values(parts["image_id"]))
    columns = {name: found[name] for name in ("image_id", "content_hash")}
    # Receipts of a run hold addresses, and a lake may have been moved since.
    uris = pa.array(
        [uri and store.index.units.uri_of(uri.rpartition("/")[2]) for uri in found["embedding_uri"].to_pylist()]
    )
    columns |= {"part_id": parts["part_id"].take(place), "turn": found["turn"], "embedding_uri": uris}
    return pa.table(columns | {"row": found["row"]})


def _kept(folder: Folder, name: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, str]]:
    if (found := read_table(folder, name, schema)) is None:
        raise LakeError(f"{folder.uri_of(name)} is gone: it says where the accepted embeddings are. {_GONE}")
    return found


def _require_there(found: Mapping[str, pa.Table], accepted: Mapping[str, Accepted], store: EmbeddingStore) -> None:
    run_of = {
        uri: accepted[group].run_id
        for group, rows in found.items()
        for uri in pc.unique(rows["embedding_uri"]).to_pylist()
    }
    gone = [uri for uri, there in zip(run_of, store.index.exist(run_of), strict=True) if not there]
    if gone:
        raise LakeError(
            f"{gone[0]} is gone ({len(gone)} of {len(run_of)} embedding files of the accepted run {run_of[gone[0]]}). "
            + _GONE
        )


def _listed(config: Config, lake_uri: str, storage: Storage, keys: Mapping[str, str]) -> dict[str, list[Accepted]]:
    """What is accepted for each group without its night, in the order in which it is tried; ``keys`` by group id.

    Those with enough scores for their level come before the others, the newest first.
    """
    name = config.scoring.accepted
    found: dict[str, list[Accepted]] = {}
    for row in list_accepted(lake_uri, storage, keys=set(keys.values()), name=name):
        found.setdefault(row.keys, []).append(row)
    if lacking := sorted(group for group, key in keys.items() if key not in found):
        raise SettingsError(_nothing(lake_uri, storage, name, lacking, keys))
    for rows in found.values():
        rows.sort(key=lambda row: row.values["n"] < scores_needed(level_of(config, row.values["product"])))
    return found


def _fitting(config: Config, encoder_id: str, rows: list[Accepted]) -> Accepted:
    """The first of one group that has the run's encoder and settings."""
    first = None
    for row in rows:
        told = difference(config, encoder_id, row)
        if told is None:
            return row
        first = first or told
    raise SettingsError(
        f"{rows[0].keys} cannot be compared with {rows[0].name!r} (run {rows[0].run_id}): {first}. {_REMEDY}"
    )


def _nothing(lake_uri: str, storage: Storage, name: str | None, lacking: list[str], keys: Mapping[str, str]) -> str:
    there = list(dict.fromkeys(f"{row.name} {row.keys}" for row in list_accepted(lake_uri, storage)))
    what = "no run is accepted" if name is None else f"no run is accepted as {name!r}"
    known = f" Accepted are: {', '.join(there[:_NAMED])}{' …' if len(there) > _NAMED else ''}." if there else ""
    return (
        f"{what} for the group {lacking[0]} ({len(lacking)} such groups): looked for {keys[lacking[0]]}.{known} Accept "
        "a published run that has it (`patchead accept`), or leave it out with archive.products."
    )

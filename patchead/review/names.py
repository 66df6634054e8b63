"""What people call regions: a family, single regions from a file, kept as examples that later nights are named by."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchead.errors import SettingsError, bad_value, nearest_name
from patchead.lake.described_regions import described_regions
from patchead.lake.prototypes import keep_prototypes, read_prototypes
from patchead.naming.named import UNKNOWN
from patchead.review.given_file import given_rows, shortened
from patchead.storage import Storage

MOST = 200
"""Examples that naming a family gives, at most: those of its newest nights."""
_COLUMNS = ["image_id", "region", "type"]
_EXAMPLES = 5
_KEPT = ("product", "family", "image_id", "region", "night", "run_id", "vector", "encoder_id", "vectors_id")


@dataclass(frozen=True)
class Given:
    """Say what was recorded."""

    examples: int
    regions: int
    """Of the family; examples are at most `MOST`."""


def name_family(lake_uri: str, storage: Storage, family: str, defect_type: str, *, by: str, lane: str) -> Given:
    """Keep the published regions of a family as examples of a type.

    Args:
        lake_uri, storage: the lake.
        family: as the tables have it.
        defect_type: what it is called; empty takes earlier names of its regions back.
        by: who says so.
        lane: in which the family is.

    Raises:
        SettingsError: there is no such family, the type cannot be one, or the product's examples are of another
            encoder.
        LakeError: a table cannot be read or written.
    """
    of_lane = ("lane", "=", lane)
    rows = described_regions(lake_uri, storage, _KEPT, [of_lane, ("family", "=", family)])
    if not rows.num_rows:
        there = described_regions(lake_uri, storage, ("run_id", "family"), [of_lane])["family"].unique().to_pylist()
        raise SettingsError(bad_value("FAMILY", family, "a family of the view families", _did_you_mean(family, there)))
    newest = rows.sort_by([("night", "descending"), ("image_id", "ascending"), ("region", "ascending")])
    kept = newest.slice(0, MOST).to_pylist()
    _keep(lake_uri, storage, [(row, row["family"], defect_type) for row in kept], by=by)
    return Given(len(kept), rows.num_rows)


def name_listed(lake_uri: str, storage: Storage, uri: str, *, by: str, lane: str) -> Given:
    """Keep the regions that a CSV or Parquet file lists as examples: columns image_id, region and type.

    Raises:
        SettingsError: the file has other columns, names a region that no published run has described, says two things
            of one, or what `name_family` refuses.
        LakeError: the file or a table cannot be read, or none can be written.
    """
    wanted = _read(uri, storage)
    images = sorted({image for image, _ in wanted})
    rows = described_regions(lake_uri, storage, _KEPT, [("lane", "=", lane), ("image_id", "in", images)])
    rows = rows.sort_by("night")
    there = {(row["image_id"], row["region"]): row for row in rows.to_pylist()}
    if missing := [f"{image} region {region}" for image, region in wanted if (image, region) not in there]:
        more = ", …" if len(missing) > _EXAMPLES else ""
        raise SettingsError(
            f"{len(missing)} of {len(wanted)} regions of {uri} are described by no published run of lane {lane}: "
            f"{', '.join(missing[:_EXAMPLES])}{more}. Only regions of flagged images are, where naming.families is on; "
            '`patchead query "SELECT image_id, region FROM regions WHERE family IS NOT NULL"` lists them. Nothing was '
            "recorded."
        )
    _keep(lake_uri, storage, [(there[key], None, name) for key, name in wanted.items()], by=by)
    return Given(len(wanted), len(wanted))


def keep_examples(lake_uri: str, storage: Storage, rows: Sequence[Mapping[str, Any]], *, by: str) -> None:
    """Check and keep rows of the table of prototypes, said by ``by`` now.

    Raises:
        SettingsError: a type cannot be one, or a product has examples of another encoder.
        LakeError: the table cannot be read or written.
    """
    for name in {row["defect_type"] for row in rows}:
        _require_type(name)
    _require_same_encoder(lake_uri, storage, rows)
    said = {"given_by": by, "given_at": dt.datetime.now(dt.timezone.utc)}
    made = [{**row, **said, "defect_type": row["defect_type"] or None} for row in rows]
    keep_prototypes(lake_uri, storage, made)


def _keep(
    lake_uri: str, storage: Storage, named: Sequence[tuple[Mapping[str, Any], str | None, str]], *, by: str
) -> None:
    rows = [
        {name: row[name] for name in _KEPT}
        | {"example_id": f"{row['image_id']}#{row['region']}", "family": family, "defect_type": defect_type.strip()}
        for row, family, defect_type in named
    ]
    keep_examples(lake_uri, storage, rows, by=by)


def _require_type(name: str) -> None:
    if name == UNKNOWN or name != name.strip() or len(name) > 100:
        allowed = f"a word or a few, up to 100 characters, not {UNKNOWN!r}; empty takes names back"
        raise SettingsError(bad_value("TYPE", name, allowed))


def _require_same_encoder(lake_uri: str, storage: Storage, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to mix vectors that cannot be compared in one product's examples."""
    kept = read_prototypes(lake_uri, storage)
    known = dict(zip(kept["product"].to_pylist(), kept["encoder_id"].to_pylist(), strict=True))
    for row in rows:
        theirs = known.get(row["product"])
        if theirs is not None and theirs != row["encoder_id"] and row["defect_type"]:
            raise SettingsError(
                f"the named regions of {row['product'] or 'no product'} are of encoder {theirs}, this one is of "
                f"{row['encoder_id']}: their vectors cannot be compared. Take the old names back first "
                "(`patchead name --product NAME --forget`), or name regions of a night of that encoder."
            )


def forget(lake_uri: str, storage: Storage, product: str | None, *, by: str) -> int:
    """Take all names of a product back; returns how many examples it had.

    Raises:
        LakeError: the table cannot be read or written.
    """
    kept = read_prototypes(lake_uri, storage)
    rows = [row | {"defect_type": ""} for row in kept.to_pylist() if row["product"] == (product or None)]
    if rows:
        keep_examples(lake_uri, storage, rows, by=by)
    return len(rows)


def _read(uri: str, storage: Storage) -> dict[tuple[str, int], str]:
    """The type of each region, as a file says it."""
    found: dict[tuple[str, int], str] = {}
    for number, row in enumerate(given_rows(uri, storage, _COLUMNS), start=1):
        region = (row["region"] or "").strip()
        if not region.isdecimal() or len(region) > 9:
            raise SettingsError(f"row {number} of {uri} has region {shortened(row['region'])}, not a number from 1.")
        key, name = (row["image_id"] or "", int(region)), (row["type"] or "").strip()
        if found.setdefault(key, name) != name:
            told = f"{name!r} of {key[0]} region {key[1]}, an earlier one {found[key]!r}"
            raise SettingsError(f"row {number} of {uri} says {told}.")
    return found


def _did_you_mean(family: str, there: Sequence[str | None]) -> str:
    known = sorted(name for name in there if name)
    if not known:
        return "No region is described yet: score a night with naming.families on."
    return f'`patchead query "FROM families"` lists {len(known)}.{nearest_name(family, known)}'

"""What people said of images: read from a file, kept in the table `feedback`; the newest of an image counts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patchead.errors import SettingsError
from patchead.kept_tables import KEPT_TABLES
from patchead.lake.kept_rows import keep_rows
from patchead.lake.tables import read_rows
from patchead.review.given_file import given_rows, shortened
from patchead.schema import SCHEMA_VERSION, table
from patchead.storage import Storage

GOOD, DEFECT = "good", "defect"
VERDICTS = (GOOD, DEFECT)
_REQUIRED, _MORE = ("image_id", "verdict"), ("run_id", "note")
_EXAMPLES = 5
_LONGEST = 200  # of an id in a message


def labels(lake_uri: str, storage: Storage) -> dict[str, str]:
    """Read the newest verdict on each image that people have judged, `GOOD` or `DEFECT`, by image id.

    Raises:
        LakeError: the table cannot be read.
    """
    rows = read_rows(lake_uri, storage, "feedback", ["image_id", "verdict", "given_at"]).sort_by("given_at")
    return dict(zip(rows["image_id"].to_pylist(), rows["verdict"].to_pylist(), strict=True))


def read_file(uri: str, storage: Storage) -> list[dict[str, str | None]]:
    """Read a CSV or Parquet file of verdicts: columns image_id and verdict, and maybe run_id and note.

    Raises:
        SettingsError: it has other columns or other verdicts, says two things of one image, or is empty.
        LakeError: it cannot be read.
    """
    return list(_checked(given_rows(uri, storage, _REQUIRED, _MORE), uri).values())


def unknown_images(lake_uri: str, storage: Storage, rows: Iterable[Mapping[str, str | None]]) -> list[str]:
    """List the images of which the table of scores has no row.

    Raises:
        LakeError: the table cannot be read.
    """
    wanted = sorted({str(row["image_id"]) for row in rows})
    there = read_rows(lake_uri, storage, "scores", ["image_id"], [("image_id", "in", wanted)])
    known = set(there["image_id"].to_pylist())
    return [image for image in wanted if image not in known]


def keep(lake_uri: str, storage: Storage, rows: Sequence[Mapping[str, str | None]], by: str) -> None:
    """Add rows of `read_file` to the table, said by ``by`` now.

    Raises:
        LakeError: the table cannot be written.
    """
    added = {"given_by": by, "given_at": dt.datetime.now(dt.timezone.utc), "schema_version": SCHEMA_VERSION}
    keep_rows(lake_uri, storage, "feedback", table([{**row, **added} for row in rows], KEPT_TABLES["feedback"]))


def _checked(rows: Iterable[Mapping[str, Any]], uri: str) -> dict[str, dict[str, str | None]]:
    """The rows by image, each said once."""
    found: dict[str, dict[str, str | None]] = {}
    faults = []
    for number, row in enumerate(rows, start=1):
        image, verdict = row["image_id"] or "", (row["verdict"] or "").strip().lower()
        told = f"row {number} ({image if len(image) <= _LONGEST else f'{image[:_LONGEST]}…'})"
        if not image:
            faults.append(f"row {number} has no image_id")
        elif verdict not in VERDICTS:
            faults.append(f"{told} says {shortened(row['verdict'])}, not {' or '.join(VERDICTS)}")
        elif image in found and found[image]["verdict"] != verdict:
            faults.append(f"{told} says {verdict}, an earlier one {found[image]['verdict']}")
        else:
            found[image] = {"image_id": image, "verdict": verdict} | {name: row.get(name) or None for name in _MORE}
    if faults:
        more = f"; and {len(faults) - _EXAMPLES} more" if len(faults) > _EXAMPLES else ""
        raise SettingsError(f"{uri} cannot be taken: {'; '.join(faults[:_EXAMPLES])}{more}. Nothing was recorded.")
    return found

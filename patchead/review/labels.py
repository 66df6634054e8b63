"""What people said of images: read from a file, kept in the table `feedback`; the newest of a photo counts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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


@dataclass(frozen=True)
class Labels:
    """Hold the newest verdict on each photo that people have judged."""

    said: Mapping[tuple[str, str | None], tuple[dt.datetime, str]]
    """When, and `GOOD` or `DEFECT`, by image id and content; without a content it is of every photo under the id."""

    @cached_property
    def images(self) -> frozenset[str]:
        """Give the ids of the images that were judged."""
        return frozenset(image for image, _ in self.said)

    def of(self, image_id: str, content_hash: str | None) -> str | None:
        """Give the newest verdict on a photo; None where there is none."""
        found = [self.said[key] for key in ((image_id, None), (image_id, content_hash)) if key in self.said]
        return max(found)[1] if found else None


def labels(lake_uri: str, storage: Storage) -> Labels:
    """Read what people said of images.

    Raises:
        LakeError: the table cannot be read.
    """
    columns = ["image_id", "content_hash", "given_at", "verdict"]
    rows = read_rows(lake_uri, storage, "feedback", columns).sort_by("given_at")
    given = zip(*(rows[name].to_pylist() for name in columns), strict=True)
    return Labels({(image, content): (at, verdict) for image, content, at, verdict in given})


def read_file(uri: str, storage: Storage) -> list[dict[str, str | None]]:
    """Read a CSV or Parquet file of verdicts: columns image_id and verdict, and maybe run_id and note.

    Raises:
        SettingsError: it has other columns or other verdicts, says two things of one image of a run, or is empty.
        LakeError: it cannot be read.
    """
    return list(_checked(given_rows(uri, storage, _REQUIRED, _MORE), uri).values())


def keep(lake_uri: str, storage: Storage, rows: Sequence[Mapping[str, str | None]], by: str) -> None:
    """Add rows of `read_file`, with the photos of `looked_at`, to the table, said by ``by`` now.

    Raises:
        LakeError: the table cannot be written.
    """
    added = {"given_by": by, "given_at": dt.datetime.now(dt.timezone.utc), "schema_version": SCHEMA_VERSION}
    keep_rows(lake_uri, storage, "feedback", table([{**row, **added} for row in rows], KEPT_TABLES["feedback"]))


def refused(uri: str, faults: Sequence[str], remedy: str = "") -> SettingsError:
    """Make the error of a file with ``faults``, the first of which it names."""
    more = f"; and {len(faults) - _EXAMPLES} more" if len(faults) > _EXAMPLES else ""
    return SettingsError(f"{uri} cannot be taken: {'; '.join(faults[:_EXAMPLES])}{more}. {remedy}Nothing was recorded.")


def named(image_id: str) -> str:
    """Write an image id for a message, cut where it is long."""
    return image_id if len(image_id) <= _LONGEST else f"{image_id[:_LONGEST]}…"


def _checked(rows: Iterable[Mapping[str, Any]], uri: str) -> dict[tuple[str, str | None], dict[str, str | None]]:
    """The rows by image and run, each said once."""
    found: dict[tuple[str, str | None], dict[str, str | None]] = {}
    faults = []
    for number, row in enumerate(rows, start=1):
        image, verdict = row["image_id"] or "", (row["verdict"] or "").strip().lower()
        key = image, (row.get("run_id") or "").strip() or None
        told = f"row {number} ({named(image)})"
        if not image:
            faults.append(f"row {number} has no image_id")
        elif verdict not in VERDICTS:
            faults.append(f"{told} says {shortened(row['verdict'])}, not {' or '.join(VERDICTS)}")
        elif key in found and found[key]["verdict"] != verdict:
            faults.append(f"{told} says {verdict}, an earlier one {found[key]['verdict']}")
        else:
            found[key] = {"image_id": image, "verdict": verdict, "run_id": key[1], "note": row.get("note") or None}
    if faults:
        raise refused(uri, faults)
    return found

"""Which photo each verdict of a file is on: an image id is a path below an archive, and other nights may reuse it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from patchead.lake.migration import current_runs
from patchead.lake.tables import read_rows
from patchead.review.labels import named, refused
from patchead.storage import Storage

Row = dict[str, str | None]
_NAMED = 5
_REMEDY = "Say in the column run_id which run was looked at, as the page of `patchead report` does. "


class _Shown(NamedTuple):
    """A photo that the table of scores has under an id."""

    night: dt.date | None
    run_id: str
    content_hash: str | None


def looked_at(
    lake_uri: str, storage: Storage, rows: Sequence[Mapping[str, str | None]], uri: str
) -> tuple[list[Row], list[str]]:
    """Find the photo that each verdict is on: of its run, or of the one that took the place of that run's nights.

    Args:
        lake_uri, storage: the lake.
        rows: of `read_file`.
        uri: of the file, for messages.

    Returns:
        Rows with a content_hash more, each photo once; it is None where the table of scores has no such image. And
        these images.

    Raises:
        SettingsError: an id that comes without a run is of several photos, its run does not have it, or two things are
            said of one photo.
        LakeError: a table cannot be read.
    """
    there = _published(lake_uri, storage, {str(row["image_id"]) for row in rows})
    nights = _nights(lake_uri, storage, rows, there)
    found: list[Row] = []
    faults: list[str] = []
    for row in rows:
        image, run_id = str(row["image_id"]), row["run_id"]
        under_it = there.get(image, set())
        shown = under_it if run_id is None else _of_run(under_it, run_id, nights.get(run_id, set()))
        contents = {each.content_hash for each in shown} - {None}
        if under_it and not shown:
            faults.append(f"run {run_id} has no {named(image)}, which is of {_runs(under_it)}")
        elif len(contents) > 1:
            faults.append(f"{named(image)} is {len(contents)} photos, of {_runs(shown)}")
        else:
            found.append({**row, "content_hash": next(iter(contents), None)})
    if faults:
        raise refused(uri, faults, _REMEDY)
    return _once(found, uri), sorted({str(row["image_id"]) for row in rows} - there.keys())


def _published(lake_uri: str, storage: Storage, images: Collection[str]) -> dict[str, set[_Shown]]:
    """What the table of scores has under each id."""
    columns = ["image_id", *_Shown._fields]
    rows = read_rows(lake_uri, storage, "scores", columns, [("image_id", "in", sorted(images))])
    found: dict[str, set[_Shown]] = {}
    for image, *shown in zip(*(rows[name].to_pylist() for name in columns), strict=True):
        found.setdefault(image, set()).add(_Shown(*shown))
    return found


def _nights(
    lake_uri: str, storage: Storage, rows: Iterable[Mapping[str, str | None]], there: Mapping[str, set[_Shown]]
) -> dict[str, set[dt.date | None]]:
    """The nights of runs that have not all their images any more, by run."""
    replaced = {
        row["run_id"]
        for row in rows
        if row["run_id"] and row["run_id"] not in {each.run_id for each in there.get(str(row["image_id"]), ())}
    }
    found: dict[str, set[dt.date | None]] = {}
    if replaced:
        runs = current_runs(lake_uri, storage)
        for run_id, night in zip(runs["run_id"].to_pylist(), runs["night"].to_pylist(), strict=True):
            if run_id in replaced:
                found.setdefault(run_id, set()).add(night)
    return found


def _of_run(shown: Iterable[_Shown], run_id: str, nights: Collection[dt.date | None]) -> set[_Shown]:
    own = {each for each in shown if each.run_id == run_id}
    return own or {each for each in shown if each.night in nights}


def _once(rows: Iterable[Row], uri: str) -> list[Row]:
    """The rows, each photo once; one without a content is of every photo under its id."""
    found: dict[str, dict[str | None, Row]] = {}
    faults = []
    for row in rows:
        image, content = str(row["image_id"]), row["content_hash"]
        of_image = found.setdefault(image, {})
        same = [other for of, other in of_image.items() if of == content or None in (of, content)]
        if others := [other for other in same if other["verdict"] != row["verdict"]]:
            told = " and ".join(f"{each['verdict']}{_by(each)}" for each in (others[0], row))
            faults.append(f"one photo, {named(image)}, is said to be {told}")
        of_image[content] = row
    if faults:
        raise refused(uri, faults)
    return [row for of_image in found.values() for row in of_image.values()]


def _by(row: Row) -> str:
    return f" (run {row['run_id']})" if row["run_id"] else ""


def _runs(shown: Iterable[_Shown]) -> str:
    """The runs of photos, those of the newest nights first."""
    ordered = sorted(shown, key=lambda each: (str(each.night or ""), each.run_id), reverse=True)
    names = list(dict.fromkeys(each.run_id for each in ordered))
    return f"run{'s' * (len(names) > 1)} {', '.join(names[:_NAMED])}{', …' if len(names) > _NAMED else ''}"

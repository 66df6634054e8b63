"""Write the report of one night: read the tables, make the pictures, write the page last."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import patchead
from patchead.files import Folder
from patchead.report import contents, pictures
from patchead.report.families import FamilySheet, cutouts_of, families_of
from patchead.report.nearest import Asked, Nearest, nearest_patches
from patchead.report.night_rows import NightRows, read_night
from patchead.report.page import render
from patchead.report.places import Place, places_of
from patchead.result_tables import MAIN
from patchead.schema import OK
from patchead.storage import Storage, join

PAGE = "index.html"
_EMBEDDINGS_READ = 2 << 30
"""Bytes of embeddings that are read to find reference patches, at most."""
_REFERENCES = 4
_WORST_SHOWN = 24
_SHARE_OF_A_BAR = 0.1  # flagged, that fills a bar at least


@dataclass(frozen=True)
class ReportRequest:
    """Say which night is shown, and how much of it."""

    lake_uri: str
    out: str | None = None
    """Folder or URL that the page is written to; None: `place_in_lake`."""
    night: dt.date | None = None
    """None: the newest."""
    lane: str = MAIN
    """Of the results that are shown."""
    images: int = 5000
    """The worst so many images are on the page."""
    pictures: int = 100
    """The worst so many have a larger picture and a heatmap."""
    compared: int = 20
    """The worst so many show the reference patches that they were compared with."""


@dataclass(frozen=True)
class Report:
    """Say what was written."""

    uri: str
    """Of the page."""
    night: dt.date | None
    images: int
    shown: int
    unseen: int
    """Images of which there is no thumbnail, because their original cannot be read."""


def write_report(request: ReportRequest, storage: Storage, tell: Callable[[str], None]) -> Report:
    """Write the page of one night and its pictures.

    Args:
        request: which, and where to.
        storage: of the lake, the archive and the page.
        tell: is told in a line what is being done.

    Raises:
        SettingsError: no image of that night is published.
        LakeError: the lake cannot be read, or a file of the report cannot be written.
    """
    rows = read_night(request.lake_uri, storage, request.night, request.lane)
    out = Folder(request.out or place_in_lake(request.lake_uri, rows.night, request.lane), storage)
    shown = rows.images.slice(0, request.images).to_pylist()
    tell(f"report of {rows.night or 'all nights'}: {len(shown)} of {rows.images.num_rows} images, to {out.uri}")
    drawn = _pictures(request, storage, rows, shown, out)
    groups = contents.groups_of(rows)
    places = places_of(rows)
    data = contents.data_of(rows, groups, places, drawn, request.images)
    sheets, found = families_of(rows)
    shown_too = {"sheets": sheets, "families_found": found, "cut_out": _cut_out(storage, rows, sheets, out)}
    page = render(_context(rows, groups, places, request) | shown_too, data)
    out.write(PAGE, lambda sink: sink.write(page.encode()))
    return Report(out.uri_of(PAGE), rows.night, rows.images.num_rows, len(shown), len(drawn.missing))


def place_in_lake(lake_uri: str, night: dt.date | None, lane: str = MAIN) -> str:
    """Say where a night's report is when no other place is named."""
    of_lane = [] if lane == MAIN else [f"lane={lane}"]
    return join(lake_uri, "reports", *of_lane, f"night={night or 'all'}")


def _pictures(
    request: ReportRequest, storage: Storage, rows: NightRows, shown: Sequence[Mapping[str, Any]], out: Folder
) -> contents.Pictures:
    drawn = contents.Pictures()
    worst = {row["image_id"] for row in [row for row in shown if row["status"] == OK][: request.pictures]}
    for run in rows.published:
        of_run = [row for row in shown if row["run_id"] == run["run_id"]]
        config, scoring = (json.loads(run[name] or "{}") for name in ("config_json", "scoring_json"))
        reading = _reading(storage, config, scoring)
        wanted = [pictures.Wanted(row, row["image_id"] in worst) for row in of_run]
        for image_id, why in pictures.write_pictures(wanted, reading, out):
            if why is not None:
                drawn.missing[image_id] = why
                continue
            drawn.names[image_id] = {"thumbnail": pictures.name_of("thumbnails", image_id)}
            if image_id in worst:
                drawn.names[image_id]["picture"] = pictures.name_of("pictures", image_id)
        for image_id in pictures.write_heatmaps([row for row in of_run if row["image_id"] in worst], storage, out):
            drawn.names.setdefault(image_id, {})["heatmap"] = pictures.name_of("heatmaps", image_id)
        compared = [row for row in of_run if row["image_id"] in worst and row["is_anomalous"] is not None]
        _add_nearest(request, storage, rows, compared[: request.compared], config, reading, out, drawn)
    return drawn


def _add_nearest(
    request: ReportRequest,
    storage: Storage,
    rows: NightRows,
    images: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    reading: pictures.Reading,
    out: Folder,
    drawn: contents.Pictures,
) -> None:
    """Find and cut out the reference patches of the worst images of one run."""
    by_group: dict[str, list[str]] = {}
    for row in images:
        by_group.setdefault(row["group_id"], []).append(row["image_id"])
    cutouts: dict[tuple[str, str], pictures.Cutout] = {}
    for group_id, members in by_group.items():
        searches = [row["search"] for row in rows.verdicts if row["group_id"] == group_id]
        of_group = rows.images.filter(pc.equal(rows.images["group_id"], group_id))
        ids = of_group["image_id"].to_pylist()
        asked = Asked(
            run_id=images[0]["run_id"],
            group_id=group_id,
            images=members,
            config=config,
            parts=dict(zip(ids, of_group["part_id"].to_pylist(), strict=True)),
            contents=dict(zip(ids, of_group["content_hash"].to_pylist(), strict=True)),
            search=searches[0] if searches else None,
        )
        budget = _EMBEDDINGS_READ // len(by_group)
        found = nearest_patches(request.lake_uri, storage, asked, count=_REFERENCES, budget_bytes=budget)
        if isinstance(found, str):
            drawn.nearest.update(dict.fromkeys(members, found))
            continue
        drawn.nearest.update(found)
        for image_id, nearest in found.items():
            by_id = _rows_of(rows, [image_id, *(patch.image_id for patch in nearest.references)])
            cutouts |= _cutouts(image_id, nearest, by_id)
    written = pictures.write_cutouts(list({cutout.name: cutout for cutout in cutouts.values()}.values()), reading, out)
    for (image_id, label), cutout in cutouts.items():
        if cutout.name in written:
            drawn.names.setdefault(image_id, {})[label] = cutout.name


def _cut_out(storage: Storage, rows: NightRows, sheets: Sequence[FamilySheet], out: Folder) -> set[str]:
    """Cut the examples of families out of their originals; the names of the files written."""
    written: set[str] = set()
    for run in rows.published:
        config, scoring = (json.loads(run[name] or "{}") for name in ("config_json", "scoring_json"))
        mine = [cutout for cutout in cutouts_of(sheets) if cutout.row["run_id"] == run["run_id"]]
        written |= pictures.write_cutouts(mine, _reading(storage, config, scoring), out)
    return written


def _rows_of(rows: NightRows, image_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    found = rows.images.filter(pc.is_in(rows.images["image_id"], value_set=pa.array(image_ids, pa.string())))
    return {row["image_id"]: row for row in found.to_pylist()}


def _cutouts(
    image_id: str, nearest: Nearest, by_id: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], pictures.Cutout]:
    made = {(image_id, "patch"): pictures.Cutout(by_id[image_id], nearest.place, nearest.grid)}
    for number, patch in enumerate(nearest.references):
        if patch.image_id in by_id:
            made[image_id, f"reference-{number}"] = pictures.Cutout(by_id[patch.image_id], patch.place, nearest.grid)
    return made


def _reading(storage: Storage, config: Mapping[str, Any], scoring: Mapping[str, Any]) -> pictures.Reading:
    archive = config["archive"]
    depth = archive["bit_depth"]
    return pictures.Reading(
        storage=storage,
        image_column=archive["image_column"],
        id_column=archive["id_column"],
        max_pixels=archive["max_pixels"],
        fit=config["encoder"]["fit"],
        bit_depth=depth,
        found_depth=scoring.get("bit_depth", {}) if depth == "auto" else {},
    )


def _context(
    rows: NightRows,
    groups: Sequence[contents.Group],
    places: Mapping[str, Sequence[Place]],
    request: ReportRequest,
) -> dict[str, Any]:
    reasons, lacking = contents.failures(rows)
    scored, flagged = (sum(group.change.now[name] for group in groups) for name in ("scored", "flagged"))
    before = [row for row in rows.history if row["night"] == rows.before]
    return {
        "night": rows.night,
        "before": rows.before,
        "images": rows.images.num_rows,
        "shown": min(rows.images.num_rows, request.images),
        "scored": scored,
        "flagged": flagged,
        "flagged_before": sum(row["flagged"] for row in before) if before else None,
        "share": flagged / scored if scored else None,
        "failed": rows.failed.get(rows.night, 0),
        "failed_before": rows.failed.get(rows.before, 0) if rows.before else None,
        "told": contents.told(rows, groups, places),
        "groups": groups,
        "largest": max([_SHARE_OF_A_BAR, *(group.change.share or 0.0 for group in groups)]),
        "most_drawn": contents.MOST_DRAWN,
        "places": places,
        "worst": rows.images.slice(0, _WORST_SHOWN).to_pylist(),
        "reasons": reasons,
        "lacking": lacking,
        "left_out": contents.left_out(rows),
        "runs": rows.published,
        "settings": {run["run_id"]: contents.settings_of(run) for run in rows.published},
        "versions": {run["run_id"]: json.loads(run["versions_json"] or "{}") for run in rows.published},
        "made_by": f"patchead {patchead.__version__}",
        "made_at": f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d %H:%M} UTC",
    }

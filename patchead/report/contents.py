"""What stands on the page: groups, images, failures and runs as plain values; how it looks is the template's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from patchead.archive.left_out import LeftOut
from patchead.printed import plain
from patchead.report import charts
from patchead.report.changes import (
    NOTHING,
    GroupChange,
    LikeGroups,
    gone,
    group_changes,
    group_name,
    like_groups,
    sentences,
)
from patchead.report.nearest import Nearest
from patchead.report.night_rows import NightRows
from patchead.report.places import Place, keys_of, sentences_of
from patchead.schema import FAILED, OK

MOST_DRAWN = 60
"""Groups that are drawn, those with the largest flagged share; of the others the numbers are in the table alone."""
MOST_FAILURES = 500
MOST_LINKS = 12
"""Patches that are drawn of what one region's name by words rests on, those of the highest contrast."""
_NOT_COMPARED = {"archive.night", "archive.uri", "lake.uri", "run.run_id", "archive.limit"}


@dataclass(frozen=True)
class Pictures:
    """Say which pictures there are, by image id."""

    nearest: dict[str, Nearest | str] = field(default_factory=dict)
    """By image id: what its worst patch was compared with, or why that is not known."""
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    """By image id: file names by kind."""
    missing: dict[str, str] = field(default_factory=dict)
    """By image id: why there is no picture."""


@dataclass(frozen=True)
class Group:
    """Hold one group of the page."""

    number: int
    change: GroupChange
    name: str
    histogram: Markup | None
    drift: Markup | None
    repeats: Sequence[Mapping[str, Any]]


def groups_of(rows: NightRows) -> list[Group]:
    """Make the groups, the largest flagged share first, with their drawings."""
    scored: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    of = (rows.images[name].to_pylist() for name in ("run_id", "group_id", "score", "is_anomalous", "status"))
    for run, group, score, flagged, status in zip(*of, strict=True):
        if status == OK:
            scored.setdefault((run, group), []).append((score, bool(flagged)))
    made, earlier = [], like_groups(rows.history)
    for number, change in enumerate(group_changes(rows.verdicts, rows.history)):
        name = name_of(change.now)
        found = scored.get((change.now["run_id"], change.now["group_id"]), [])
        drawn = bool(found) and number < MOST_DRAWN
        nights = _nights(earlier, change) if drawn else []
        scores, flags = np.array([score for score, _ in found]), np.array([flag for _, flag in found], bool)
        made.append(
            Group(
                number=number,
                change=change,
                name=name,
                histogram=charts.histogram(scores, flags, change.now, name) if drawn else None,
                drift=charts.drift(nights, name) if len(nights) > 1 else None,
                repeats=json.loads(change.now["repeats_json"] or "[]"),
            )
        )
    return made


def name_of(row: Mapping[str, Any]) -> str:
    """Name a group as people do: its product, and further keys behind it."""
    return plain(group_name(row))


def told(rows: NightRows, groups: Sequence[Group], places: Mapping[str, Sequence[Place]]) -> list[tuple[str, str]]:
    """Say what changed since the night before, the settings too; (``alert`` or ``note``, sentence)."""
    changes = [group.change for group in groups]
    said = sentences(changes, gone(changes, rows.history, rows.before), rows.failed, rows.night, rows.before)
    if found := sentences_of(places.values()):
        said = [one for one in said if not one[1].startswith(NOTHING)] + found
        said.sort(key=lambda one: one[0])
    for run in rows.runs:
        if run["state"] == FAILED:
            said.insert(0, ("alert", f"Run {run['run_id']} of this night failed: {run['reason']}"))
    changed = changed_settings(rows)
    if changed:
        shown = ", ".join(f"{key} {before} → {now}" for key, before, now in changed[:6])
        said.append(("note", f"Settings and versions that are different: {shown}{', …' if len(changed) > 6 else ''}."))
    return [(how, plain(text)) for how, text in said]


def changed_settings(rows: NightRows) -> list[tuple[str, str, str]]:
    """List the settings and versions that the night before had otherwise: name, before, now."""
    if not rows.runs_before or not rows.published:
        return []
    before, now = (_facts(runs[-1]) for runs in (rows.runs_before, rows.published))
    return [
        (key, before[key], now[key])
        for key in sorted((before.keys() & now.keys()) - _NOT_COMPARED)
        if before[key] != now[key]
    ]


def settings_of(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List a run's settings as it recorded them: dotted name, value."""
    return sorted(_flat(json.loads(run["config_json"] or "{}")).items())


def failures(rows: NightRows) -> tuple[list[tuple[str, int]], list[dict[str, Any]]]:
    """List reasons with how many images have them, and the images without a score, `MOST_FAILURES` at most."""
    lacking = rows.images.filter(pc.not_equal(rows.images["status"], OK)).to_pylist()
    reasons = Counter(_without_name(row) for row in lacking)
    return reasons.most_common(), lacking[:MOST_FAILURES]


def left_out(rows: NightRows) -> list[str]:
    """Say what the archive holds but images, and what of images could not be read, as the runs recorded it."""
    lines = []
    for run in rows.published:
        record = rows.records.get(run["run_id"])
        if record is None:
            lines.append(f"Of run {run['run_id']} this is no longer known: its folder is gone.")
            continue
        lines += [f"ignored: {line}" for line in LeftOut.of_json(record.get("ignored") or {}).lines()]
        lines += [f"not readable: {line}" for line in LeftOut.of_json(record.get("unreadable") or {}).lines()]
    return lines


def data_of(
    rows: NightRows, groups: Sequence[Group], places: Mapping[str, Sequence[Place]], pictures: Pictures, most: int
) -> dict[str, Any]:
    """Make what the page's script works with: plain JSON values, the images worst first."""
    keys = {key: sorted(place.value for place in of_key) for key, of_key in places.items()}
    numbers = {(group.change.now["run_id"], group.change.now["group_id"]): group.number for group in groups}
    images = rows.images.slice(0, most).to_pylist()
    runs = sorted({row["run_id"] for row in images})
    return {
        "night": str(rows.night or "all"),
        "runs": runs,
        "groups": [group.name for group in groups],
        "products": sorted({plain(row["product"] or "") for row in images}),
        "keys": keys,
        "images": [_image(row, rows, numbers, runs, keys, pictures) for row in images],
    }


def _image(
    row: Mapping[str, Any],
    rows: NightRows,
    numbers: Mapping[tuple[str, str], int],
    runs: Sequence[str],
    keys: Mapping[str, Sequence[str]],
    pictures: Pictures,
) -> dict[str, Any]:
    """One image; what it has not is left out, as the page of five thousand is to stay small."""
    image_id = row["image_id"]
    shown = plain(image_id)
    found: dict[str, Any] = {
        "id": image_id,
        "name": None if shown == image_id else shown,
        "run": runs.index(row["run_id"]),
        "group": numbers.get((row["run_id"], row["group_id"])),
        "product": plain(row["product"] or ""),
        "score": _rounded(row["score"]),
        "z": _rounded(row["z"], 2),
        "p": _rounded(row["p_value"], 5),
        "flagged": 1 if row["is_anomalous"] else None,
        "rank": row["rank"],
        "of": row["group_size"],
        "limit": _rounded(row["threshold_score"]),
        "repeat": row["repeat_group"],
        "error": None if row["error"] is None else plain(row["error"]),
        "lacking": None if row["status"] == OK else row["status"],
        "at": None if row["captured_at"] is None else f"{row['captured_at']:%Y-%m-%d %H:%M:%S}",
        "size": [row["width"], row["height"]] if row["width"] else None,
        "keys": {name: value for name, value in keys_of(row["keys_json"]).items() if name in keys} or None,
        "boxes": [
            [each["x"], each["y"], each["width"], each["height"], _rounded(each["peak"], 3)]
            for each in rows.regions.get(image_id, [])
            if each["run_id"] == row["run_id"]
        ]
        or None,
        "links": _links_of(rows.links.get((row["run_id"], image_id), ())),
        "called": _called(rows.regions.get(image_id, []), row["run_id"]),
        "label": rows.labels.get((row["run_id"], image_id)),
        "files": pictures.names.get(image_id),
        "unseen": plain(pictures.missing[image_id]) if image_id in pictures.missing else None,
        "nearest": _nearest(pictures, image_id),
    }
    return {name: value for name, value in found.items() if value is not None}


def _links_of(links: Sequence[Mapping[str, Any]]) -> list[list[Any]] | None:
    """Patches that names by words rest on, `MOST_LINKS` of each region: box, and what it says to whoever asks."""
    drawn, shown = Counter[int](), list[list[Any]]()
    for link in links:
        drawn[link["region"]] += 1
        if drawn[link["region"]] <= MOST_LINKS:
            why = f"; {plain(link['why_unknown'])}" if link["why_unknown"] else ""
            text = f"{plain(link['phrase'])} +{link['contrast']:.3f}{why}"
            shown.append([*(_rounded(link[name], 1) for name in ("x", "y", "width", "height")), text])
    return shown or None


def _called(regions: Sequence[Mapping[str, Any]], run_id: str) -> str | None:
    names = [each["defect_type"] for each in regions if each["run_id"] == run_id and each.get("defect_type")]
    return plain(", ".join(dict.fromkeys(names))) or None


def _nearest(pictures: Pictures, image_id: str) -> Any:
    found = pictures.nearest.get(image_id)
    if not isinstance(found, Nearest):
        return None if found is None else plain(found)
    return {
        "score": _rounded(found.patch_score),
        "of": found.n_references,
        "looked": found.looked_at,
        "file": pictures.names.get(image_id, {}).get("patch"),
        "patches": [
            {"name": plain(patch.image_id), "distance": _rounded(patch.distance), "file": file}
            for patch, file in zip(found.references, _files(pictures, image_id, found), strict=True)
        ],
    }


def _files(pictures: Pictures, image_id: str, found: Nearest) -> list[str | None]:
    names = pictures.names.get(image_id, {})
    return [names.get(f"reference-{number}") for number in range(len(found.references))]


def _nights(history: LikeGroups, change: GroupChange) -> list[Mapping[str, Any]]:
    """The group's like on every night, once a night: the newest run's."""
    if change.now["night"] is None:
        return []
    like = {
        row["night"]: row
        for row in history.get((change.key, change.product), ())
        if row["median"] is not None and row["encoder_id"] == change.now["encoder_id"]
    }
    return [like[night] for night in sorted(like)]


def _without_name(row: Mapping[str, Any]) -> str:
    """The reason alone, so that equal ones are counted together."""
    text = str(row["error"] or row["status"])
    for name in (row["image_id"], row["uri"], row["member"]):
        text = text.replace(name, "…") if name else text
    return plain(text)


def _facts(run: Mapping[str, Any]) -> dict[str, str]:
    versions = {f"version of {name}": value for name, value in json.loads(run["versions_json"] or "{}").items()}
    return {key: str(value) for key, value in {**_flat(json.loads(run["config_json"] or "{}")), **versions}.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def _rounded(value: float | None, digits: int = 5) -> float | None:
    return None if value is None else round(value, digits)

"""Where the flagged images come from: by station, line, camera, whatever keys the images have besides their product."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchead.printed import plain
from patchead.report.changes import flags_more, share_of
from patchead.report.night_rows import NightRows
from patchead.schema import OK

MOST_KEYS, MOST_VALUES = 4, 60
"""Keys that are shown and can be chosen from, and values of one; a key with more is no place."""
Counts = dict[str, dict[str, dict[str, int]]]


@dataclass(frozen=True)
class Place:
    """Hold how many images of one value of a key have a score and are flagged, tonight and the night before."""

    key: str
    value: str
    now: Mapping[str, int]
    before: Mapping[str, int]

    @property
    def share(self) -> float:
        """Give the flagged share."""
        return share_of(self.now) or 0.0

    @property
    def share_before(self) -> float | None:
        """Give that of the night before; None where no image had a score there."""
        return share_of(self.before)

    @property
    def flags_more(self) -> bool:
        """Tell whether more images are flagged than the share of the night before explains."""
        return flags_more(self.now, self.before)


def places_of(rows: NightRows) -> dict[str, list[Place]]:
    """Count by each key that has several values, few enough to be places; the largest flagged share first."""
    of = zip(*(rows.images[name].to_pylist() for name in ("keys_json", "status", "is_anomalous")), strict=True)
    scored = ((text, 1, int(bool(flagged))) for text, status, flagged in of if status == OK)
    now = _counted(scored)
    before = _counted((row["keys_json"], row["scored"], row["flagged"]) for row in rows.places_before)
    nothing = {"scored": 0, "flagged": 0}
    found = {
        key: [Place(key, value, counts, before.get(key, {}).get(value, nothing)) for value, counts in values.items()]
        for key, values in sorted(now.items())
        if 1 < len(values) <= MOST_VALUES
    }
    ordered = {key: sorted(places, key=lambda place: (-place.share, place.value)) for key, places in found.items()}
    return dict(list(ordered.items())[:MOST_KEYS])


def sentences_of(places: Iterable[Sequence[Place]]) -> list[tuple[str, str]]:
    """Say which places flag more than the night before explains, as `changes.sentences`."""
    return [
        (
            "alert",
            f"{place.key} {place.value}: {place.now['flagged']} of {place.now['scored']} flagged, "
            f"{place.before['flagged']} of {place.before['scored']} the night before.",
        )
        for of_key in places
        for place in of_key
        if place.flags_more
    ]


def keys_of(text: str | None) -> dict[str, str]:
    """Read the keys of an image, as they are shown."""
    return {plain(name): plain(value) for name, value in json.loads(text or "{}").items()}


def _counted(rows: Iterable[tuple[str | None, int, int]]) -> Counts:
    found: Counts = {}
    known: dict[str | None, dict[str, Any]] = {}
    for text, scored, flagged in rows:
        if text not in known:
            known[text] = keys_of(text)
        for key, value in known[text].items():
            counts = found.setdefault(key, {}).setdefault(value, {"scored": 0, "flagged": 0})
            counts["scored"] += scored
            counts["flagged"] += flagged
    return found

"""The families of a night's regions: how many tonight, since when, and examples cut out of their photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from patchead.printed import plain
from patchead.report.night_rows import NightRows
from patchead.report.pictures import BoxCutout

EXAMPLES = 12
"""Regions of a family that are shown, at most."""
MOST_SHOWN = 24
"""Families that are shown, those with most images; the view `families` has all."""


@dataclass(frozen=True)
class Example:
    """Hold one region that is shown."""

    image_id: str
    region: int
    cutout: BoxCutout


@dataclass(frozen=True)
class FamilySheet:
    """Hold what the page says of one family."""

    name: str
    product: str
    images: int
    """Of this night."""
    regions: int
    types: Sequence[tuple[str, int]]
    """What its regions are called, the most frequent first."""
    first_night: Any
    nights: int
    examples: Sequence[Example]
    """The medoid first, then the highest peaks; one of an image while there are others."""

    @property
    def is_new(self) -> bool:
        """Tell whether no other night has it."""
        return self.nights <= 1


def families_of(rows: NightRows) -> tuple[list[FamilySheet], int]:
    """List the families with most images, and count all of the night."""
    images = {row["image_id"]: row for row in rows.images.to_pylist()} if rows.families else {}
    members: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for of_image in rows.regions.values():
        for region in of_image:
            if region["family"] is not None and region["image_id"] in images:
                product = images[region["image_id"]]["product"] or ""
                members.setdefault((region["family"], product), []).append(region)
    counted = {key: len({region["image_id"] for region in of}) for key, of in members.items()}
    order = sorted(members, key=lambda key: (-counted[key], -len(members[key]), key))
    found = []
    for key in order[:MOST_SHOWN]:
        of, known = members[key], rows.families.get(key, {"first_night": rows.night, "nights": 1})
        types = Counter(region["defect_type"] for region in of if region["defect_type"] is not None)
        found.append(
            FamilySheet(
                name=key[0],
                product=plain(key[1]),
                images=counted[key],
                regions=len(of),
                types=sorted(types.items(), key=lambda each: (-each[1], each[0])),
                first_night=known["first_night"],
                nights=known["nights"],
                examples=[_example(region, images) for region in _shown(of)],
            )
        )
    return found, len(members)


def cutouts_of(families: Collection[FamilySheet]) -> list[BoxCutout]:
    """List what is cut out for them."""
    return [example.cutout for family in families for example in family.examples]


def _shown(regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    order = sorted(
        regions, key=lambda each: (not each["family_medoid"], -each["peak"], each["image_id"], each["region"])
    )
    seen: set[str] = set()
    firsts: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for region in order:
        (others if region["image_id"] in seen else firsts).append(region)
        seen.add(region["image_id"])
    return [*firsts, *others][:EXAMPLES]


def _example(region: dict[str, Any], images: dict[str, dict[str, Any]]) -> Example:
    box = tuple(region[name] for name in ("x", "y", "width", "height"))
    return Example(region["image_id"], region["region"], BoxCutout(images[region["image_id"]], region["region"], box))

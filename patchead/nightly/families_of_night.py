"""The families of a night's regions, product by product: found, and those of earlier nights known again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.hashing import text_digest
from patchead.lake.prototypes import vectors_of
from patchead.naming.families import Family, find_families, joined, match

_ID_BYTES = 4
_NAMED_BY = ("product", "image_id", "x", "y", "width", "height")


@dataclass(frozen=True)
class InFamily:
    """Say of one region which family it is in."""

    family: str
    medoid: bool
    reach: float
    """Of the family, see `families.Family`."""
    known: bool
    """Whether an earlier night has it."""


def families_of(
    regions: Sequence[dict[str, Any]], vectors: np.ndarray, known: pa.Table, distance: float
) -> list[InFamily]:
    """Put each region of one product into a family.

    Args:
        regions: columns `_NAMED_BY` of each.
        vectors: float32 (R, D), theirs.
        known: medoids of the product's families on other nights, as `known_families` reads them.
        distance: cosine distance up to which regions are alike.

    Returns:
        (R,), the same in whatever order the regions come.
    """
    found = find_families(vectors, distance)
    medoids = vectors[[of.medoid for of in found]]
    places = match(medoids, vectors_of(known), np.asarray(known["reach"], np.float64)).tolist()
    names = known["family"].to_pylist()
    again: dict[str, list[Family]] = {}
    for family, place in zip(found, places, strict=True):
        if place >= 0:
            again.setdefault(names[place], []).append(family)
    out: dict[int, InFamily] = {}
    for name, parts in again.items():
        whole = parts[0] if len(parts) == 1 else joined(vectors, parts, distance)
        out |= _of(whole, name, known=True)
    for family, place in zip(found, places, strict=True):
        if place < 0:
            out |= _of(family, new_id(regions[family.medoid]), known=False)
    return [out[place] for place in range(len(regions))]


def new_id(region: dict[str, Any]) -> str:
    """Name a family by its first medoid: a night that is scored again gives the same name."""
    return f"f{text_digest(repr([region[name] for name in _NAMED_BY]), _ID_BYTES)}"


def of_product(known: pa.Table, product: str | None) -> pa.Table:
    """Keep the rows of one product; an empty one is null."""
    mask = pc.equal(known["product"], product) if product else pc.is_null(known["product"])
    return known.filter(mask)


def _of(family: Family, name: str, *, known: bool) -> dict[int, InFamily]:
    members = family.members.tolist()
    return {place: InFamily(name, place == family.medoid, family.reach, known) for place in members}

"""A night's regions are named by the prototypes of their product, where people have named some."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.hashing import text_digest
from patchead.lake.prototypes import read_prototypes, vectors_of
from patchead.naming.by_example import Examples, name_regions
from patchead.naming.named import Named
from patchead.nightly.families_of_night import of_product
from patchead.settings.model import Config
from patchead.storage import Storage

_VERSION = 3  # of how names come of vectors
Names = list[tuple[Named | None, str | None]]
"""Of each region what it is called and the `naming_id`; None where there is nothing to name it by."""


def named_by_example(
    config: Config, storage: Storage, rows: pa.Table, vectors: np.ndarray, *, encoder_id: str, vectors_id: str
) -> tuple[Names, list[str]]:
    """Name the regions of each product by its prototypes (method.md §13).

    Args:
        config: of the run.
        storage: of its lake.
        rows: REGIONS, R of them.
        vectors: float32 (R, D), theirs.
        encoder_id, vectors_id: of the vectors; prototypes of others name nothing.

    Returns:
        (R,), and what a person is told: which products have names that this night cannot use.

    Raises:
        LakeError: the table of prototypes cannot be read.
    """
    kept, naming = read_prototypes(config.lake.uri, storage), config.naming
    names: Names = [(None, None)] * rows.num_rows
    told: list[str] = []
    if not kept.num_rows:
        return names, told
    for product in pc.unique(rows["product"]).to_pylist():
        own = of_product(kept, product)
        same = pc.and_(pc.equal(own["encoder_id"], encoder_id), pc.equal(own["vectors_id"], vectors_id))
        usable = own.filter(same)
        if own.num_rows and not usable.num_rows:
            told.append(_other(product, own, encoder_id, vectors_id))
        if not usable.num_rows:
            continue
        here = np.flatnonzero(np.asarray(_is_product(rows, product)))
        examples = Examples(vectors_of(usable), usable["defect_type"].to_pylist(), encoder_id)
        found = name_regions(
            vectors[here], examples, encoder_id=encoder_id, level=naming.level, distance=naming.distance
        )
        naming_id = _naming_id(usable, (naming.level, naming.distance))
        for place, named in zip(here.tolist(), found, strict=True):
            names[place] = (named, naming_id)
    return names, told


def _is_product(rows: pa.Table, product: str | None) -> pa.ChunkedArray:
    return pc.is_null(rows["product"]) if product is None else pc.fill_null(pc.equal(rows["product"], product), False)


def _naming_id(examples: pa.Table, limits: Iterable[float]) -> str:
    said = list(zip(examples["example_id"].to_pylist(), examples["defect_type"].to_pylist(), strict=True))
    return f"example-{text_digest(json.dumps([_VERSION, said, *limits]), 6)}"


def _other(product: str | None, own: pa.Table, encoder_id: str, vectors_id: str) -> str:
    encoders = sorted(set(own["encoder_id"].to_pylist()))
    if encoder_id not in encoders:
        why = f"are of encoder {', '.join(encoders)}, and this night is of {encoder_id}"
    else:
        there = ", ".join(sorted(set(own["vectors_id"].to_pylist())))
        why = f"were made with other settings (vectors_id {there}, not {vectors_id}; naming.references, or align)"
    return (
        f"the {own.num_rows} named regions of {product or 'no product'} {why}: its regions get no name by example. "
        "Name regions of this night with `patchead name`."
    )

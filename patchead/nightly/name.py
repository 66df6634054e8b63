"""Regions get families and names: between explaining a night and publishing it. No score or verdict changes.

Only flagged images, and a few unflagged ones of their groups as references, are read.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import set_column, values
from patchead.errors import LakeError, PatcheadError
from patchead.hashing import text_digest
from patchead.lake.known_families import known_families
from patchead.naming.named import Named
from patchead.naming.region_vectors import FRACTION
from patchead.nightly import wiring
from patchead.nightly.describe_regions import DescribeSettings, ToDescribe, describe, portions
from patchead.nightly.explain import Explained
from patchead.nightly.families_of_night import InFamily, families_of, of_product
from patchead.nightly.lacking import of_the_group
from patchead.nightly.name_by_example import Names, named_by_example
from patchead.nightly.told import tell_lacking
from patchead.result_tables import TABLES_VERSION
from patchead.schema import NAMES, OK, REGION_VECTORS, REGIONS, completed

if TYPE_CHECKING:
    from patchead.nightly.night import EmbeddedNight, Night

_NO_NAMES = "its regions have neither family nor name by example"
_VERSION = 1  # of how vectors are made
_OF_A_REGION = ["run_id", "lane", "night", "product", "group_id", "image_id", "region"]


def name(night: Night, embedded: EmbeddedNight, explained: Explained) -> Explained:
    """Fill the columns `NAMES` of the regions of flagged images, and collect what later nights know them by.

    What fails costs names and nothing else: the groups are incomplete, and the night goes on.

    Args:
        night: whose stage it is.
        embedded: its images.
        explained: what is to be published.

    Returns:
        The same scores and verdicts; regions in the same order.
    """
    flagged = explained.scores.filter(pc.fill_null(explained.scores["is_anomalous"], False))
    if not night.config.naming.families or not flagged.num_rows:
        return explained
    with night.stages.stage("name", flagged.num_rows) as advance:
        began = time.perf_counter()
        places, vectors, lacking = _described(night, embedded, explained, flagged, advance)
        seconds = time.perf_counter() - began
        if len(places):
            rows = explained.regions.take(pa.array(places))
            try:
                found, named, told = _found(night, embedded, rows, vectors)
            except LakeError as exc:
                lacking |= dict.fromkeys(rows["group_id"].to_pylist(), f"{_NO_NAMES}: {of_the_group(exc)}")
            else:
                for text in told:
                    night.stages.warn(f"warning: {text}")
                facts = _facts(found, [of for of, _ in named], seconds, images=flagged.num_rows)
                night.record.scoring["naming"] = facts
                explained = replace(
                    explained,
                    regions=_filled(explained.regions, places, _columns(found, named)),
                    vectors=_vectors(night, embedded, rows, found, vectors),
                )
    tell_lacking(night.stages.warn, embedded.images, lacking)
    return explained.without(lacking)


def _found(
    night: Night, embedded: EmbeddedNight, rows: pa.Table, vectors: np.ndarray
) -> tuple[list[InFamily], Names, list[str]]:
    """The family and the name of each region, and what a person is told."""
    found = _families(night, embedded, rows, vectors)
    encoder_id, vectors_id = embedded.encoder.encoder_id, _id(night, embedded)
    named, told = named_by_example(
        night.config, night.storage, rows, vectors, encoder_id=encoder_id, vectors_id=vectors_id
    )
    return found, named, told


def _described(
    night: Night, embedded: EmbeddedNight, explained: Explained, flagged: pa.Table, advance: Any
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Places of the described regions among the night's, ascending, int64 (R,), and their vectors, float32 (R, D).

    Also why those of which groups cannot be described.
    """
    config, encoder = night.config, embedded.encoder
    settings = DescribeSettings(
        store=embedded.store,
        folder=night.folder,
        grid=encoder.grid,
        views=wiring.recipe(config, encoder.grid).stored_views,
        dim=encoder.dim,
        fit=config.encoder.fit,
        references=config.naming.references,
    )
    ok = values(explained.scores["image_id"].filter(pc.equal(explained.scores["status"], OK)))
    place = explained.regions.append_column("place", pa.array(np.arange(explained.regions.num_rows)))
    items: list[ToDescribe] = []
    for group in pc.unique(flagged["group_id"]).to_pylist():
        instead = embedded.prompts.get(group)
        own = place.filter(pc.equal(place["group_id"], group))
        items += portions(
            group,
            embedded.groups[group],
            own,
            flagged=values(flagged["image_id"]),
            ok=ok,
            instead=None if instead is None else instead.references,
            most=settings.most_references,
        )
    done, lacking = dict[int, np.ndarray](), dict[str, str]()

    def failed(number: int, error: PatcheadError) -> None:
        lacking.setdefault(items[number].group_id, f"{_NO_NAMES}: {of_the_group(error)}")
        advance(items[number].images.num_rows)

    for number, found in night.executor.run_tasks(partial(describe, settings=settings), items, failed=failed):
        done[number] = found
        advance(items[number].images.num_rows)
    places = np.concatenate([np.empty(0, np.int64), *(np.asarray(items[number].regions["place"]) for number in done)])
    vectors = np.concatenate([np.empty((0, encoder.dim), np.float32), *done.values()])
    order = np.argsort(places)
    return places[order], vectors[order], lacking


def _families(night: Night, embedded: EmbeddedNight, rows: pa.Table, vectors: np.ndarray) -> list[InFamily]:
    naming = night.config.naming
    known = known_families(
        night.config.lake.uri,
        night.storage,
        lane=night.config.run.lane,
        encoder_id=embedded.encoder.encoder_id,
        vectors_id=_id(night, embedded),
        nights=pc.unique(rows["night"]).to_pylist(),
        most_nights=naming.remember_nights,
    )
    plain, out = rows.to_pylist(), dict[int, InFamily]()
    for product in pc.unique(rows["product"]).to_pylist():
        mine = [number for number, row in enumerate(plain) if row["product"] == product]
        found = families_of(
            [plain[number] for number in mine], vectors[mine], of_product(known, product), naming.distance
        )
        out |= dict(zip(mine, found, strict=True))
    return [out[number] for number in range(len(plain))]


def _id(night: Night, embedded: EmbeddedNight) -> str:
    """Hash of all that decides vectors, but the encoder."""
    return vectors_id(embedded.store.encoder_id, night.config.naming.references)


def vectors_id(store_id: str, references: int) -> str:
    """Hash what decides a region's vector: only vectors of one id are compared.

    Args:
        store_id: of the embeddings.
        references: ``naming.references``.
    """
    return text_digest(json.dumps([_VERSION, store_id, references, FRACTION]), 6)


def _columns(found: Sequence[InFamily], named: Sequence[tuple[Named | None, str | None]]) -> dict[str, list[Any]]:
    of = [{} if name is None else asdict(name) for name, _ in named]
    return {
        "family": [each.family for each in found],
        "family_medoid": [each.medoid for each in found],
        "defect_type": [each.get("defect_type") for each in of],
        "defect_confidence": [each.get("confidence") for each in of],
        "defect_p": [each.get("p") for each in of],
        "defect_runner_up": [each.get("runner_up") for each in of],
        "naming_id": [naming_id for _, naming_id in named],
    }


def _filled(regions: pa.Table, places: np.ndarray, columns: dict[str, list[Any]]) -> pa.Table:
    """REGIONS with these columns at these places."""
    at = pc.index_in(pa.array(np.arange(regions.num_rows)), value_set=pa.array(places))
    for name in NAMES:
        regions = set_column(regions, name, pa.array(columns[name], REGIONS.field(name).type).take(at))
    return regions


def _vectors(
    night: Night, embedded: EmbeddedNight, rows: pa.Table, found: Sequence[InFamily], vectors: np.ndarray
) -> pa.Table:
    """REGION_VECTORS of the described regions."""
    n = rows.num_rows
    made = {name: rows[name] for name in _OF_A_REGION}
    made |= {"family": [of.family for of in found], "family_medoid": [of.medoid for of in found]}
    made |= {"reach": [of.reach for of in found], "vector": list(vectors)}
    constants = {"encoder_id": embedded.encoder.encoder_id, "vectors_id": _id(night, embedded)}
    made |= {key: [value] * n for key, value in (constants | {"schema_version": TABLES_VERSION}).items()}
    return completed(pa.table(made), REGION_VECTORS)


def _facts(found: Sequence[InFamily], named: Sequence[Named | None], seconds: float, *, images: int) -> dict[str, Any]:
    """What the run record says of it."""
    known = {of.family: of.known for of in found}
    types = Counter(of.defect_type for of in named if of is not None)
    return {
        "images": images,
        "regions": len(found),
        "families": len(known),
        "known_families": sum(known.values()),
        "types": dict(sorted(types.items())),
        "describe_seconds": round(seconds, 3),
    }

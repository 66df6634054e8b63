"""The regions of some flagged images of one group as vectors (method.md §13): the work of one task. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import compact, values
from patchead.batches import batches
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.naming.region_vectors import anomalous_patches, patches_of_box, region_vectors
from patchead.scoring.panel import reference_panel

PORTION = 32
"""Images whose regions one task describes, at most."""
_REFERENCE_BYTES = 512 * 10**6  # of references that a task holds, at most
_COLUMNS = ("image_id", "content_hash", "part_id", "embedding_uri", "row", "same_as", "width", "height")
_BOX = ("x", "y", "width", "height")


@dataclass(frozen=True)
class DescribeSettings:
    """Hold what a worker needs to describe regions."""

    store: EmbeddingStore
    folder: RunFolder
    """Of the run, with the staged patch scores."""
    grid: tuple[int, int]
    views: int
    """Views that are stored of an image; the first is the image as it is."""
    dim: int
    fit: str
    """How images became squares."""
    references: int
    """Images in which normal patches are looked for, at most."""

    @property
    def most_references(self) -> int:
        """Count the references that there is room for, at most."""
        size = 2 * self.grid[0] * self.grid[1] * self.views * self.dim
        return max(1, min(self.references, _REFERENCE_BYTES // size))


@dataclass(frozen=True)
class ToDescribe:
    """Hold the regions of some images of one group."""

    group_id: str
    images: pa.Table
    """Columns of the manifest and the receipts of n flagged images."""
    places: np.ndarray
    """int64 (n,): of these images in the group, as it was staged."""
    regions: pa.Table
    """Image, ``place`` among the night's and box of each of R regions, in order of the images."""
    references: pa.Table
    """As ``images``: those that normal patches are looked for in."""


def portions(
    name: str,
    images: pa.Table,
    regions: pa.Table,
    *,
    flagged: pa.Array,
    ok: pa.Array,
    instead: pa.Table | None,
    most: int,
) -> Iterator[ToDescribe]:
    """Cut the flagged images of a group that have regions into portions; none where it has no reference.

    Args:
        name: id of the group.
        images: of the group, in the order in which it was staged.
        regions: REGIONS of the group, in order of the images, and ``place``, their numbers among the night's.
        flagged, ok: ids of the night's images that are flagged, and that have a score.
        instead: rows of what the group was compared with in place of itself: taken where it has no unflagged image.
        most: reference images.
    """
    rows = images.select([column for column in _COLUMNS if column in images.column_names])
    is_flagged = pc.is_in(rows["image_id"], value_set=flagged)
    with_regions = pc.is_in(rows["image_id"], value_set=values(regions["image_id"]))
    places = np.flatnonzero(np.asarray(pc.and_(is_flagged, with_regions)))
    if not len(places):
        return
    unflagged = pc.and_(pc.is_in(rows["image_id"], value_set=ok), pc.invert(is_flagged))
    found = _others(rows.filter(unflagged), rows.filter(is_flagged))
    if not found.num_rows and instead is not None:
        found = instead
    if not found.num_rows:
        return
    ids = found["image_id"].to_pylist()
    references = compact(found.take(pa.array(reference_panel(ids, most, 0))))
    for part in batches(places, PORTION):
        chosen = compact(rows.take(pa.array(part)))
        own = pc.is_in(regions["image_id"], value_set=values(chosen["image_id"]))
        boxes = compact(regions.select(["image_id", "place", *_BOX]).filter(own))
        yield ToDescribe(name, chosen, np.asarray(part), boxes, references)


def describe(item: ToDescribe, *, settings: DescribeSettings) -> np.ndarray:
    """Describe the regions of a portion: float32 (R, D), in their order.

    Raises:
        LakeError: an embedding file or the staged patch scores cannot be read.
    """
    store = settings.store
    patches = settings.grid[0] * settings.grid[1]
    maps = settings.folder.read_patch_scores(item.group_id, item.places)
    vectors = by_file(item.images, store.read)[:, :patches]
    number_of = {image: number for number, image in enumerate(item.images["image_id"].to_pylist())}
    sizes = list(zip(item.images["width"].to_pylist(), item.images["height"].to_pylist(), strict=True))
    queries, owner = [], []
    for region, row in enumerate(item.regions.to_pylist()):
        image = number_of[row["image_id"]]
        box = tuple(row[name] for name in _BOX)
        places = anomalous_patches(maps[image], patches_of_box(box, settings.grid, *sizes[image], settings.fit))
        queries.append(vectors[image, places])
        owner += [region] * len(places)
    references = reference_patches(item.references, store, settings.views)
    return region_vectors(np.concatenate(queries), np.array(owner), references)


def reference_patches(images: pa.Table, store: EmbeddingStore, views: int) -> list[np.ndarray]:
    """Read the patches of each reference, float16 (P, D), of all its views; those that a warp left empty are none.

    Args:
        images: columns embedding_uri and row.
        store: where they are.
        views: that are stored of an image.

    Raises:
        LakeError: an embedding file cannot be read.
    """
    vectors = by_file(images, store.read)
    if views == 1:
        return list(vectors)
    valid = by_file(images, lambda uri, rows: store.read_side_arrays(uri, rows)["valid"])
    return [of[mask] for of, mask in zip(vectors, valid.reshape(len(vectors), -1), strict=True)]


def by_file(rows: pa.Table, read: Callable[[str, np.ndarray], np.ndarray]) -> np.ndarray:
    """Stack what ``read(uri, rows)`` gives of each file: (n, …), in the order of the rows.

    Args:
        rows: columns embedding_uri and row, n of them.
        read: of an `EmbeddingStore`.
    """
    uris, numbers = np.array(rows["embedding_uri"].to_pylist()), np.asarray(rows["row"])
    found: dict[int, np.ndarray] = {}
    for uri in np.unique(uris).tolist():
        here = np.flatnonzero(uris == uri)
        found |= dict(zip(here.tolist(), read(uri, numbers[here]), strict=True))
    return np.stack([found[place] for place in range(len(uris))])


def _others(images: pa.Table, flagged: pa.Table) -> pa.Table:
    """Those that are no copies and show no part of a flagged image: they may have its defect (method.md §3)."""
    kept = images
    for name in ("same_as" if "same_as" in images.column_names else "content_hash", "part_id"):
        known = values(flagged[name].drop_null())
        kept = kept.filter(pc.invert(pc.is_in(kept[name], value_set=known)))
    return kept

"""The reference patches that the worst patch of an image was compared with, from embeddings that the lake still has.

A run keeps no list of them: they are searched again, for a few images, in as much of the group as a budget of bytes
allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.batches import batches
from patchead.errors import LakeError
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.run_tables import RECEIPTS_FILE, read_table
from patchead.lake.staged_group import StagedGroup
from patchead.lake.staging import RunFolder
from patchead.schema import RECEIPTS
from patchead.scoring.panel import reference_panel
from patchead.search.grid import Grid
from patchead.storage import Storage

_IMAGES_AT_ONCE = 8
_WINDOW = re.compile(r"window rule r=(\d+)")


@dataclass(frozen=True)
class Patch:
    """Name one patch of an image: ``place`` is its row and column in the grid."""

    image_id: str
    place: tuple[int, int]
    distance: float
    """To the worst patch, (1 - cos) / 2 (method.md §2)."""


@dataclass(frozen=True)
class Nearest:
    """Hold the worst patch of an image and the patches of other images that are most like it."""

    grid: tuple[int, int]
    place: tuple[int, int]
    patch_score: float
    references: tuple[Patch, ...]
    """Of different images, the nearest first."""
    looked_at: int
    """Images that were searched for them."""
    n_references: int
    """Images that it was compared with."""


@dataclass(frozen=True)
class Asked:
    """Describe what is asked of one group of one run."""

    run_id: str
    group_id: str
    images: Sequence[str]
    """Whose worst patches are looked up."""
    config: Mapping[str, Any]
    """The run's settings, as it recorded them."""
    parts: Mapping[str, str | None]
    """The physical part of every image of the group: images of one part are never each other's reference."""
    contents: Mapping[str, str | None]
    """The hash of every image's bytes: nor are copies."""
    search: str | None
    """How it was searched, as the table of verdicts says."""


def nearest_patches(
    lake_uri: str, storage: Storage, asked: Asked, *, count: int, budget_bytes: int
) -> dict[str, Nearest] | str:
    """Find the nearest reference patches of the worst patch of some images of a group.

    Args:
        lake_uri, storage: the lake.
        asked: which images.
        count: of references, of different images.
        budget_bytes: embeddings that are read at most; of a larger group so many images as have these, drawn by a hash
            of their ids.

    Returns:
        By image id; or a sentence that says why there is nothing to show.

    Raises:
        LakeError: the lake cannot be read.
    """
    if why := _not_there(asked.config):
        return why
    folder = RunFolder(lake_uri, storage, asked.run_id)
    kept = read_table(folder.files, RECEIPTS_FILE, RECEIPTS)
    if kept is None or "store_id" not in kept[1]:
        return "The run's receipts are gone (retention.staged_days): nothing says where its embeddings are."
    try:
        staged = folder.read_group(asked.group_id)
    except LakeError as exc:
        return f"The run's patch scores are gone (retention.staged_days): {exc}"
    receipts = kept[0].filter(pc.is_in(kept[0]["image_id"], value_set=pa.array(staged.image_ids)))
    store = EmbeddingStore(lake_uri, storage, kept[1]["store_id"])
    try:
        return _searched(staged, asked, _Vectors(store, receipts), count, budget_bytes)
    except LakeError as exc:
        return f"The embeddings cannot be read (retention.embeddings_nights keeps those of the newest nights): {exc}"


class _Vectors:
    """The embeddings of a group's images, by image id."""

    def __init__(self, store: EmbeddingStore, receipts: pa.Table) -> None:
        self._store = store
        rows = receipts.filter(pc.is_valid(receipts["embedding_uri"]))
        places = zip(rows["embedding_uri"].to_pylist(), rows["row"].to_pylist(), strict=True)
        self._places = dict(zip(rows["image_id"].to_pylist(), places, strict=True))

    def of(self, image_id: str) -> np.ndarray:
        """float32 (P, D)."""
        uri, row = self._places[image_id]
        return self._store.read(uri, np.array([row]))[0].astype(np.float32)

    def each(self, image_ids: Sequence[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Some of the images at a time, file by file: ids, float32 (n, P, D)."""
        by_file: dict[str, list[tuple[str, int]]] = {}
        for image_id in image_ids:
            uri, row = self._places[image_id]
            by_file.setdefault(uri, []).append((image_id, row))
        for uri, members in by_file.items():
            for part in batches(members, _IMAGES_AT_ONCE):
                found = self._store.read(uri, np.array([row for _, row in part]))
                yield [image_id for image_id, _ in part], found.astype(np.float32)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._places


def _searched(
    staged: StagedGroup, asked: Asked, vectors: _Vectors, count: int, budget_bytes: int
) -> dict[str, Nearest] | str:
    grid = (staged.patch_scores.shape[1], staged.patch_scores.shape[2])
    at = {image_id: place for place, image_id in enumerate(staged.image_ids)}
    wanted = [image for image in asked.images if image in at and image in vectors]
    if not wanted:
        return "The embeddings of these images are gone (retention.embeddings_nights)."
    worst = {image: int(staged.patch_scores[at[image]].argmax()) for image in wanted}
    first = vectors.of(wanted[0])
    if len(first) != grid[0] * grid[1]:
        return "Its samples have several views: which patch of which view was nearest is not kept."
    queries = np.stack([vectors.of(image)[worst[image]] for image in wanted])
    references = [image for image in _references(staged, asked.config) if image in vectors]
    room = max(1, budget_bytes // (2 * first.size))
    panel = [references[place] for place in reference_panel(references, room, 0)]
    allowed = _within_window(asked, grid, [worst[image] for image in wanted])
    found: dict[str, list[Patch]] = {image: [] for image in wanted}
    for members, block in vectors.each(panel):
        cosines = np.einsum("qd,npd->qnp", queries, block, optimize=True)
        cosines = np.where(allowed[:, None, :], cosines, -np.inf)
        nearest = cosines.argmax(axis=2)
        for number, image in enumerate(wanted):
            for member, place in zip(members, nearest[number].tolist(), strict=True):
                if not _never_compared(image, member, staged, at, asked):
                    cosine = float(cosines[number, members.index(member), place])
                    found[image].append(Patch(member, divmod(place, grid[1]), min(1.0, max(0.0, (1 - cosine) / 2))))
    return {
        image: Nearest(
            grid=grid,
            place=divmod(worst[image], grid[1]),
            patch_score=float(staged.patch_scores[at[image]].max()),
            references=tuple(sorted(found[image], key=lambda patch: (patch.distance, patch.image_id))[:count]),
            looked_at=len(found[image]),
            n_references=int(staged.n_references[at[image]]),
        )
        for image in wanted
    }


def _not_there(config: Mapping[str, Any]) -> str | None:
    if config["scoring"]["mode"] == "few_shot":
        return "The night was compared with prompts, whose patches are not kept by image."
    if config["scoring"].get("references") == "accepted":
        return "The night was compared with an accepted run's images, whose patches are not kept by image."
    if config["align"]["enabled"]:
        return "Aligned images are compared in several views: which patch of which view was nearest is not kept."
    return None


def _references(staged: StagedGroup, config: Mapping[str, Any]) -> list[str]:
    most = config["scoring"].get("max_references")
    if most is None:
        return staged.image_ids
    return [staged.image_ids[place] for place in reference_panel(staged.image_ids, most, config["scoring"]["seed"])]


def _within_window(asked: Asked, grid: tuple[int, int], places: Sequence[int]) -> np.ndarray:
    """bool (q, P): patches that each of ``places`` may be compared with."""
    radius = asked.config["scoring"].get("window", "off")
    if radius == "auto":
        said = _WINDOW.search(asked.search or "")
        radius = int(said[1]) if said else "off"
    if not str(radius).isdigit():
        return np.ones((len(places), grid[0] * grid[1]), bool)
    allowed = np.zeros((len(places), grid[0] * grid[1]), bool)
    for row, place in zip(allowed, places, strict=True):
        row[Grid(*grid).near(place, int(radius))] = True
    return allowed


def _never_compared(image: str, other: str, staged: StagedGroup, at: Mapping[str, int], asked: Asked) -> bool:
    """Itself, a copy, another photo of its part, or one with which it shares a defect."""
    same = (
        known.get(image) is not None and known.get(image) == known.get(other) for known in (asked.parts, asked.contents)
    )
    if image == other or any(same):
        return True
    if staged.repeat_group is None:
        return False
    mine, its = int(staged.repeat_group[at[image]]), int(staged.repeat_group[at[other]])
    return mine != 0 and mine == its

"""The images of a group and their embeddings. Without torch: the tasks that load blocks start in no time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from patchead.arrow_columns import codes, digest
from patchead.batches import concurrently
from patchead.lake.embeddings import EmbeddingStore
from patchead.plan.planned import GroupPlan, PromptCounts
from patchead.runtime.executor import CallCounter
from patchead.samples.side_arrays import SideArrays
from patchead.scoring.aggregate import count_references
from patchead.scoring.panel import reference_panel

_COLUMNS = ["image_id", "content_hash", "part_id", "embedding_uri", "row"]
_FILES_AT_ONCE = 4


@dataclass(frozen=True)
class GroupPrompts:
    """Hold what a group is compared with in place of itself: rows as `Group.of` takes them.

    In few-shot mode prompts; accepted images, without ``nulls``, where an accepted run is the reference.
    """

    references: pa.Table
    """The prompts, upright and turned; or the accepted images."""
    nulls: pa.Table
    """What is scored to know how normal images score (method.md §7.3)."""
    views_of: int
    """0, or of how many prompts ``nulls`` are views; see `NullChoice`."""

    @property
    def counts(self) -> PromptCounts:
        """Count them for the plan."""
        return PromptCounts(self.references.num_rows, self.nulls.num_rows, self.views_of)


@dataclass(frozen=True)
class Group:
    """Hold the images of one group, in order of image id: ids, and where their embeddings are. Travels to the actors.

    In few-shot mode ``nulls`` normal images that are scored too stand behind the ``queries`` images of the night, and
    behind these the prompts, which are the references.
    """

    group_id: str
    image_ids: list[str]
    content: np.ndarray  # int64 (N,), equal for equal content
    part: np.ndarray  # int64 (N,), equal for one physical part, -1 for none
    uris: np.ndarray  # int64 (N,) into ``files``
    rows: np.ndarray  # int32 (N,)
    files: list[str]
    queries: int
    nulls: int = 0
    views_of: int = 0
    """0, or of how many prompts ``nulls`` are views; see `NullChoice`."""

    @property
    def scored(self) -> int:
        """Count the images that are scored."""
        return self.queries + self.nulls

    @classmethod
    def of(cls, group_id: str, images: pa.Table, prompts: GroupPrompts | None = None) -> Group:
        """Take rows with image_id, content_hash, part_id, embedding_uri and row; so are the ``prompts``."""
        queries = images.num_rows
        if "same_as" in images.column_names:  # twins have one content
            images = images.drop_columns(["content_hash"]).rename_columns({"same_as": "content_hash"})
        if prompts is not None:
            parts = (images, prompts.nulls, prompts.references)
            images = pa.concat_tables([part.select(_COLUMNS) for part in parts])
        files = images["embedding_uri"].combine_chunks().dictionary_encode()
        return cls(
            group_id=group_id,
            image_ids=images["image_id"].to_pylist(),
            content=codes(images["content_hash"]),
            part=codes(images["part_id"]),
            uris=np.asarray(files.indices),
            rows=np.asarray(images["row"]),
            files=files.dictionary.to_pylist(),
            queries=queries,
            nulls=0 if prompts is None else prompts.nulls.num_rows,
            views_of=0 if prompts is None else prompts.views_of,
        )

    def panel(self, max_references: int | None, seed: int) -> np.ndarray | None:
        """Choose the references: the panel (method.md §9.3) or the prompts, as indices; None for the whole group."""
        if self.scored < len(self.image_ids):
            return np.arange(self.scored, len(self.image_ids))
        if max_references is None or max_references >= len(self.image_ids):
            return None
        return reference_panel(self.image_ids, max_references, seed)

    def n_references(self, panel: np.ndarray | None) -> np.ndarray:
        """Count the references of each scored image: int32 (N,)."""
        return count_references(self.content, self.part, panel)[: self.scored]


@dataclass(frozen=True)
class GroupJob:
    """Hold a group, how it is scored, and which of its images are references."""

    group: Group
    plan: GroupPlan
    panel: np.ndarray | None
    digest: str = ""
    """Of everything that its scores depend on: it is staged under this."""

    @property
    def references(self) -> np.ndarray:
        """Give the positions of the references, int64 (R,), ascending."""
        return np.arange(len(self.group.image_ids)) if self.panel is None else self.panel

    def queries_of(self, block: int) -> np.ndarray:
        """Return the positions of the images of a query block."""
        images = self.plan.blocks()[block]
        return np.arange(images.start, images.stop)

    def images_of(self, block: int) -> np.ndarray:
        """Return the positions of the images of a block that is loaded.

        Symmetric: block ``block`` of the group. Row-stationary: a block of references, and behind those the images of
        each query block that are no references.
        """
        if self.plan.schedule == "symmetric":
            return self.queries_of(block)
        count = self.plan.reference_blocks()
        if block < count:
            return np.array_split(self.references, count)[block]
        return np.setdiff1d(self.queries_of(block - count), self.references)


def compared_digest(groups: Iterable[pa.Table], prompts: Sequence[GroupPrompts]) -> str:
    """Hash which images are compared with which, and who takes whose place as a reference."""
    columns = ["group_id", "image_id", "content_hash", "part_id"]
    found = digest(groups, [*columns, "same_as"])
    found += digest((of.references for of in prompts), [*columns, "turn"])
    return found + digest((of.nulls for of in prompts), [*columns, "role"]) if prompts else found


def load(store: EmbeddingStore, group: Group, indices: np.ndarray) -> np.ndarray:
    """Load embeddings float16 (n, P, D) of the group's images ``indices``, each file read once."""
    if not len(indices):
        raise ValueError("no image to load")
    return _by_file(group, indices, lambda uri, rows: {"embedding": store.read(uri, rows)})["embedding"]


def load_side_arrays(store: EmbeddingStore, group: Group) -> SideArrays:
    """Load what is kept with the embeddings of the images that are scored."""
    return SideArrays.of_columns(_by_file(group, np.arange(group.scored), store.read_side_arrays))


def _by_file(
    group: Group, indices: np.ndarray, read: Callable[[str, np.ndarray], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays (n, …) by name, of the group's images ``indices`` (n,), from ``read(uri, rows)`` of each file.

    Some files are read at a time: what takes long, comparing their checksums and copying them, holds no lock.
    """
    wanted, out = group.uris[indices], dict[str, np.ndarray]()

    def fill(file: int) -> None:
        place = np.flatnonzero(wanted == file)
        for name, values in read(group.files[file], group.rows[indices[place]]).items():
            if name not in out:
                out[name] = np.empty((len(indices), *values.shape[1:]), values.dtype)
            out[name][place] = values

    first, *others = np.unique(wanted).tolist()
    fill(first)  # which says of what shape the arrays are
    for _ in concurrently(fill, others, _FILES_AT_ONCE):
        pass
    return out


def load_block(store: EmbeddingStore, job: GroupJob, block: int, counter: CallCounter) -> np.ndarray:
    """Load one block of the plan of a group, counted as one read. Returns float16 (n, P, D); n may be 0."""
    indices = job.images_of(block)
    if not len(indices):
        return np.empty((0, 1, 1), np.float16)
    loaded = load(store, job.group, indices)
    counter.read(f"{job.group.group_id} {indices[0]}-{indices[-1]}", loaded.nbytes)
    return loaded


def gather(wanted: np.ndarray, columns: Sequence[np.ndarray], blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Gather the images ``wanted`` (n,) from ``blocks``; ``columns`` says which images each block holds, ascending."""
    out = np.empty((len(wanted), *blocks[0].shape[1:]), blocks[0].dtype)
    missing = np.ones(len(wanted), bool)
    for column, block in zip(columns, blocks, strict=True):
        if not len(column):
            continue
        here = np.flatnonzero(np.isin(wanted, column))
        out[here] = block[np.searchsorted(column, wanted[here])]
        missing[here] = False
    if missing.any():
        raise ValueError(f"image {wanted[missing][0]} is in none of the blocks")
    return out

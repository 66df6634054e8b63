"""Stage 5: leave-one-out scores of every planned group, by Ray actors over whole groups or over tiles."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.numerics.aggregate import count_references, image_scores
from patchead.numerics.leave_one_out import GroupScores, Rule, reduce_rows, reference_panel, score_group, score_rows
from patchead.numerics.memory import product_bytes
from patchead.numerics.similarity import tile, tile_self
from patchead.numerics.vectors import prepare
from patchead.pipeline.columns import codes
from patchead.pipeline.plan import GroupPlan, Plan
from patchead.pipeline.session import Pool, worker_errors
from patchead.pipeline.spread import Submit, spread


@dataclass(frozen=True)
class ScoreSettings:
    """What every scoring actor needs to know."""

    rule: Rule
    precision: str
    memory_bytes: int
    grid: tuple[int, int]
    max_references: int | None
    seed: int
    digest: str  # of everything a staged score depends on beside its images


@dataclass(frozen=True)
class Group:
    """The images of one group, in order of image id: ids, and where their embeddings are. Travels to the actors."""

    group_id: str
    image_ids: list[str]
    content: np.ndarray  # int64 (N,), equal for equal content
    part: np.ndarray  # int64 (N,), equal for one physical part, -1 for none
    uris: np.ndarray  # int64 (N,) into ``files``
    rows: np.ndarray  # int32 (N,)
    files: list[str]

    @classmethod
    def of(cls, group_id: str, images: pa.Table) -> Group:
        """From rows with image_id, content_hash, part_id, embedding_uri and row."""
        files = images["embedding_uri"].combine_chunks().dictionary_encode()
        return cls(
            group_id,
            images["image_id"].to_pylist(),
            codes(images["content_hash"]),
            codes(images["part_id"]),
            np.asarray(files.indices),
            np.asarray(images["row"]),
            files.dictionary.to_pylist(),
        )

    def panel(self, settings: ScoreSettings) -> np.ndarray | None:
        """Indices of the reference panel, or None for the whole group (method.md §9)."""
        if settings.max_references is None or settings.max_references >= len(self.image_ids):
            return None
        return reference_panel(self.image_ids, settings.max_references, settings.seed)

    def n_references(self, panel: np.ndarray | None) -> np.ndarray:
        """How many references each image has. Returns int32 (N,)."""
        return count_references(self.content, self.part, panel)


def load(store: EmbeddingStore, group: Group, indices: np.ndarray) -> np.ndarray:
    """Embeddings float16 (n, P, D) of the group's images ``indices``, each file read once."""
    wanted = group.uris[indices]
    out: np.ndarray | None = None
    for file in np.unique(wanted):
        place = np.flatnonzero(wanted == file)
        block = store.read(group.files[file], group.rows[indices[place]])
        out = np.empty((len(indices), *block.shape[1:]), np.float16) if out is None else out
        out[place] = block
    if out is None:
        raise ValueError("no image to load")
    return out


class Scorer:
    """One actor. Reads embeddings, runs the kernels, writes staged scores; returns only what is small."""

    def __init__(self, store: EmbeddingStore, folder: RunFolder, settings: ScoreSettings, pool: Pool) -> None:
        torch.set_num_threads(pool.threads)
        self._store, self._folder, self._settings, self._device = store, folder, settings, pool.device
        self._product_bytes = product_bytes(settings.memory_bytes)

    def whole(self, group: Group, plan: GroupPlan) -> str:
        """Score a group that fits one actor and stage it."""
        settings = self._settings
        scores = score_group(
            load(self._store, group, np.arange(len(group.image_ids))),
            group.content,
            group.part,
            rule=settings.rule,
            device=self._device,
            precision=settings.precision,
            schedule=plan.schedule,
            memory_bytes=settings.memory_bytes,
            panel=group.panel(settings),
        )
        return self._stage(group, scores)

    def tile(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both directions of one tile: distances float32 (Na, Nb, P) and (Nb, Na, P)."""
        forth, back = tile(*(self._prepared(block) for block in (a, b)), budget_bytes=self._product_bytes)
        return forth.cpu().numpy(), back.cpu().numpy()

    def diagonal(self, a: np.ndarray) -> np.ndarray:
        """The tile of a block with itself: float32 (Na, Na, P)."""
        return tile_self(self._prepared(a), budget_bytes=self._product_bytes).cpu().numpy()

    def _prepared(self, block: np.ndarray) -> torch.Tensor:
        return prepare(block, device=self._device, precision=self._settings.precision)

    def reduce(self, group: Group, rows: slice, columns: list[np.ndarray], *distances: np.ndarray) -> np.ndarray:
        """Patch scores float32 (B, P) of one row block from the tiles of its row."""
        return reduce_rows(
            zip(columns, distances, strict=True),
            np.arange(rows.start, rows.stop),
            group.content,
            group.part,
            self._settings.rule,
            group.n_references(None)[rows],
            self._device,
        )

    def rows(self, group: Group, rows: slice, columns: list[np.ndarray], blocks: list[ray.ObjectRef]) -> np.ndarray:
        """Patch scores float32 (B, P) of one row block, its references streaming past one block at a time."""
        settings = self._settings
        index = np.arange(rows.start, rows.stop)
        return score_rows(
            load(self._store, group, index),
            index,
            ((column, ray.get(block)) for column, block in zip(columns, blocks, strict=True)),
            group.content,
            group.part,
            rule=settings.rule,
            n_references=group.n_references(group.panel(settings))[rows],
            device=self._device,
            precision=settings.precision,
            memory_bytes=settings.memory_bytes,
        )

    def finish(self, group: Group, *row_blocks: np.ndarray) -> str:
        """Stage a group whose patch scores came block by block."""
        patches = np.concatenate(row_blocks)
        n_references = group.n_references(group.panel(self._settings))
        scores = image_scores(patches, self._settings.rule.image_top_fraction)
        return self._stage(group, GroupScores(patches, scores, n_references))

    def _stage(self, group: Group, scores: GroupScores) -> str:
        height, width = self._settings.grid
        patches = scores.patch_scores.reshape(-1, height, width)
        self._folder.write_group(group.group_id, group.image_ids, patches, scores, digest=self._settings.digest)
        return group.group_id


def score(
    plan: Plan,
    group_of: Callable[[str], Group],
    store: EmbeddingStore,
    folder: RunFolder,
    settings: ScoreSettings,
    pool: Pool,
    *,
    advance: Callable[[int], None],
) -> None:
    """Score every planned group and stage it in the run's folder; groups staged before are passed over.

    Raises:
        PatcheadError: embeddings cannot be read, or scores cannot be staged.
    """
    staged = folder.scored_groups(settings.digest)
    todo = [group for group in plan.scored if group.group_id not in staged]
    advance(sum(group.images for group in plan.scored) - sum(group.images for group in todo))
    if not todo:
        return
    # A lost actor is started again and its calls are retried for as long as it takes: every call is idempotent.
    remote = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus, max_restarts=-1, max_task_retries=-1)(Scorer)
    loader = ray.remote(num_cpus=pool.decode_cpus)(load)
    actors = [remote.remote(store, folder, settings, pool) for _ in range(pool.size)]
    sizes = {group.group_id: group.images for group in todo}
    with worker_errors():
        for group in (group for group in todo if not group.whole):
            advance(sizes[_score_in_blocks(group, group_of(group.group_id), store, settings, loader, actors)])
        wholes = ((g.group_id, _whole(g, group_of)) for g in todo if g.whole)
        for group_id, reference in spread(actors, wholes):
            ray.get(reference)
            advance(sizes[group_id])


def _whole(plan: GroupPlan, group_of: Callable[[str], Group]) -> Submit:
    return lambda actor: actor.whole.remote(group_of(plan.group_id), plan)


def _score_in_blocks(
    plan: GroupPlan, group: Group, store: EmbeddingStore, settings: ScoreSettings, loader: Any, actors: Sequence[Any]
) -> str:
    """Cut one large group into blocks, put each once into the object store, and spread its tiles."""
    blocks = [slice(s, min(s + plan.block_images, plan.images)) for s in range(0, plan.images, plan.block_images)]
    handle = ray.put(group)
    if plan.schedule == "symmetric":
        columns = [np.arange(block.start, block.stop) for block in blocks]
        loaded = [loader.remote(store, handle, column) for column in columns]
        parts = _symmetric(plan, handle, blocks, columns, loaded, actors)
    else:
        panel = group.panel(settings)
        references = np.arange(plan.images) if panel is None else panel
        columns = np.array_split(references, math.ceil(len(references) / plan.block_images))
        loaded = [loader.remote(store, handle, column) for column in columns]
        parts = _row_stationary(handle, blocks, columns, loaded, actors)
    return ray.get(actors[0].finish.remote(handle, *parts))


def _symmetric(
    plan: GroupPlan,
    group: ray.ObjectRef,
    blocks: list[slice],
    columns: list[np.ndarray],
    loaded: list[ray.ObjectRef],
    actors: Sequence[Any],
) -> list[ray.ObjectRef]:
    row: list[dict[int, ray.ObjectRef]] = [{} for _ in blocks]

    def job(a: int, b: int) -> Submit:
        def submit(actor: Any) -> ray.ObjectRef:
            if a == b:
                row[a][a] = actor.diagonal.remote(loaded[a])
            else:
                row[a][b], row[b][a] = actor.tile.options(num_returns=2).remote(loaded[a], loaded[b])
            return row[a][b]

        return submit

    deque(spread(actors, (((a, b), job(a, b)) for a, b in plan.tiles())), maxlen=0)  # results stay where they are

    def reduce(i: int) -> Submit:
        return lambda actor: actor.reduce.remote(group, blocks[i], [columns[j] for j in row[i]], *row[i].values())

    return _ordered(actors, map(reduce, range(len(blocks))))


def _row_stationary(
    group: ray.ObjectRef,
    blocks: list[slice],
    columns: list[np.ndarray],
    loaded: list[ray.ObjectRef],
    actors: Sequence[Any],
) -> list[ray.ObjectRef]:
    def rows(block: slice) -> Submit:
        return lambda actor: actor.rows.remote(group, block, columns, loaded)

    return _ordered(actors, map(rows, blocks))


def _ordered(actors: Sequence[Any], submits: Iterable[Submit]) -> list[ray.ObjectRef]:
    done = dict(spread(actors, enumerate(submits)))
    return [done[index] for index in sorted(done)]

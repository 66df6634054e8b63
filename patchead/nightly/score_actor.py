"""The scoring actor: reads embeddings, runs the kernels, stages scores. One group, or one tile, at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import ray
import torch

from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.group import Group, gather, load_block, load_side_arrays
from patchead.plan.group_plan import GroupPlan
from patchead.runtime.pool import Pool
from patchead.samples.finish import finish_samples
from patchead.samples.mask import ForegroundMask
from patchead.samples.side_arrays import SideArrays
from patchead.scoring.leave_one_out import Aggregation, reduce_query_block, score_group, score_query_block
from patchead.scoring.memory_budget import matmul_bytes
from patchead.scoring.precision import prepare
from patchead.scoring.similarity import tile, tile_self


@dataclass(frozen=True)
class ScoreSettings:
    """What every scoring actor needs to know."""

    aggregation: Aggregation
    precision: str
    memory_bytes: int
    grid: tuple[int, int]
    max_references: int | None
    seed: int
    digest: str  # of everything a staged score depends on beside its images
    mask: ForegroundMask | None = None
    has_side_arrays: bool = False  # whether the mask or the alignment left something beside the embeddings

    def panel(self, group: Group) -> np.ndarray | None:
        """Indices of the group's references, or None for all of it."""
        return group.panel(self.max_references, self.seed)


class ScoreActor:
    """One actor. Calls return None first, so that the driver hears of an error without fetching a result."""

    def __init__(
        self, index: int, store: EmbeddingStore, folder: RunFolder, settings: ScoreSettings, pool: Pool, counts: str
    ) -> None:
        """``index`` is the actor's number, ``counts`` the name of the `CallCounts` that counts its calls."""
        torch.set_num_threads(pool.threads)
        self._index, self._counts = index, ray.get_actor(counts)
        self._store, self._folder, self._settings, self._device = store, folder, settings, pool.device
        self._product_bytes = matmul_bytes(settings.memory_bytes)

    def whole(self, group: Group, plan: GroupPlan) -> None:
        """Score a group that fits one actor and stage it."""
        settings = self._settings
        with self._counted(group.group_id):
            scores = score_group(
                load_block(self._store, group, np.arange(len(group.image_ids)), self._counts),
                group.content,
                group.part,
                aggregation=settings.aggregation,
                device=self._device,
                precision=settings.precision,
                schedule=plan.schedule,
                memory_bytes=settings.memory_bytes,
                panel=settings.panel(group),
                queries=group.queries if group.queries < len(group.image_ids) else None,
            )
            self._stage(group, scores.patch_scores, scores.n_references)

    def tile(self, name: str, a: np.ndarray, b: np.ndarray) -> tuple[None, np.ndarray, np.ndarray]:
        """Both directions of one tile: distances float32 (Na, Nb, P) and (Nb, Na, P)."""
        with self._counted(name):
            forth, back = tile(*(self._prepared(block) for block in (a, b)), budget_bytes=self._product_bytes)
            return None, forth.cpu().numpy(), back.cpu().numpy()

    def diagonal(self, name: str, a: np.ndarray) -> tuple[None, np.ndarray]:
        """The tile of a block with itself: float32 (Na, Na, P)."""
        with self._counted(name):
            return None, tile_self(self._prepared(a), budget_bytes=self._product_bytes).cpu().numpy()

    def reduce(
        self, name: str, group: Group, rows: slice, columns: list[np.ndarray], *distances: np.ndarray
    ) -> tuple[None, np.ndarray]:
        """Patch scores float32 (B, P) of one row block from the tiles of its row."""
        with self._counted(name):
            return None, reduce_query_block(
                zip(columns, distances, strict=True),
                np.arange(rows.start, rows.stop),
                group.content,
                group.part,
                self._settings.aggregation,
                group.n_references(None)[rows],
                self._device,
            )

    def rows(
        self,
        name: str,
        group: Group,
        rows: slice,
        columns: list[np.ndarray],
        blocks: list[ray.ObjectRef],
        others: np.ndarray,
        own: np.ndarray | None,
    ) -> tuple[None, np.ndarray]:
        """Patch scores float32 (B, P) of one row block, its references streaming past one block at a time.

        ``columns`` and ``blocks`` are the references; ``others`` the row block's images that are none, and ``own``
        their embeddings.
        """
        settings, index = self._settings, np.arange(rows.start, rows.stop)
        with self._counted(name):
            among = [i for i, column in enumerate(columns) if np.isin(column, index).any()]
            held = [columns[i] for i in among], ray.get([blocks[i] for i in among])
            query = gather(index, *held) if own is None else gather(index, [*held[0], others], [*held[1], own])
            return None, score_query_block(
                query,
                index,
                ((column, ray.get(block)) for column, block in zip(columns, blocks, strict=True)),
                group.content,
                group.part,
                aggregation=settings.aggregation,
                n_references=group.n_references(settings.panel(group))[rows],
                device=self._device,
                precision=settings.precision,
                memory_bytes=settings.memory_bytes,
            )

    def finish(self, name: str, group: Group, *row_blocks: np.ndarray) -> None:
        """Stage a group whose patch scores came block by block."""
        with self._counted(name):
            self._stage(group, np.concatenate(row_blocks), group.n_references(self._settings.panel(group)))

    @contextmanager
    def _counted(self, task: str) -> Iterator[None]:
        ray.get(self._counts.began.remote(task))  # waits, so that what is lost from here on has been counted
        start = time.perf_counter()
        yield
        self._counts.finished.remote(self._index, time.perf_counter() - start)

    def _prepared(self, block: np.ndarray) -> torch.Tensor:
        return prepare(block, device=self._device, precision=self._settings.precision)

    def _stage(self, group: Group, raw: np.ndarray, n_references: np.ndarray) -> None:
        """Finish the patch scores (N, V · P) that matching gave, and stage them."""
        settings = self._settings
        side_arrays = load_side_arrays(self._store, group) if settings.has_side_arrays else SideArrays()
        done = finish_samples(
            raw, settings.grid, side_arrays, mask=settings.mask, top_fraction=settings.aggregation.image_top_fraction
        )
        self._folder.write_group(
            group.group_id,
            group.image_ids[: group.queries],
            done.patch_scores,
            done.image_scores,
            n_references,
            side_arrays.aligned,
            digest=settings.digest,
        )

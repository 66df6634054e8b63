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
from patchead.numerics.beside import Beside
from patchead.numerics.leave_one_out import Rule, reduce_rows, score_group, score_rows
from patchead.numerics.mask import MaskRule
from patchead.numerics.memory import product_bytes
from patchead.numerics.samples import finish_samples
from patchead.numerics.similarity import tile, tile_self
from patchead.numerics.vectors import prepare
from patchead.pipeline.groups import Group, gather, load_beside, load_block
from patchead.pipeline.plan import GroupPlan
from patchead.pipeline.pool import Pool


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
    mask: MaskRule | None = None
    beside: bool = False  # whether the mask or the alignment left something beside the embeddings

    def panel(self, group: Group) -> np.ndarray | None:
        """Indices of the group's references, or None for all of it."""
        return group.panel(self.max_references, self.seed)


class Scorer:
    """One actor. Calls return None first, so that the driver hears of an error without fetching a result."""

    def __init__(
        self, index: int, store: EmbeddingStore, folder: RunFolder, settings: ScoreSettings, pool: Pool, ledger: str
    ) -> None:
        """``index`` is the actor's number, ``ledger`` the name of the `Ledger` that counts its calls."""
        torch.set_num_threads(pool.threads)
        self._index, self._ledger = index, ray.get_actor(ledger)
        self._store, self._folder, self._settings, self._device = store, folder, settings, pool.device
        self._product_bytes = product_bytes(settings.memory_bytes)

    def whole(self, group: Group, plan: GroupPlan) -> None:
        """Score a group that fits one actor and stage it."""
        settings = self._settings
        with self._counted(group.group_id):
            scores = score_group(
                load_block(self._store, group, np.arange(len(group.image_ids)), self._ledger),
                group.content,
                group.part,
                rule=settings.rule,
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
            return None, reduce_rows(
                zip(columns, distances, strict=True),
                np.arange(rows.start, rows.stop),
                group.content,
                group.part,
                self._settings.rule,
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
            return None, score_rows(
                query,
                index,
                ((column, ray.get(block)) for column, block in zip(columns, blocks, strict=True)),
                group.content,
                group.part,
                rule=settings.rule,
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
        ray.get(self._ledger.began.remote(task))  # waits, so that what is lost from here on has been counted
        start = time.perf_counter()
        yield
        self._ledger.finished.remote(self._index, time.perf_counter() - start)

    def _prepared(self, block: np.ndarray) -> torch.Tensor:
        return prepare(block, device=self._device, precision=self._settings.precision)

    def _stage(self, group: Group, raw: np.ndarray, n_references: np.ndarray) -> None:
        """Finish the patch scores (N, V · P) that matching gave, and stage them."""
        settings = self._settings
        beside = load_beside(self._store, group) if settings.beside else Beside()
        done = finish_samples(
            raw, settings.grid, beside, mask=settings.mask, top_fraction=settings.rule.image_top_fraction
        )
        self._folder.write_group(
            group.group_id,
            group.image_ids[: group.queries],
            done.patch_scores,
            done.image_scores,
            n_references,
            beside.aligned,
            digest=settings.digest,
        )

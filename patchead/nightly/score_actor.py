"""The scoring actor: reads embeddings, runs the kernels, stages scores. One task of the plan at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from patchead.batches import slices
from patchead.errors import PatcheadError
from patchead.nightly.group import Group, GroupJob, gather, load, load_side_arrays
from patchead.nightly.score_spec import BlockScores, ScoreSpec, exact_of, measured_of, search_of, told_of
from patchead.plan.tasks import PACK, Task
from patchead.samples.finish import Finished, finish_samples
from patchead.samples.side_arrays import SideArrays
from patchead.samples.wanted import FinishedImages
from patchead.scoring.leave_one_out import reduce_query_block, score_group, score_query_block
from patchead.scoring.memory_budget import matmul_bytes
from patchead.scoring.precision import prepare
from patchead.scoring.rescore import Compared, Rescored, rescore, search_images
from patchead.scoring.similarity import tile, tile_self
from patchead.scoring.subspace import subspace_residuals
from patchead.search.bounded_group import BoundedScores, SearchedFully
from patchead.search.score import BOUNDED, WINDOWED
from patchead.search.score import score_group as score_bounded_group
from patchead.search.score import score_query_block as score_bounded_block

_IMAGES_AT_ONCE = 16


class ScoreActor:
    """Do the tasks of a plan: each method is one kind of `plan.tasks.Task`, and takes what the task needs."""

    def setup(self, spec: ScoreSpec) -> None:
        """Take the store, the settings and the threads of a stage."""
        torch.set_num_threads(spec.pool.threads)
        self._store, self._folder, self._settings = spec.store, spec.folder, spec.settings
        self._device, self._counter, self._in_a_pack = spec.pool.device, spec.counter, False
        self._matmul_bytes = matmul_bytes(spec.settings.memory_bytes)

    def whole(self, task: Task, job: GroupJob) -> None:
        """Score a group that fits one actor and stage it."""
        settings, group = self._settings, job.group
        with self._counted(task):
            everything = np.arange(len(group.image_ids))
            embeddings = load(self._store, group, everything)
            self._counter.read(f"{group.group_id} 0-{len(everything) - 1}", embeddings.nbytes, wait=False)
            side_arrays = self._side_arrays(group)
            # The full search is called at once: one function less between the command and the multiplication.
            goal, shown = self._goal(side_arrays), job.plan.shown
            bounds = partial(score_bounded_group, goal=goal, shown=shown, measured=measured_of(group))
            score = bounds if _leaves_patches_out(job) else score_group
            scores = score(
                embeddings,
                group.content,
                group.part,
                aggregation=settings.rule_of(job.plan),
                device=self._device,
                precision=settings.precision,
                schedule=job.plan.schedule,
                memory_bytes=settings.memory_bytes,
                panel=job.panel,
                queries=group.scored if group.scored < len(group.image_ids) else None,
                grid=settings.grid,
            )
            del embeddings
            done = Rescored(scores.patch_scores, scores.n_references, scores.repeats)
            self._stage(job, done, side_arrays, told_of(job.plan, scores.search), scores.exact_images)

    def pack(self, task: Task, jobs: Sequence[GroupJob]) -> None:
        """Score small groups and stage them, one after the other; the first error of one is raised behind the last."""
        errors = list[PatcheadError]()
        with self._counted(task):
            for part, job in zip(task.parts, jobs, strict=True):
                try:
                    self.whole(part, job)
                except PatcheadError as exc:
                    errors.append(exc)
        if errors:
            raise errors[0]

    def tile(self, task: Task, job: GroupJob, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compare two blocks of images, both directions: distances float32 (Na, Nb, P) and (Nb, Na, P)."""
        with self._counted(task):
            forth, back = tile(*(self._prepared(block) for block in (a, b)), budget_bytes=self._matmul_bytes)
            return forth.cpu().numpy(), back.cpu().numpy()

    def diagonal(self, task: Task, job: GroupJob, a: np.ndarray) -> np.ndarray:
        """Compare a block of images with itself: distances float32 (Na, Na, P)."""
        with self._counted(task):
            return tile_self(self._prepared(a), budget_bytes=self._matmul_bytes).cpu().numpy()

    def reduce(self, task: Task, job: GroupJob, *distances: np.ndarray) -> BlockScores:
        """Reduce the tiles of one block's images, in their order, to patch scores float32 (B, P)."""
        (block,) = task.blocks
        others = [b if a == block else a for a, b in job.plan.tiles() if block in (a, b)]
        images = job.queries_of(block)
        with self._counted(task):
            counts = job.group.n_references(None)
            test = self._compared(job).burn_out(images, distances[0].shape[2], counts)
            scores = reduce_query_block(
                zip([job.queries_of(other) for other in others], distances, strict=True),
                images,
                job.group.content,
                job.group.part,
                aggregation=self._settings.aggregation,
                n_references=counts[images],
                device=self._device,
                burn_out=test,
            )
            return BlockScores(scores, None if test is None else test.result())

    def query_block(self, task: Task, job: GroupJob, blocks: Sequence[np.ndarray]) -> BlockScores:
        """Score one block of queries while its references stream past: patch scores float32 (B, P).

        ``blocks`` are the references, and behind them the query block's images that are none, if the plan has such.
        """
        settings, group = self._settings, job.group
        index, count = job.queries_of(task.blocks[0]), job.plan.reference_blocks()
        columns = [job.images_of(block) for block in range(count)]
        with self._counted(task):
            holders = [i for i, column in enumerate(columns) if np.isin(column, index).any()]
            held = [columns[i] for i in holders], [blocks[i] for i in holders]
            if len(blocks) > count:
                held[0].append(job.images_of(count + task.blocks[0]))
                held[1].append(blocks[count])
            facts: Mapping[str, Any] = {}
            if _leaves_patches_out(job):
                found = self._bounded(job, index, [*columns, *held[0][len(holders) :]], blocks)
                if isinstance(found, BoundedScores):
                    return BlockScores(found.patch_scores, None, found.exact_images, found.facts)
                facts = found.facts(symmetric=False)
            query, counts = gather(index, *held), group.n_references(job.panel)
            test = self._compared(job).burn_out(index, query.shape[1], counts)
            scores = score_query_block(
                query,
                index,
                ((column, blocks[i]) for i, column in enumerate(columns)),
                group.content,
                group.part,
                aggregation=settings.aggregation,
                n_references=counts[index],
                device=self._device,
                precision=settings.precision,
                memory_bytes=settings.memory_bytes,
                burn_out=test,
            )
            return BlockScores(scores, None if test is None else test.result(), None, facts)

    def _bounded(
        self, job: GroupJob, index: np.ndarray, columns: Sequence[np.ndarray], blocks: Sequence[np.ndarray]
    ) -> BoundedScores | SearchedFully:
        """Score a block of queries by a window, or bound and refine, unless a full search costs less."""
        settings, group = self._settings, job.group
        held = [(of, blocks[number]) for number, of in enumerate(columns) if len(of)]
        measured = measured_of(group)
        if measured is not None and settings.aggregation.window is not None:  # all blocks must tell the same
            others = np.setdiff1d(measured, index)
            held += [(others, load(self._store, group, others))] if len(others) else []
        return score_bounded_block(
            index,
            held,
            job.references,
            group.content,
            group.part,
            aggregation=settings.aggregation,
            n_references=group.n_references(job.panel)[index],
            device=self._device,
            precision=settings.precision,
            memory_bytes=settings.memory_bytes,
            grid=settings.grid,
            goal=self._goal(self._side_arrays(group)).of(slice(int(index[0]), int(index[-1]) + 1)),
            shown=job.plan.shown,
            asked=not job.plan.tries_bounds,
            measured=measured,
        )

    def finish(self, task: Task, job: GroupJob, *blocks: BlockScores) -> None:
        """Stage a group whose patch scores came block by block; images of repeats are scored again before."""
        with self._counted(task):
            group = job.group
            evidence = [block.evidence for block in blocks if block.evidence is not None]
            raw = np.concatenate([block.scores for block in blocks])
            load_images = partial(load, self._store, group)
            done = rescore(raw, group.n_references(job.panel), evidence, self._compared(job), load_images)
            search = search_of(blocks) or {"multiplications": 0.5 if job.plan.in_tiles else 1.0}
            self._stage(job, done, self._side_arrays(group), told_of(job.plan, search), exact_of(blocks))

    def search_images(self, task: Task, job: GroupJob, places: np.ndarray) -> np.ndarray:
        """Search all patches of the group's images at ``places``, int64 (n,): finished patch scores (n, h, w)."""
        with self._counted(task):
            group = job.group
            counts = group.n_references(job.panel)[places]
            load_images = partial(load, self._store, group)
            found = [scores for _, scores in search_images(places, counts, self._compared(job), load_images)]
            return self._finished(np.concatenate(found), self._side_arrays(group).of(places)).patch_scores

    def replace_maps(self, task: Task, job: GroupJob, places: np.ndarray, *parts: np.ndarray) -> None:
        """Stage what `search_images` has found, in parts, in the place of the bounds of these images."""
        with self._counted(task):
            self._folder.replace_maps(job.group.group_id, places, np.concatenate(parts))

    @contextmanager
    def _counted(self, task: Task) -> Iterator[None]:
        """Count a call; what it is made of is not counted by itself, as counting takes as long as a small group."""
        if self._in_a_pack:
            yield
            return
        self._counter.began(task.name)
        start, self._in_a_pack = time.perf_counter(), task.kind == PACK
        try:
            yield
        finally:
            self._in_a_pack = False
        self._counter.finished(time.perf_counter() - start)

    def _prepared(self, block: np.ndarray) -> torch.Tensor:
        return prepare(block, device=self._device, precision=self._settings.precision)

    def _side_arrays(self, group: Group) -> SideArrays:
        return load_side_arrays(self._store, group) if self._settings.has_side_arrays else SideArrays()

    def _goal(self, side_arrays: SideArrays) -> FinishedImages:
        """What bound and refine must find exactly."""
        settings = self._settings
        return FinishedImages(settings.grid, side_arrays, settings.mask, settings.aggregation.image_top_fraction)

    def _compared(self, job: GroupJob) -> Compared:
        settings = self._settings
        return Compared(
            content=job.group.content,
            part=job.group.part,
            references=job.references,
            aggregation=settings.rule_of(job.plan),
            device=self._device,
            precision=settings.precision,
            memory_bytes=settings.memory_bytes,
            grid=settings.grid,
        )

    def _stage(
        self,
        job: GroupJob,
        found: Rescored,
        side_arrays: SideArrays,
        search: Mapping[str, Any] | None = None,
        exact: np.ndarray | None = None,
    ) -> None:
        """Finish the patch scores (N, V · P) that matching gave, and stage them."""
        settings, group = self._settings, job.group
        done = self._finished(found.patch_scores, side_arrays, position_level=settings.aggregation.position_level)
        images = slice(group.queries)
        self._folder.write_group(
            group.group_id,
            group.image_ids[images],
            done.patch_scores[images],
            done.image_scores[images],
            found.n_references[images],
            None if side_arrays.aligned is None else side_arrays.aligned[images],
            null_scores=done.image_scores[group.queries :] if group.nulls else None,
            views_of=group.views_of,
            repeat_group=found.repeat_groups if settings.aggregation.finds_repeats else None,
            score_subspace=self._finished(self._residuals(group), side_arrays).image_scores
            if settings.subspace
            else None,
            repeats=[repeat.facts(number, settings.grid) for number, repeat in enumerate(found.repeats, 1)],
            digest=job.digest,
            search=search,
            exact=None if exact is None else exact[images],
        )

    def _finished(self, raw: np.ndarray, side_arrays: SideArrays, *, position_level: bool = False) -> Finished:
        settings = self._settings
        return finish_samples(
            raw,
            settings.grid,
            side_arrays,
            mask=settings.mask,
            top_fraction=settings.aggregation.image_top_fraction,
            position_level=position_level,
        )

    def _residuals(self, group: Group) -> np.ndarray:
        """Subspace residuals float32 (N, V · P) of a group that is read twice, some images at a time."""
        cuts = [np.arange(cut.start, cut.stop) for cut in slices(group.queries, _IMAGES_AT_ONCE)]
        dim = load(self._store, group, np.zeros(1, np.int64)).shape[2]
        parts = subspace_residuals(lambda: (load(self._store, group, cut) for cut in cuts), dim, self._device)
        return np.concatenate(list(parts))


def _leaves_patches_out(job: GroupJob) -> bool:
    """Whether a group may be searched by bounds or by a window; not with repeats, which need every patch."""
    return job.plan.schedule in (BOUNDED, WINDOWED) or job.plan.tries_bounds

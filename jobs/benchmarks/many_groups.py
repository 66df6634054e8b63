"""A night of many groups: small ones that share calls."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from benchmarks.records import Record, ratio
from patchead.forecast.calibrate import unit_vectors
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.group import Group
from patchead.nightly.score import score_groups
from patchead.nightly.score_spec import ScoreSettings, ScoreSpec
from patchead.plan.group_plan import Limits, Plan, make_plan
from patchead.plan.tasks import LOAD, PlannedTasks
from patchead.runtime.pool import Pool
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.session import ray_session
from patchead.schema import OK, RECEIPTS, table
from patchead.scoring.leave_one_out import Aggregation
from patchead.storage import Storage

_MEMORY = 2 * 10**9
_PATCHES, _DIM = 16, 64


def small_groups(groups: int, *, actors: int, repeats: int) -> list[Record]:
    """Score groups of 5 to 12 images of a tiny encoder's size, each by a call of its own and in packs, turn by turn."""
    sizes = {f"g{number:04d}": int(n) for number, n in enumerate(np.random.default_rng(0).integers(5, 13, groups))}
    limits = Limits(memory_bytes=_MEMORY, actors=actors, max_group_size=1000)
    packed = make_plan([*sizes.items()], _PATCHES, _DIM, limits)
    plans = {"a call each": replace(packed, actors=0), "packed": packed}
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    executor = RayExecutor(keep_actors=True)
    with tempfile.TemporaryDirectory() as lake, ray_session(actors):
        store, stored = _stored(lake, sizes)
        run = partial(_seconds, executor, lake, store, stored, actors)
        run(packed, "warm-up")
        for turn in range(repeats):
            for name, plan in plans.items():
                seconds[name].append(run(plan, f"{name.replace(' ', '-')}-{turn}"))
        executor.close()
    figure = partial(
        Record, precision="fp32", benchmark="groups", case=f"{groups} groups of 5 to 12 images, {actors} actors"
    )
    records = []
    for name, plan in plans.items():
        records.append(figure(metric=f"calls, {name}", value=float(_calls(plan))))
        records.append(figure(metric=f"stage, {name}", value=statistics.median(seconds[name]), unit="s"))
    over = ratio(seconds["packed"], seconds["a call each"])
    return [*records, figure(metric="packed over a call each", value=over, unit="x", target="<= 1")]


def _calls(plan: Plan) -> int:
    return sum(task.kind != LOAD for task in PlannedTasks(plan))


def _stored(lake: str, sizes: Mapping[str, int]) -> tuple[EmbeddingStore, dict[str, Group]]:
    store, vectors = EmbeddingStore(lake, Storage(), "encoder"), unit_vectors(max(sizes.values()), _PATCHES, _DIM)
    groups = {}
    for name, n in sizes.items():
        rows = [
            {"image_id": f"{name}-{i}", "content_hash": f"{name}-{i}", "etag": "", "size": 1, "status": OK}
            for i in range(n)
        ]
        receipts = store.write_unit(name, table(rows, RECEIPTS), vectors[:n])
        groups[name] = Group.of(name, receipts.append_column("part_id", pa.nulls(n, pa.string())))
    return store, groups


def _seconds(
    executor: RayExecutor,
    lake: str,
    store: EmbeddingStore,
    groups: Mapping[str, Group],
    actors: int,
    plan: Plan,
    run: str,
) -> float:
    """Seconds of the stage, on actors that are there already."""
    settings = ScoreSettings(aggregation=Aggregation(), precision="fp32", memory_bytes=_MEMORY, grid=(4, 4), digest=run)
    pool = Pool(size=actors, num_cpus=0.75, num_gpus=0, threads=1, decode_cpus=0.25)
    spec = ScoreSpec(store, RunFolder(lake, Storage(), run), settings, pool, executor.call_counter())
    began = time.perf_counter()
    score_groups(executor, plan, groups.__getitem__, spec, pool, advance=lambda _: None)
    return time.perf_counter() - began

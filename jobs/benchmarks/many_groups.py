"""A night of many groups: small ones that share calls, and groups that are scored while others are embedded."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from photo_archive import group_sizes
from rich.console import Console

from benchmarks.records import Record, ratio
from patchead.forecast.calibrate import unit_vectors
from patchead.forecast.cluster import Cluster
from patchead.forecast.device_speeds import named
from patchead.forecast.overlap import Feed, schedules
from patchead.forecast.simulate import simulate
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.group import Group
from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.nightly.score import score_groups
from patchead.nightly.score_spec import ScoreSettings, ScoreSpec
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.planned import Plan
from patchead.plan.tasks import LOAD, PlannedTasks
from patchead.runtime.pool import Pool
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.session import ray_session
from patchead.schema import OK, RECEIPTS, table
from patchead.scoring.leave_one_out import Aggregation
from patchead.settings.load import load_config
from patchead.storage import Storage

_MEMORY = 2 * 10**9
_PATCHES, _DIM = 16, 64
_EMBEDDED_PER_H100 = 2883.0
"""Images per second, from memory to memory, of the default encoder, by one run of `benchmark.py gpu`; another: 2901."""
_DECODED_PER_CORE = 41.0
"""JPEG of 2 megapixels per second, on a core of an AMD EPYC (Zen 4, busy; docs/operations.md)."""
_NIGHT = {
    "encoder.name": "timm/test_vit",
    "encoder.weights": "random",
    "encoder.image_size": 64,
    "encoder.layers": "last",
    "scoring.precision": "fp32",
    "resources.cpus_per_actor": 1,
}


def small_groups(groups: int, *, actors: int, repeats: int) -> list[Record]:
    """Score groups of 5 to 12 images of a tiny encoder's size, each by a call of its own and in packs, turn by turn."""
    sizes = {f"g{number:04d}": int(n) for number, n in enumerate(np.random.default_rng(0).integers(5, 13, groups))}
    packed = _plan(sizes, actors)
    plans = {"a call each": replace(packed, actors=0), "packed": packed}
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    executor = RayExecutor(keep_actors=True)
    with tempfile.TemporaryDirectory() as lake, ray_session(actors):
        store, stored = _stored(lake, sizes)
        run = partial(_scored, executor, lake, store, stored, actors)
        run(packed, "warm-up")
        for turn in range(repeats):
            for name, plan in plans.items():
                seconds[name].append(run(plan, f"{name.replace(' ', '-')}-{turn}")[0])
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


def night(groups: int, most: int, *, repeats: int) -> list[Record]:
    """A night of many groups, simulated on GPUs and measured here."""
    found = [record for cores in (8, 32) for record in simulated_night(300, gpus=4, cores=cores)]
    return found + idle_actors(groups, 800, actors=2, repeats=repeats) + measured_night(groups, most, repeats=repeats)


def idle_actors(groups: int, most: int, *, actors: int, repeats: int) -> list[Record]:
    """Score groups of 3 to ``most`` images of a tiny encoder's size on CPU actors: how long the idlest has no call."""
    sizes, executor = group_sizes(groups, 3, most), RayExecutor(keep_actors=True)
    plan, idle = _plan(sizes, actors), list[float]()
    with tempfile.TemporaryDirectory() as lake, ray_session(actors):
        store, stored = _stored(lake, sizes)
        for turn in range(1 + repeats):  # the first one starts the actors
            _, summary = _scored(executor, lake, store, stored, actors, plan, f"turn-{turn}")
            idle.append(100 * max(summary["actor_idle"]))
        executor.close()
    case = f"scoring {groups} groups of 3 to {most} images, {actors} CPU actors"
    figure = partial(Record, precision="fp32", benchmark="night", case=case)
    return [
        figure(metric="calls", value=float(_calls(plan))),
        figure(
            metric="actor idle before its last call, at most",
            value=statistics.median(idle[1:]),
            unit="%",
            target="<= 10",
        ),
    ]


def simulated_night(groups: int, *, gpus: int, cores: int) -> list[Record]:
    """Groups of 3 to 800 images on GPUs by their data sheet: idle actors, and both schedules of the night."""
    figures = named("H100")
    cluster = Cluster(actors=gpus, actors_per_node=gpus, figures=figures, precision="fp16")
    sizes = group_sizes(groups, 3, 800)
    plan = make_plan([*sizes.items()], 1024, 1152, Limits(memory_bytes=16 * 10**9, actors=gpus, precision="fp16"))
    scoring = simulate(PlannedTasks(plan), cluster)
    feed = Feed(decoded=gpus * cores * _DECODED_PER_CORE, embedded=gpus * _EMBEDDED_PER_H100)
    found = schedules(plan, cluster, feed)
    case = f"simulated: {groups} groups of 3 to 800 images, {gpus} H100, {cores} cores each"
    figure = partial(Record, precision="fp16", benchmark="night", case=case)
    return [
        figure(metric="actor idle before the last calls, at most", value=100 * scoring.idle, unit="%", target="<= 10"),
        figure(metric="calls", value=float(scoring.tasks)),
        figure(metric="embedding, then scoring", value=found.staged, unit="s"),
        figure(metric="overlapped", value=found.overlapped, unit="s"),
        figure(metric="overlapped over stage after stage", value=found.overlapped / found.staged, unit="x"),
        figure(metric="groups scored while others were embedded", value=float(found.meanwhile)),
    ]


def measured_night(groups: int, most: int, *, repeats: int) -> list[Record]:
    """A night of tiny pictures and a tiny encoder on two CPU actors, stage after stage and overlapped, turn by turn."""
    found: dict[bool, list[RunRecord]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        images = _pictures(Path(folder) / "archive", group_sizes(groups, 3, most))
        executor = RayExecutor(2)
        with executor.session():
            for turn in range(repeats):
                for overlap, records in sorted(found.items(), reverse=bool(turn % 2)):  # the first one finds all cold
                    lake = Path(folder) / f"lake-{turn}-{overlap}"
                    settings = _NIGHT | {"archive.uri": str(Path(folder) / "archive"), "lake.uri": str(lake)}
                    config = load_config(None, given=settings | {"resources.overlap": overlap})
                    records.append(run_night(config, Console(quiet=True), executor, until="score"))
    staged, overlapped = ([_embed_and_score(record) for record in found[how]] for how in (False, True))
    idle = [max(record.scoring["actor_idle"]) for record in found[False]]
    case = f"{groups} groups of 3 to {most} images ({images} of 48 px), 2 CPU actors"
    figure = partial(Record, precision="fp32", benchmark="night", case=case)
    meanwhile = statistics.median(record.scoring["scored_meanwhile"] for record in found[True])
    return [
        figure(
            metric="actor idle before its last call, at most",
            value=100 * statistics.median(idle),
            unit="%",
            target="<= 10",
        ),
        figure(metric="embedding, then scoring", value=statistics.median(staged), unit="s"),
        figure(metric="overlapped", value=statistics.median(overlapped), unit="s"),
        figure(metric="overlapped over stage after stage", value=ratio(overlapped, staged), unit="x"),
        figure(metric="groups scored while others were embedded", value=float(meanwhile)),
    ]


def _embed_and_score(record: RunRecord) -> float:
    return record.seconds["embed"] + record.seconds["score"]


def _pictures(archive: Path, sizes: Mapping[str, int]) -> int:
    """Write a folder of noisy pictures for each group, and count them."""
    rng = np.random.default_rng(0)
    for name, n in sizes.items():
        folder = archive / f"night=2026-11-21/product={name}"
        folder.mkdir(parents=True)
        for number in range(n):
            picture = (120 + 30 * rng.standard_normal((48, 48, 3))).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{number:04d}.png"), picture)
    return sum(sizes.values())


def _plan(sizes: Mapping[str, int], actors: int) -> Plan:
    limits = Limits(memory_bytes=_MEMORY, actors=actors, max_group_size=1000)
    return make_plan([*sizes.items()], _PATCHES, _DIM, limits)


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


def _scored(
    executor: RayExecutor,
    lake: str,
    store: EmbeddingStore,
    groups: Mapping[str, Group],
    actors: int,
    plan: Plan,
    run: str,
) -> tuple[float, Mapping[str, Any]]:
    """Seconds of the stage, on actors that are there already, and what it says."""
    settings = ScoreSettings(aggregation=Aggregation(), precision="fp32", memory_bytes=_MEMORY, grid=(4, 4), digest=run)
    pool = Pool(size=actors, num_cpus=0.75, num_gpus=0, threads=1, decode_cpus=0.25)
    spec = ScoreSpec(store, RunFolder(lake, Storage(), run), settings, pool, executor.call_counter())
    began = time.perf_counter()
    summary, _ = score_groups(executor, plan, groups.__getitem__, spec, pool, advance=lambda _: None)
    return time.perf_counter() - began, summary

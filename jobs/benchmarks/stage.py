"""What does the Ray stage cost over the bare kernel, and how well do actors share a group? On a local Ray."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.records import Record, measurable, not_measured, ratio
from patchead.batches import slices
from patchead.forecast.calibrate import Sizes, calibrate, unit_vectors
from patchead.forecast.cluster import Cluster
from patchead.forecast.device_speeds import DeviceFigures
from patchead.forecast.simulate import simulate
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.group import Group
from patchead.nightly.score import score_groups
from patchead.nightly.score_spec import ScoreSettings, ScoreSpec
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.tasks import PlannedTasks
from patchead.runtime.pool import Pool
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.session import ray_session
from patchead.schema import OK, RECEIPTS, table
from patchead.scoring.leave_one_out import Aggregation
from patchead.storage import Storage

MEMORY = 4 * 10**9
_PER_FILE = 64
_JOBS = Path(__file__).parent.parent
_OVERHEAD = {"fp32": "<= 8", "int8": "<= 15"}


@dataclass(frozen=True)
class Stored:
    """A group of random embeddings in a lake on this machine."""

    lake: Path
    store: EmbeddingStore
    group: Group
    embeddings: np.ndarray


@contextmanager
def stored_group(n: int, p: int, d: int) -> Iterator[Stored]:
    """N images of P patches and D dimensions in files of 64, in a temporary lake."""
    embeddings = unit_vectors(n, p, d)
    with tempfile.TemporaryDirectory() as folder:
        store, parts = EmbeddingStore(folder, Storage(), "encoder"), []
        for cut in slices(n, _PER_FILE):
            names = [f"{i:06d}" for i in range(cut.start, cut.stop)]
            rows = [{"image_id": i, "content_hash": i, "etag": "", "size": 1, "status": OK} for i in names]
            parts.append(store.write_unit(names[0], table(rows, RECEIPTS), embeddings[cut]))
        images = pa.concat_tables(parts).append_column("part_id", pa.nulls(n, pa.string()))
        yield Stored(Path(folder), store, Group.of("g", images), embeddings)


def run_stage(stored: Stored, run_id: str, precision: str, actors: int, threads: int) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole stage, the start of its actors included, and its summary."""
    n, p, d = stored.embeddings.shape
    settings = ScoreSettings(
        aggregation=Aggregation(), precision=precision, memory_bytes=MEMORY, grid=(p, 1), digest=run_id
    )
    pool = Pool(size=actors, num_cpus=threads - 0.25, num_gpus=0, threads=threads, decode_cpus=0.25)
    folder = RunFolder(str(stored.lake), Storage(), run_id)
    plan = make_plan([("g", n)], p, d, _limits(precision, actors))
    began = time.perf_counter()
    executor = RayExecutor()
    spec = ScoreSpec(stored.store, folder, settings, pool, executor.call_counter())
    summary = score_groups(executor, plan, lambda _: stored.group, spec, pool, advance=lambda _: None).summary
    return time.perf_counter() - began, summary


def overhead(n: int, p: int, d: int, *, repeats: Mapping[str, int]) -> list[Record]:
    """The stage with one actor and all threads, over the kernel in a process of its own; ``repeats`` by precision.

    Both start a process that imports torch, read the embeddings from disk and score them.
    """
    threads, records = torch.get_num_threads(), []
    case = f"N={n} P={p} D={d}, 1 actor"
    fast = measurable(repeats)
    with stored_group(n, p, d) as stored, ray_session(threads):
        file = stored.lake / "embeddings.npy"
        np.save(file, stored.embeddings)
        run_stage(stored, "warm-up", fast[-1], 1, threads)
        for precision, turns in ((name, repeats[name]) for name in fast):
            alone, kernel, stage, inside = [], [], [], []
            for turn in range(turns):
                whole, scoring = run_alone(file, precision, threads)
                alone.append(whole)
                kernel.append(scoring)
                seconds, summary = run_stage(stored, f"{precision}-{turn}", precision, 1, threads)
                stage.append(seconds)
                inside.append(summary["actor_seconds"][0])
            figure = partial(Record, benchmark="overhead", case=case, precision=precision)
            target = _OVERHEAD[precision] if (n, p, d) == (200, 1024, 384) else None
            for metric, over, bound in (
                ("stage over the bare kernel in a process of its own", ratio(stage, alone), target),
                ("the same, both without their start", ratio(inside, kernel), None),
                ("stage with its start over the kernel without", ratio(stage, kernel), None),
            ):
                records.append(figure(metric=metric, value=100 * (over - 1), unit="%", target=bound))
            records.append(figure(metric="stage", value=statistics.median(stage), unit="s"))
    return records + not_measured("overhead", case, repeats, "stage")


def run_alone(file: Path, precision: str, threads: int) -> tuple[float, float]:
    """Seconds of the whole process of `benchmarks.alone`, and of its scoring."""
    command = [sys.executable, "-m", "benchmarks.alone", str(file), precision, str(MEMORY), str(threads)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=_JOBS, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - began, float(done.stdout)


def actors(n: int, p: int, d: int, *, precision: str, repeats: int) -> list[Record]:
    """One actor and two, one thread each, on one group: the time, how evenly two share it, and what was foretold."""
    figures = calibrate(threads=1, actors=2, precisions=(precision,), sizes=Sizes(patches=p, dim=d))
    found: dict[int, list[tuple[float, dict[str, Any]]]] = {1: [], 2: []}
    with stored_group(n, p, d) as stored, ray_session(2):
        for turn in range(repeats):
            for count, runs in found.items():
                runs.append(run_stage(stored, f"{count}-{turn}", precision, count, 1))
    one, two = ([seconds for seconds, _ in found[count]] for count in (1, 2))
    even = statistics.median(summary["slowest_over_mean"] for _, summary in found[2])
    reads = max(summary["reads_of_a_block_per_node"] for runs in found.values() for _, summary in runs)
    case = f"N={n} P={p} D={d}, 1 thread per actor"
    figure = partial(Record, benchmark="actors", case=case, precision=precision)
    records = [
        figure(metric="time of 2 actors over 1", value=ratio(two, one), unit="x", target="<= 0.58"),
        figure(metric="the same of bare kernels, one per core", value=_crowding(figures, precision), unit="x"),
        figure(metric="slowest of 2 actors over their mean", value=even, unit="x", target="<= 1.1"),
        figure(metric="reads of a block per node", value=float(reads), target="<= 1"),
        figure(metric="stage with 1 actor", value=statistics.median(one), unit="s"),
    ]
    for count, seconds in ((1, one), (2, two)):
        plan = make_plan([("g", n)], p, d, _limits(precision, count))
        told = simulate(
            PlannedTasks(plan), Cluster(actors=count, actors_per_node=count, figures=figures, precision=precision)
        ).makespan
        error = 100 * abs(told / statistics.median(seconds) - 1)
        metric = f"simulated time of {count} actor{'s'[: count - 1]}, error"
        records.append(figure(metric=metric, value=error, unit="%", target="<= 25"))
    return records


def _crowding(figures: DeviceFigures, precision: str) -> float:
    """Time of two kernels that share a job on two cores, over that of one alone: 0.5 if the cores did not share."""
    return figures.flops_alone[precision] / (2 * figures.flops[precision])


def _limits(precision: str, actors: int) -> Limits:
    return Limits(memory_bytes=MEMORY, precision=precision, max_group_size=100_000, actors=actors)

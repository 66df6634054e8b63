"""How much memory does scoring take above the embeddings it is given? One fresh process per case."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.records import Record, measurable, not_measured
from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.aggregate import Aggregation
from patchead.search.score import BOUNDED, score_group

_TOLERANCE = 1.1


@dataclass(frozen=True, kw_only=True)
class Case:
    """A group, the budget, and whether the embeddings stay on disk instead of being held."""

    images: int
    patches: int = 256
    dim: int = 384
    precision: str
    memory_gb: float
    schedule: str = "auto"
    on_disk: bool = False
    window: int | None = None

    @property
    def name(self) -> str:
        place = "streamed from disk" if self.on_disk else "held"
        how = self.schedule if self.window is None else f"window r={self.window}"
        return f"N={self.images} P={self.patches} D={self.dim} budget {self.memory_gb:g} GB, {how}, {place}"


QUICK = (
    Case(images=64, dim=64, precision="fp32", memory_gb=0.1),
    Case(images=256, dim=64, precision="fp32", memory_gb=0.2),
    Case(images=256, dim=512, precision="int8", memory_gb=0.06, schedule="row_stationary", on_disk=True),
    Case(images=128, dim=512, precision="fp32", memory_gb=0.2, schedule=BOUNDED),
    Case(images=128, dim=512, precision="fp32", memory_gb=0.08, schedule=BOUNDED, on_disk=True),
    Case(images=256, dim=256, precision="fp32", memory_gb=0.04, window=3, on_disk=True),
)
FULL = (
    *(Case(images=n, precision=precision, memory_gb=0.5) for n in (64, 256) for precision in ("fp32", "int8")),
    Case(images=1024, precision="int8", memory_gb=2.0),
    Case(images=1024, precision="int8", memory_gb=0.1, schedule="row_stationary", on_disk=True),
    Case(images=1024, dim=64, precision="fp32", memory_gb=0.1, schedule="row_stationary", on_disk=True),
    *(Case(images=n, precision="fp32", memory_gb=1.0, schedule=BOUNDED) for n in (256, 1024)),
    Case(images=1024, precision="int8", memory_gb=0.2, schedule=BOUNDED, on_disk=True),
    Case(images=600, precision="fp32", memory_gb=0.09, window=5),
    Case(images=2000, dim=768, precision="fp32", memory_gb=0.2, window=1, on_disk=True),
)


def memory(cases: tuple[Case, ...]) -> list[Record]:
    """Peak of the process's own memory during scoring, above what it held before, as a fraction of the budget."""
    fast = measurable({case.precision: None for case in cases})
    records = [r for case in cases for r in not_measured("memory", case.name, [case.precision], "peak over budget")]
    context = multiprocessing.get_context("spawn")
    for case in (case for case in cases if case.precision in fast):
        with tempfile.TemporaryDirectory() as folder, context.Pool(1) as pool:
            peak = pool.apply(peak_bytes, (case, folder))
        share = peak / (case.memory_gb * 1e9)
        record = Record(
            benchmark="memory",
            case=case.name,
            precision=case.precision,
            metric="peak over budget",
            value=share,
            target=f"<= {_TOLERANCE}",
        )
        records.append(record)
    return records


def peak_bytes(case: Case, folder: str) -> int:
    """Largest growth of this process's anonymous memory while the case is scored, sampled every 2 ms."""
    stored = unit_vectors(case.images, case.patches, case.dim)
    if case.schedule == BOUNDED or case.window is not None:
        stored = _alike(stored)
    if case.on_disk:
        path = Path(folder) / "embeddings.npy"
        np.save(path, stored)
        stored = np.load(path, mmap_mode="r")
    _score(stored[:6], case)  # libraries, threads and the rotation are there before the clock starts
    before, peak, done = _anonymous_bytes(), 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _anonymous_bytes() - before)

    sampler = threading.Thread(target=sample)
    sampler.start()
    _score(stored, case)
    done.set()
    sampler.join()
    return peak


def _alike(vectors: np.ndarray) -> np.ndarray:
    """Vectors of which those of one place are near each other: without that, nothing is bounded."""
    near = vectors[0].astype(np.float32) + 0.3 * vectors.astype(np.float32)
    return (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float16)


def _score(embeddings: np.ndarray, case: Case) -> None:
    torch.set_num_threads(2)
    score_group(
        embeddings,
        np.arange(len(embeddings)),
        aggregation=Aggregation(window=case.window),
        precision=case.precision,
        schedule=case.schedule,
        memory_bytes=int(case.memory_gb * 1e9),
    )


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) * 1024

"""The speeds of this machine, measured in seconds by actors like those that score: `patchead calibrate`."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from patchead.encoders import EncoderSpec, build
from patchead.errors import SettingsError, bad_value
from patchead.forecast.device_speeds import MEASURED, DeviceFigures
from patchead.forecast.feed import encoder_key
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.group import Group, GroupJob, load
from patchead.nightly.score_actor import ScoreActor
from patchead.nightly.score_spec import ScoreSettings, ScoreSpec
from patchead.plan.planned import GroupPlan
from patchead.plan.tasks import group_tasks
from patchead.runtime.pool import Pool
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.session import ray_session
from patchead.schema import OK, RECEIPTS, table
from patchead.scoring.leave_one_out import Aggregation, score_group
from patchead.scoring.memory_budget import GIGABYTE
from patchead.scoring.precision import dtype_of
from patchead.scoring.precision_probe import clearly_slower, probe
from patchead.storage import Storage, join

_MOST_IMAGES = 512
_MEMORY_BYTES = 4 * GIGABYTE
_TINY = (5, 16, 32)  # images, patches and dimensions of a group whose task is all overhead
_EMBEDDED = {"cpu": 16, "cuda": 256}  # images of a turn
_USUAL = {"cpu": ("fp32", "bf16", "int8"), "cuda": ("fp32", "fp16", "bf16", "int8")}


@dataclass(frozen=True)
class Sizes:
    """Say how much is measured: P and D, seconds per call of the kernel, MB read and moved, calls per actor."""

    patches: int = 256
    dim: int = 384
    seconds: float = 0.2
    megabytes: int = 64
    calls: int = 30


class Probe(ScoreActor):
    """Score with stop-watches."""

    def rate(self, precision: str, sizes: Sizes) -> float:
        """Measure the FLOP/s of `score_group`, a group doubled until it takes ``sizes.seconds``, then run thrice."""
        n = 8
        self._score_seconds(unit_vectors(n, sizes.patches, sizes.dim), precision)  # a GPU's first call takes a second
        while True:
            embeddings = unit_vectors(n, sizes.patches, sizes.dim)
            elapsed = self._score_seconds(embeddings, precision)
            if elapsed >= sizes.seconds or n >= _MOST_IMAGES:
                break
            n *= 2
        median = statistics.median([elapsed, *(self._score_seconds(embeddings, precision) for _ in range(2))])
        return n * n * sizes.patches**2 * sizes.dim / median  # as `plan` counts the symmetric schedule

    def _score_seconds(self, embeddings: np.ndarray, precision: str) -> float:
        return _seconds(
            lambda: score_group(
                embeddings,
                np.arange(len(embeddings)),
                aggregation=Aggregation(),
                device=self._device,
                precision=precision,
                schedule="symmetric",
                memory_bytes=_MEMORY_BYTES,
            )
        )

    def embedded(self, spec: EncoderSpec, images: int) -> float:
        """Measure the images/s of an encoder with random weights, which decide nothing here."""
        encoder = build(replace(spec, weights="random"))
        pixels = np.random.default_rng(0).integers(0, 256, (images, *[encoder.image_size] * 2, 3), dtype=np.uint8)
        encoder.embed(pixels)  # what is done once only
        return images / statistics.median([_seconds(lambda: encoder.embed(pixels)) for _ in range(3)])

    def read(self, group: Group) -> float:
        """Measure the seconds to load a group's embeddings from the lake."""
        return _seconds(lambda: load(self._store, group, np.arange(len(group.image_ids))))

    def echo(self, array: np.ndarray) -> np.ndarray:
        """Take an array out of the object store, and put a copy of it back."""
        return array.copy()


def calibrate(
    *,
    threads: int | None = None,
    actors: int | None = None,
    precisions: Sequence[str] = (),
    lake: tuple[str, Storage] | None = None,
    sizes: Sizes | None = None,
    encoder: Callable[[str], EncoderSpec] | None = None,
) -> DeviceFigures:
    """Measure this machine, with all its actors at work and, for the kernel, with one alone.

    Args:
        threads: of one actor; default: as `session.pools` takes them, 4 or what there is.
        actors: that work at the same time; default: one per GPU, else as many as the cores hold.
        precisions: of the scores; default: all that are of use on such a device, on a CPU those that its probe
            does not find slower than fp32.
        lake: where reads are measured; default: a temporary folder, which the page cache serves.
        sizes: how much is measured; default: some seconds' worth.
        encoder: gives the encoder whose pace is measured too, for the device ``cpu`` or ``cuda``.

    Raises:
        SettingsError: threads or actors below 1 or more than there are, an unknown precision, or RAY_ADDRESS is set.
        LakeError: ``lake`` cannot be written or read.
    """
    if os.environ.get("RAY_ADDRESS"):
        raise SettingsError("`patchead calibrate` measures this machine, not a cluster: unset RAY_ADDRESS.")
    cores = os.cpu_count() or 1
    threads = min(4, cores) if threads is None else _within("--threads", threads, cores)
    for precision in precisions:
        dtype_of(precision)
    with ray_session(cores), _lake(lake) as (uri, storage):
        gpus = int(ray.cluster_resources().get("GPU", 0))
        most = gpus or cores // threads
        count = most if actors is None else _within("--actors", actors, most)
        pool = Pool(
            size=count, num_cpus=threads - 0.25, num_gpus=1.0 if gpus else 0.0, threads=threads, decode_cpus=0.25
        )
        return _measure(pool, uri, storage, list(precisions or _of_use(pool)), sizes or Sizes(), encoder)


def _of_use(pool: Pool) -> list[str]:
    """Usual precisions of the device; on a CPU without the instructions for some, those take minutes for nothing."""
    usual = _USUAL[pool.device]
    if pool.device != "cpu":
        return list(usual)
    found = probe("cpu", usual)
    return [name for name in usual if not clearly_slower(found[name])]


def _measure(
    pool: Pool,
    uri: str,
    storage: Storage,
    precisions: list[str],
    sizes: Sizes,
    encoder: Callable[[str], EncoderSpec] | None,
) -> DeviceFigures:
    store = EmbeddingStore(uri, storage, "calibration")
    settings = ScoreSettings(
        aggregation=Aggregation(),
        precision=precisions[0],
        memory_bytes=_MEMORY_BYTES,
        grid=(1, _TINY[1]),
        digest="calibration",
    )
    remote = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)(Probe)
    began = time.perf_counter()
    counter = RayExecutor().call_counter()
    spec = ScoreSpec(store, RunFolder(uri, storage, "calibration"), settings, pool, counter)
    probes = [remote.remote() for _ in range(pool.size)]
    try:
        ray.get([probe.setup.remote(spec) for probe in probes])
        start_seconds = time.perf_counter() - began
        alone = {name: ray.get(probes[0].rate.remote(name, sizes)) for name in precisions}
        together = alone if pool.size == 1 else {name: _mean_rate(probes, name, sizes) for name in precisions}
        return DeviceFigures(
            name=platform.node() or "this machine",
            source=f"{MEASURED} {time.strftime('%Y-%m-%d')}, {sizes.patches} patches x {sizes.dim} dimensions",
            device=pool.device,
            flops=together,
            flops_alone=alone,
            actors_per_node=pool.size,
            threads=pool.threads,
            read_bytes=_read_rate(probes, store, sizes),
            network_bytes=_network_rate(probes, sizes),
            task_seconds=_task_seconds(probes, _stored_group(store, *_TINY), sizes.calls),
            start_seconds=start_seconds,
            embed={} if encoder is None else _embedding_rate(probes, encoder(pool.device)),
        )
    finally:
        for probe in probes:
            ray.kill(probe)


def _mean_rate(probes: list[Any], precision: str, sizes: Sizes) -> float:
    return statistics.mean(ray.get([probe.rate.remote(precision, sizes) for probe in probes]))


def _embedding_rate(probes: list[Any], spec: EncoderSpec) -> dict[str, float]:
    """Images/s of one actor while all work, by `feed.encoder_key`."""
    images = _EMBEDDED[spec.device]
    return {encoder_key(spec): statistics.mean(ray.get([probe.embedded.remote(spec, images) for probe in probes]))}


def _read_rate(probes: list[Any], store: EmbeddingStore, sizes: Sizes) -> float:
    """Bytes/s of all actors together."""
    image = sizes.patches * sizes.dim * 2
    group = _stored_group(store, max(1, sizes.megabytes * 10**6 // image), sizes.patches, sizes.dim)
    runs = [max(ray.get([probe.read.remote(group) for probe in probes])) for _ in range(3)]
    return len(probes) * len(group.image_ids) * image / statistics.median(runs)


def _network_rate(probes: list[Any], sizes: Sizes) -> float:
    """Bytes/s into and out of the object store, of all actors together."""
    array = np.ones(sizes.megabytes * 10**6 // 4, np.float32)

    def turn() -> None:
        ray.wait([probe.echo.remote(ray.put(array)) for probe in probes], num_returns=len(probes))

    turn()
    return len(probes) * 2 * array.nbytes / statistics.median([_seconds(turn) for _ in range(3)])


def _task_seconds(probes: list[Any], tiny: Group, calls: int) -> float:
    """Seconds of an actor per call that loads, scores and stages a handful of images."""
    n = len(tiny.image_ids)
    plan = GroupPlan(group_id=tiny.group_id, images=n, references=n, schedule="symmetric", block_images=n)
    (task,), job = group_tasks(plan, *_TINY[1:]), GroupJob(tiny, plan, None)

    def turn(calls: int) -> None:
        ray.get([probe.whole.remote(task, job) for _ in range(calls // len(probes)) for probe in probes])

    turn(2 * len(probes))
    return _seconds(lambda: turn(calls * len(probes))) / calls


def _stored_group(store: EmbeddingStore, n: int, patches: int, dim: int) -> Group:
    few = unit_vectors(min(n, 8), patches, dim)
    embeddings = np.tile(few, (n // len(few) + 1, 1, 1))[:n]
    rows = [{"image_id": f"{i:06d}", "content_hash": f"{i:06d}", "etag": "", "size": 1, "status": OK} for i in range(n)]
    receipts = store.write_unit(f"{n}-{patches}-{dim}", table(rows, RECEIPTS), embeddings)
    return Group.of("calibration", receipts.append_column("part_id", pa.nulls(n, pa.string())))


def unit_vectors(n: int, patches: int, dim: int) -> np.ndarray:
    """Draw random embeddings, float16 (N, P, D), of length 1; equal for equal sizes."""
    vectors = np.random.default_rng(0).standard_normal((n, patches, dim), dtype=np.float32)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)


@contextmanager
def _lake(given: tuple[str, Storage] | None) -> Iterator[tuple[str, Storage]]:
    """A place for the measured files, removed afterwards."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="patchead-calibrate-") as folder:
            yield folder, Storage()
        return
    uri, storage = join(given[0], f"calibration-{uuid.uuid4().hex}"), given[1]
    try:
        yield uri, storage
    finally:
        filesystem, path = storage.filesystem(uri)
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _within(name: str, value: int, most: int) -> int:
    if not 1 <= value <= most:
        raise SettingsError(bad_value(name, value, f"1 to {most} on this machine"))
    return value

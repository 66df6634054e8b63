"""What a run tells Prometheus while it works: one list of metrics, by night, product and stage, nothing per image.

On Ray every node's metrics agent exports them, as `ray.util.metrics` has them: with ``ray_`` before the name and
``_total`` behind a counter's. A run without Ray exports nothing and keeps its numbers in this process: whoever started
it watches it, and `patchead watch` tells Prometheus from outside what became of it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, NamedTuple

from patchead.retries import RETRIES

LABELS = ("night", "product", "stage")
"""Of every metric; empty where one does not apply."""


class Described(NamedTuple):
    """Say what a metric is."""

    type: Literal["counter", "gauge"]
    meaning: str


METRICS: Mapping[str, Described] = {
    "patchead_images_listed": Described("counter", "Images that the archive holds, once they are listed."),
    "patchead_images_decoded": Described("counter", "Images that were read and decoded."),
    "patchead_images_embedded": Described("counter", "Images whose embeddings were written."),
    "patchead_images_reused": Described("counter", "Images whose embeddings were in the lake before."),
    "patchead_images_scored": Described("counter", "Images of groups that are scored."),
    "patchead_images_flagged": Described("counter", "Images that were flagged, once the night is published."),
    "patchead_images_failed": Described("counter", "Images that could not be read, decoded or embedded."),
    "patchead_images_unread": Described("counter", "Images that the storage did not give, each time it was asked."),
    "patchead_bytes_read": Described("counter", "Bytes of the images that were read."),
    "patchead_storage_retries": Described("counter", "Requests to S3 that were made again, by every process."),
    "patchead_groups_done": Described("counter", "Groups that are scored."),
    "patchead_groups_left": Described("gauge", "Groups that are not scored yet."),
    "patchead_groups_failed": Described(
        "counter", "Groups that could not be scored, or lack regions, heatmaps or names."
    ),
    "patchead_groups_drifted": Described("gauge", "Groups whose good images no longer score like the accepted ones."),
    "patchead_tasks_done": Described("counter", "Scoring tasks (tiles, whole groups and so on) that are done."),
    "patchead_tasks_left": Described("gauge", "Scoring tasks that are left."),
    "patchead_products_done": Described("counter", "Products whose groups are all scored."),
    "patchead_in_hand": Described("gauge", "1 for the stage that is in hand, and for the product of the latest group."),
    "patchead_stage_images_left": Described("gauge", "Images that the stage has not dealt with yet."),
    "patchead_stage_seconds_left": Described("gauge", "Seconds that the stage will take, at the rate of five minutes."),
    "patchead_stage_seconds": Described("gauge", "Seconds that the stage has taken so far."),
    "patchead_stage_moved_timestamp_seconds": Described("gauge", "When the stage last dealt with an image."),
    "patchead_work_begun": Described("counter", "Calls of workers that were begun, by stage: decode, embed, score."),
    "patchead_work_done": Described("counter", "Calls of workers that ended; decode less embed is the queue between."),
    "patchead_work_seconds": Described("counter", "Seconds that workers were busy; over actors, the busy share."),
    "patchead_actors": Described("gauge", "Actors that hold a GPU, or CPUs, for the stage; 0 behind it."),
    "patchead_last_success_timestamp_seconds": Described("gauge", "When the night was published."),
}
"""Every metric, by its name in this code."""


class OfALake(NamedTuple):
    """Say what a gauge of `patchead watch` is, and its labels."""

    meaning: str
    labels: tuple[str, ...] = ()


OF_A_LAKE: Mapping[str, OfALake] = {
    "patchead_lake_up": OfALake("1 where the lake could be read the last time, else 0."),
    "patchead_lake_runs": OfALake("Runs of the lake, by their true state.", ("state",)),
    "patchead_lake_heartbeat_age_seconds": OfALake("Since the last heartbeat of a run that is under way.", ("run_id",)),
    "patchead_lake_newest_night_timestamp_seconds": OfALake("Midnight (UTC) of the newest published night."),
    "patchead_lake_last_success_timestamp_seconds": OfALake("When a run was published the last time."),
    "patchead_lake_bytes": OfALake("Bytes of all files of the lake, by its folders.", ("folder",)),
}
"""What `patchead watch` tells of a lake, by name; no ``ray_`` before it, as no Ray exports it."""

_lock = threading.Lock()
_values: dict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
_retries_told = 0


def exported_name(name: str) -> str:
    """Give the name that Prometheus knows a metric by.

    Raises:
        KeyError: there is no such metric.
    """
    return f"ray_{name}_total" if METRICS[name].type == "counter" else f"ray_{name}"


def count(name: str, more: float = 1, /, **labels: str | None) -> None:
    """Count ``more`` of a counter, under labels of `LABELS`."""
    if more:
        _told(name, "counter", more, labels)


def gauge(name: str, value: float, /, **labels: str | None) -> None:
    """Set a gauge, under labels of `LABELS`."""
    _told(name, "gauge", value, labels)


def values(name: str) -> dict[tuple[str, ...], float]:
    """Return what this process has told of a metric, by the values of `LABELS`."""
    with _lock:
        return {key: value for (of, key), value in _values.items() if of == name}


@contextmanager
def work(stage: str) -> Iterator[None]:
    """Count one call of a worker: that it began and ended, its seconds, and its repeated requests to the storage."""
    began = time.perf_counter()
    count("patchead_work_begun", stage=stage)
    try:
        yield
    finally:
        count("patchead_work_seconds", time.perf_counter() - began, stage=stage)
        count("patchead_work_done", stage=stage)
        tell_retries(stage)


@contextmanager
def holding(stage: str, actors: int) -> Iterator[None]:
    """Tell how many actors are held for a stage while the block runs."""
    gauge("patchead_actors", actors, stage=stage)
    try:
        yield
    finally:
        gauge("patchead_actors", 0, stage=stage)


def tell_retries(stage: str) -> None:
    """Count the requests that this process has made again since it was last asked."""
    global _retries_told
    with _lock:
        more, _retries_told = RETRIES.total - _retries_told, RETRIES.total
    count("patchead_storage_retries", more, stage=stage)


def _told(name: str, type: str, value: float, labels: Mapping[str, str | None]) -> None:
    if METRICS[name].type != type or not set(labels) <= set(LABELS):
        raise ValueError(f"{name} is a {METRICS[name].type} with the labels {LABELS}; got a {type} with {[*labels]}")
    tags = {label: labels.get(label) or "" for label in LABELS}
    key = name, tuple(tags.values())
    with _lock:
        _values[key] = _values[key] + value if type == "counter" else value
    # Ray is asked only where it is at work: a worker's module must not import it, nor a command that needs no cluster.
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    exported = _exported(name)
    plain = {
        label: tag.encode("ascii", "backslashreplace").decode() for label, tag in tags.items()
    }  # Ray takes no other
    (exported.inc if type == "counter" else exported.set)(value, plain)


@cache
def _exported(name: str) -> Any:
    from ray.util import metrics

    kept = metrics.Counter if METRICS[name].type == "counter" else metrics.Gauge
    return kept(name, METRICS[name].meaning, tag_keys=LABELS)

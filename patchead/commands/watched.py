"""What `patchead watch` knows of a lake: gauges of a registry of their own."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter

from prometheus_client import CollectorRegistry, Gauge

from patchead.errors import LakeError
from patchead.lake.heartbeat import HEARTBEAT_FILE, read_json
from patchead.lake.publication import PUBLISHED
from patchead.lake.run_list import RUNNING, list_runs
from patchead.lake.staging import RunFolder
from patchead.lake.stored_files import list_stored, total
from patchead.runtime.metrics import OF_A_LAKE
from patchead.storage import Storage

_FOLDERS = ("embeddings", "heatmaps", "runs", "tables")
_STATES = ("published", "failed", "dead", "running", "stopped")


class Watched:
    """Hold what is known of a lake, as gauges of a registry of its own."""

    def __init__(self, lake_uri: str, storage: Storage) -> None:
        self._lake, self._storage, self.registry = lake_uri, storage, CollectorRegistry()
        self._gauges = {
            name: Gauge(name, of.meaning, of.labels, registry=self.registry) for name, of in OF_A_LAKE.items()
        }

    def look(self, *, with_bytes: bool) -> None:
        """Read the lake.

        Raises:
            LakeError: it cannot be read; what was known before stays, and the lake is told as down.
        """
        gauges = self._gauges
        try:
            runs = list_runs(self._lake, self._storage)
            running = [run.run_id for run in runs if run.state == RUNNING]
            ages = {run_id: self._age(run_id) for run_id in running}
            sizes = {folder: total(list_stored(self._lake, self._storage, folder)) for folder in _FOLDERS if with_bytes}
        except LakeError:
            gauges["patchead_lake_up"].set(0)
            raise
        states = Counter(run.state.partition(" ")[0] for run in runs)
        for state in _STATES:
            gauges["patchead_lake_runs"].labels(state).set(states[state])
        gauges["patchead_lake_heartbeat_age_seconds"].clear()
        for run_id, age in ages.items():
            gauges["patchead_lake_heartbeat_age_seconds"].labels(run_id).set(age)
        published = [run for run in runs if run.state == PUBLISHED]
        nights = [night for run in published for night in run.nights]
        if nights:
            gauges["patchead_lake_newest_night_timestamp_seconds"].set(_midnight(max(nights)))
        ends = [run.finished_at.timestamp() for run in published if run.finished_at]
        if ends:
            gauges["patchead_lake_last_success_timestamp_seconds"].set(max(ends))
        for folder, size in sizes.items():
            gauges["patchead_lake_bytes"].labels(folder).set(size)
        gauges["patchead_lake_up"].set(1)

    def _age(self, run_id: str) -> float:
        beat = read_json(RunFolder(self._lake, self._storage, run_id).files, HEARTBEAT_FILE)
        return time.time() - dt.datetime.fromisoformat(beat["time"]).timestamp() if beat else 0.0


def _midnight(night: str) -> float:
    return dt.datetime.fromisoformat(night).replace(tzinfo=dt.timezone.utc).timestamp()

"""A night on two Ray nodes, of which one is killed in the middle: a process of its own, as Ray can be joined once.

python losing_a_node.py ARCHIVE LAKE WHEN HEAD_CPUS KEY=VALUE…: WHEN the second node is killed: embed, or after so many
scoring tasks. Prints one line of JSON last.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.cluster_utils import Cluster
from rich.console import Console

from patchead.errors import PatcheadError
from patchead.nightly.run import run_night
from patchead.plan import tasks
from patchead.runtime import lost_nodes
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.ray_worker import RayCounter
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL
from tests.helpers.second_node import lose

PLAIN = {"include_dashboard": False, "object_store_memory": 200 * 10**6}


class Counted(RayExecutor):
    """An executor whose counter the killer asks."""

    counter: RayCounter | None = None

    def call_counter(self) -> RayCounter:
        self.counter = super().call_counter()
        return self.counter


class Killer(threading.Thread):
    """Kills the second node once enough has been done."""

    def __init__(self, cluster: Cluster, node: Any, when: str, lake: Path, executor: Counted) -> None:
        super().__init__(daemon=True)
        self.cluster, self.node, self.when, self.lake, self.executor = cluster, node, when, lake, executor
        self.seen: list[str] = []

    def run(self) -> None:
        while not self._is_time():
            time.sleep(0.01)
        lose(self.node)
        self.cluster.remove_node(self.node, allow_graceful=False)

    def _is_time(self) -> bool:
        if self.when == "embed":
            self.seen = [str(path) for path in self.lake.glob("embeddings/**/*.receipts.parquet")]
            return bool(self.seen)
        self.seen = self.executor.counter.tasks() if self.executor.counter else []
        return len(self.seen) >= int(self.when)


def main(archive: str, lake: str, when: str, head_cpus: str, *settings: str) -> None:
    lost_nodes.PATIENCE, tasks.SMALL_FLOPS = 8.0, 0  # as many calls as of larger groups
    cluster = Cluster(
        initialize_head=True, head_node_args={**PLAIN, "num_cpus": int(head_cpus), "node_ip_address": "127.0.0.2"}
    )
    node = cluster.add_node(**PLAIN, num_cpus=2, node_ip_address="127.0.0.3")
    ray.init(address=cluster.address, log_to_driver=False, _node_ip_address="127.0.0.2")
    given = SMALL | {"archive.uri": archive, "lake.uri": lake, "resources.cpus_per_actor": 1}
    given |= {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in settings)}
    executor, out = Counted(), io.StringIO()
    killer = Killer(cluster, node, when, Path(lake), executor)
    killer.start()
    try:
        record = run_night(load_config(None, given=given), Console(file=out, width=300), executor)
        ended = record.as_json()
    except PatcheadError as exc:
        ended = {"state": type(exc).__name__, "error": str(exc)}
    told = [line for line in out.getvalue().splitlines() if line.startswith("warning")]
    print(json.dumps({"record": ended, "told": told, "killed_after": killer.seen, "killed": not killer.is_alive()}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

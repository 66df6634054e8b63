"""A night on one Ray node, beside which another starts in the middle: a process of its own, as Ray can be joined once.

python joining_a_node.py ARCHIVE LAKE WHEN KEY=VALUE…: WHEN the second node starts: embed, or after so many scoring
tasks. Prints one line of JSON last.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from pathlib import Path

import ray
import yaml
from ray.cluster_utils import Cluster
from rich.console import Console

from patchead.nightly.run import run_night
from patchead.runtime import joined_nodes
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL
from tests.helpers.losing_a_node import PLAIN, Counted


class Joiner(threading.Thread):
    """Starts the second node once enough has been done."""

    def __init__(self, cluster: Cluster, when: str, lake: Path, executor: Counted) -> None:
        super().__init__(daemon=True)
        self.cluster, self.when, self.lake, self.executor = cluster, when, lake, executor

    def run(self) -> None:
        while not self._is_time():
            time.sleep(0.01)
        self.cluster.add_node(**PLAIN, num_cpus=1, node_ip_address="127.0.0.3")

    def _is_time(self) -> bool:
        if self.when == "embed":
            return bool([*self.lake.glob("embeddings/*/*/*.arrow")])
        return self.executor.counter is not None and len(self.executor.counter.tasks()) >= int(self.when)


def main(archive: str, lake: str, when: str, *settings: str) -> None:
    joined_nodes.LOOK_EVERY = 0.5
    cluster = Cluster(initialize_head=True, head_node_args={**PLAIN, "num_cpus": 1, "node_ip_address": "127.0.0.2"})
    ray.init(address=cluster.address, log_to_driver=False, _node_ip_address="127.0.0.2")
    given = SMALL | {"archive.uri": archive, "lake.uri": lake, "resources.cpus_per_actor": 1}
    given |= {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in settings)}
    executor, out = Counted(), io.StringIO()
    joiner = Joiner(cluster, when, Path(lake), executor)
    joiner.start()
    record = run_night(load_config(None, given=given), Console(file=out, width=300), executor)
    told = [line for line in out.getvalue().splitlines() if "joined" in line]
    print(json.dumps({"record": record.as_json(), "told": told, "joined": not joiner.is_alive()}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

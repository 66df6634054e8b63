"""A night on a Ray whose own folder is on a disk that fills up: from the beginning, and before groups are scored.

``unshare --mount python -m tests.helpers.full_ray_folder FOLDER`` scores FOLDER/archive on a Ray whose folder is on a
small tmpfs. It is full at first; then it is filled once all is embedded, and Ray's idle processes are killed, as it
does itself after a while; then room is made, and the same command goes on. Prints what was seen, as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from patchead.lake.staging import RunFolder
from patchead.runtime import lost_nodes
from tests.helpers import patient_ray
from tests.helpers.command import Ended, patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, rows

_MINUTES = 0.1


def main(folder: str) -> None:
    lost_nodes.PATIENCE = 8.0
    lake = str(Path(folder, "lake"))
    places = ["--archive", str(Path(folder, "archive")), "--lake", lake, "--run-id", "night"]
    command = ["score", *SMALL_OPTIONS, f"--set=resources.wait_minutes={_MINUTES}", *places]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as temp:  # a short path: there are sockets in it
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", temp], check=True)
        patient_ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=80 * 10**6,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=temp,
        )
        seen: dict[str, Any] = {}
        filler = Path(temp, "filler")
        try:
            _fill(filler)
            seen["refused"] = _told(patchead(*command))
            filler.unlink()
            real = RunFolder.write_receipts

            def and_fill(*arguments: Any, **options: Any) -> None:
                real(*arguments, **options)
                _kill_idle()
                _fill(filler)

            RunFolder.write_receipts = and_fill  # type: ignore[method-assign]
            seen["stopped"] = _told(patchead(*command))
            RunFolder.write_receipts = real  # type: ignore[method-assign]
            filler.unlink()
            seen["went_on"] = _told(patchead(*command))
        finally:
            ray.shutdown()
            subprocess.run(["umount", "--lazy", temp], check=True)
    seen["scores"] = {row["image_id"]: row["score"] for row in rows(lake)}
    print(json.dumps(seen))


def _kill_idle() -> None:
    """Kill the processes of this Ray that wait for work."""
    raylet = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    for children in Path(f"/proc/{raylet}/task").glob("*/children"):
        for pid in children.read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::IDLE"):
                    os.kill(int(pid), signal.SIGKILL)


def _fill(path: Path) -> None:
    """Leave no byte."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise


def _told(ended: Ended) -> dict[str, Any]:
    return {"code": ended.code, "out": ended.out, "err": ended.err}


if __name__ == "__main__":
    main(*sys.argv[1:])

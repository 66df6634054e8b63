"""A night on a Ray whose object store is full: first of what can be spilled, then of what cannot, with a full disk.

``unshare --mount python -m tests.helpers.full_object_store FOLDER`` scores FOLDER/archive on a Ray of 80 MB of objects,
whose folder, with what it spills, is on a small tmpfs. Prints what was seen, as JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from tests.helpers import patient_ray
from tests.helpers.command import Ended, patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, rows

_STORE, _PART, _PARTS = 80 * 10**6, 7 * 10**6, 11
_DISK, _LEFT = "400m", 12 * 10**6
"""Of the disk, and what is left of it: Ray spills to no disk that is 95 % full, and needs some room for its logs."""


def main(folder: str) -> None:
    more = ["--set=explain.heatmaps=all", "--set=encoder.image_size=448", "--set=resources.wait_minutes=0.2"]
    command = ["score", *SMALL_OPTIONS, *more, "--archive", str(Path(folder, "archive"))]
    lake = str(Path(folder, "lake"))
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as temp:  # a short path: there are sockets in it
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", temp], check=True)
        patient_ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=_STORE,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=temp,
            object_spilling_directory=temp,  # without it Ray maps what finds no room into files of /tmp
        )
        seen: dict[str, Any] = {}
        try:
            hog = [ray.put(np.zeros(_PART, np.uint8)) for _ in range(_PARTS)]
            seen["spilled"] = _told(patchead(*command, "--lake", str(Path(folder, "first"))))
            seen["spilled bytes"] = sum(
                file.stat().st_size for file in Path(temp).rglob("ray_spilled*/**/*") if file.is_file()
            )
            del hog
            references = [ray.put(np.zeros(_PART, np.uint8)) for _ in range(_PARTS)]
            held = ray.get(references)  # in use: not to be spilled
            filler = Path(temp, "filler")
            _fill(filler)
            seen["stopped"] = _told(patchead(*command, "--lake", lake, "--run-id", "night"))
            del held, references
            filler.unlink()
            seen["went_on"] = _told(patchead(*command, "--lake", lake, "--run-id", "night"))
        finally:
            ray.shutdown()
            subprocess.run(["umount", "--lazy", temp], check=True)
    seen["scores"] = {row["image_id"]: row["score"] for row in rows(lake)}
    print(json.dumps(seen))


def _fill(filler: Path) -> None:
    """Leave `_LEFT` of the disk, once Ray has written and removed what it still had to."""
    settled = 0
    with filler.open("wb", buffering=0) as file:
        while settled < 4:
            more = shutil.disk_usage(filler.parent).free - _LEFT
            settled = 0 if more > 2**20 else settled + 1
            file.write(bytes(max(0, min(more, 2**24))))
            time.sleep(0.0 if more > 2**20 else 0.5)


def _told(ended: Ended) -> dict[str, Any]:
    return {"code": ended.code, "out": ended.out, "err": ended.err}


if __name__ == "__main__":
    main(*sys.argv[1:])

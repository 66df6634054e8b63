"""``python -m tests.helpers.late_ray`` starts a night's Ray that is late, for ever and once; prints what was seen."""

from __future__ import annotations

import json
import os
from typing import Any

import ray

from patchead.errors import PatcheadError
from patchead.runtime.session import ray_session

WAIT = "RAY_gcs_server_port_wait_time_s"
"""Ray's own wait for its first process, in seconds."""


def main() -> None:
    started, init, seen = [], ray.init, dict[str, Any]()

    def noted(**options: Any) -> Any:
        started.append(options["num_cpus"])
        return init(**options)

    ray.init = noted
    os.environ[WAIT] = "0"
    try:
        with ray_session(1):
            pass
    except PatcheadError as exc:
        seen["for ever"] = str(exc)
    seen["tries"] = len(started)

    def once(**options: Any) -> Any:
        try:
            return noted(**options)
        finally:
            os.environ.pop(WAIT, None)

    ray.init = once
    with ray_session(1):
        seen["cpus"] = ray.cluster_resources()["CPU"]
    print(json.dumps(seen | {"all tries": len(started), "left": ray.is_initialized()}))


if __name__ == "__main__":
    main()

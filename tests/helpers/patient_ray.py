"""A Ray that starts on a busy machine too: its own processes have half a minute each, and no setting for it."""

from __future__ import annotations

from typing import Any

import ray


def init(**options: Any) -> None:
    """Start Ray; as often as it takes where a process of it was late."""
    while True:
        try:
            ray.init(**options)
        except Exception as exc:
            if "timed out" not in str(exc).lower():
                raise
            ray.shutdown()
        else:
            return

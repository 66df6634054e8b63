"""Speeds with which makespans are worked out by hand."""

from __future__ import annotations

from patchead.forecast.device_speeds import DeviceFigures


def figures(**changes: object) -> DeviceFigures:
    """One FLOP/s, bytes for nothing, no overhead, no start: a task of n FLOPs takes n seconds."""
    plain = {
        "name": "toy",
        "source": "measured by nobody",
        "device": "cpu",
        "flops": {"fp32": 1.0},
        "flops_alone": {"fp32": 1.0},
        "actors_per_node": 1,
        "threads": 1,
        "read_bytes": 1e30,
        "network_bytes": 1e30,
        "task_seconds": 0.0,
        "start_seconds": 0.0,
    }
    return DeviceFigures(**(plain | changes))  # type: ignore[arg-type]

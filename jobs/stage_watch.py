"""How busy GPU and CPUs are in each stage of a night that runs as a process: its JSON log, nvidia-smi, /proc/stat."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_EVERY_S = 0.2
_QUERY = [
    "--query-gpu=timestamp,utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
    f"-lms={int(_EVERY_S * 1000)}",
]


class Look(NamedTuple):
    """What was seen at a time (seconds since the epoch), of a part of the machine."""

    at: float
    busy: float
    """Share of 1."""
    memory_mb: float = 0.0


class Seen(NamedTuple):
    """Looks at the GPU, none where there is no nvidia-smi, and at all CPUs."""

    gpu: list[Look]
    cpus: list[Look]


@contextmanager
def watching() -> Iterator[Seen]:
    """Look several times a second while the block runs."""
    seen, over = Seen([], []), threading.Event()
    threads = [threading.Thread(target=_look_at_cpus, args=(seen.cpus, over))]
    smi = None
    if shutil.which("nvidia-smi"):
        smi = subprocess.Popen(["nvidia-smi", *_QUERY], stdout=subprocess.PIPE, text=True)
        threads.append(threading.Thread(target=_read_smi, args=(smi, seen.gpu)))
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        if smi is not None:
            smi.terminate()
        for thread in threads:
            thread.join()


def stages_in(log: Path) -> dict[str, tuple[float, float]]:
    """Begin and end of each stage, in seconds since the epoch, of a log with ``run.log_level`` info."""
    begun, found = dict[str, float](), dict[str, tuple[float, float]]()
    for line in log.read_text(encoding="utf-8").splitlines():
        if not line.startswith("{"):
            continue
        entry = json.loads(line)
        stage, at = entry.get("stage"), dt.datetime.fromisoformat(entry["time"]).timestamp()
        if entry["message"].startswith("stage begins"):
            begun[stage] = at
        elif entry["message"].startswith("stage ends"):
            found[stage] = begun[stage], at
    return found


def mean_busy(looks: Sequence[Look], begin: float, end: float) -> float | None:
    """Mean share in which that part was busy from ``begin`` to ``end``; None where nobody looked."""
    within = [look.busy for look in looks if begin <= look.at <= end]
    return sum(within) / len(within) if within else None


def _look_at_cpus(looks: list[Look], over: threading.Event) -> None:
    before = _jiffies()
    while not over.wait(_EVERY_S):
        now = _jiffies()
        total = max(1, now[0] - before[0])
        looks.append(Look(time.time(), 1 - (now[1] - before[1]) / total))
        before = now


def _jiffies() -> tuple[int, int]:
    """All and the idle ones, of all CPUs."""
    counts = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(counts), counts[3] + counts[4]


def _read_smi(smi: subprocess.Popen[str], looks: list[Look]) -> None:
    if smi.stdout is None:
        raise ValueError("nvidia-smi must be started with a pipe")
    for line in smi.stdout:
        at, busy, memory = line.split(",")
        when = dt.datetime.strptime(at, "%Y/%m/%d %H:%M:%S.%f")
        looks.append(Look(when.timestamp(), float(busy) / 100, float(memory)))

"""How long until somebody who has installed the package, and has a folder of photos, looks at a page of results?

A process with a home directory of its own: nothing is cached, no cluster is running, the weights are where
`patchead score` finds them on this machine. And what a question of SQL over the result takes, before and now.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from typing import NamedTuple

from demo_archive import texture_photos

from benchmarks.records import Record

_SIDE = 448
_QUESTION = ("query", "SELECT 1", "--lake", "patchead-lake")
_START = "from patchead.cli import main; main()"
_BEFORE = f"import torch, timm, ray.data; {_START}"
"""Version 0.1 had them imported by every command."""


class Taken(NamedTuple):
    """What a process took: seconds until its first line, until its end, and of the processors."""

    first_line: float
    whole: float
    processors: float


def first_page(photos: int, repeats: int) -> list[Record]:
    """Seconds of ``patchead score ./photos`` with its page, on Ray and in one process, and of a question after it."""
    cases = {"one process (--local)": ["--local"], "on Ray": []}
    records = []
    for case, options in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), photos)
            score = [_START, "score", "./photos", "--set", "run.report=true", *options]
            taken = _run(Path(folder), score)
            if not list(Path(folder).glob("patchead-lake/reports/*/index.html")):
                raise RuntimeError(f"{case}: no page was written")
            name = f"{photos} photos of {_SIDE} px, {case}"
            records += [
                _record(name, "first line", taken.first_line),
                _record(name, "page written", taken.whole),
            ]
            if options:  # those of Ray's workers are not this process's children
                records.append(_record(name, "CPU seconds of it", taken.processors))
                records += _questions(Path(folder), repeats)
    return records


def _questions(folder: Path, repeats: int) -> list[Record]:
    """By turns, as what else the machine does is the same for both then."""
    found: dict[str, list[float]] = {"with torch and Ray imported, as before": [], "now": []}
    for _ in range(repeats):
        for (_, seconds), code in zip(found.items(), (_BEFORE, _START), strict=True):
            seconds.append(_run(folder, [code, *_QUESTION]).processors)
    return [_record('patchead query "SELECT 1"', f"CPU seconds, {how}", median(found[how])) for how in found]


def _write(folder: Path, photos: int) -> None:
    (folder / "photos").mkdir()
    for photo in texture_photos(photos - 2, 2, _SIDE)("brick", 0):
        (folder / "photos" / f"{photo.name}.png").write_bytes(photo.png)


def _run(folder: Path, words: list[str]) -> Taken:
    """A process in ``folder``, which is its home too."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_", "HF_"))}
    environment = {**kept, "HOME": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    began, before = time.perf_counter(), _of_children()
    with subprocess.Popen(
        [sys.executable, "-c", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = [process.stdout.readline() if process.stdout else ""]
        first = time.perf_counter() - began
        lines += process.stdout.readlines() if process.stdout else []
    if process.returncode:
        raise RuntimeError(f"{words[1:]} ended with {process.returncode}: {''.join(lines)[-2000:]}")
    return Taken(first, time.perf_counter() - began, _of_children() - before)


def _of_children() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _record(case: str, metric: str, seconds: float) -> Record:
    return Record(benchmark="first-page", case=case, precision="", metric=metric, value=seconds, unit="s")

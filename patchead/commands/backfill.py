"""`patchead score --night FIRST..LAST`: many nights, each a run of its own, and one summary of all."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer
import yaml
from rich.console import Console
from rich.table import Table

from patchead.commands.machine import print_json
from patchead.commands.outside import errors_from_outside
from patchead.commands.report import report_of_run
from patchead.errors import PUBLISHED_WITH_FAILURES, PatcheadError, StoppedError
from patchead.lake.heartbeat import read_json
from patchead.lake.staging import RunFolder
from patchead.nightly import wiring
from patchead.nightly.backfill import DONE, FAILED, NightEnded, RunNights, backfill, ended, in_order, nights_between
from patchead.printed import add_cells, say
from patchead.settings.model import Config

if TYPE_CHECKING:
    from patchead.runtime.executor import Executor

_STOPPED = "asked to end (SIGTERM). The same command goes on where this one stopped."


def score_nights(
    config: Config,
    nights: str,
    console: Console,
    executor: Executor,
    *,
    local: bool,
    parallel: int,
    until: str,
    as_json: bool = False,
) -> None:
    """Run the nights of ``FIRST..LAST``, ``parallel`` at a time, and print one summary, or JSON of each that was run.

    Raises:
        SettingsError: ``nights`` is no range.
        StoppedError: asked to end; the same command goes on.
        typer.Exit: with 1 where a night failed, 3 where images or groups did.
    """
    wanted, done = nights_between(nights), list[NightEnded]()
    errors: tuple[type[Exception], ...] = (PatcheadError, *errors_from_outside())
    if parallel > 1:
        found = backfill(config, wanted, partial(_at_once, console, parallel, local, until))
    else:
        run = in_order(partial(_one, console, executor, until), errors)
        found = backfill(config, wanted, run if local else partial(_in_session, executor, run))
    try:
        for night in found:
            done.append(night)
            say(console, f"{night.night}: {night.state}" + (f": {night.reason}" if night.reason else ""))
    finally:
        print_nights(done, len(wanted), console)
        if as_json:
            print_json([asdict(night) for night in sorted(done, key=lambda each: each.night)])
    if any(night.state == FAILED for night in done):
        raise typer.Exit(PatcheadError.exit_code)
    if any(night.failed for night in done):
        raise typer.Exit(PUBLISHED_WITH_FAILURES)


def print_nights(done: Sequence[NightEnded], asked: int, console: Console) -> None:
    """Print one row per night that was run, and how many there were of each state."""
    table = Table("night", "state", "images", "failed", "seconds", "run")
    for night in sorted(done, key=lambda each: each.night):
        if night.state in (DONE, FAILED):
            numbers = [str(night.images), str(night.failed), f"{night.seconds:.0f}"]
            add_cells(table, [night.night, night.state, *numbers, night.run_id])
    if table.row_count:
        console.print(table)
    states = [night.state for night in done]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    left = f", {asked - len(done)} not begun" if len(done) < asked else ""
    say(console, f"{asked} nights: {told or 'none'}{left}. The same command goes on with what is not published.")


def _one(console: Console, executor: Executor, until: str, config: Config) -> tuple[int, int]:
    from patchead.nightly.run import run_night

    record = run_night(config, console, executor, until=until)
    report_of_run(record, console)
    return record.images, record.incomplete


def _in_session(executor: Executor, run: RunNights, configs: Sequence[Config]) -> Iterator[NightEnded]:
    """One Ray for all nights: it is not started and stopped for each."""
    with executor.session():
        yield from run(configs)


def _at_once(
    console: Console, parallel: int, local: bool, until: str, configs: Sequence[Config]
) -> Iterator[NightEnded]:
    """Nights in processes of their own, so many at a time; who asks this one to end asks them too."""
    with _children() as start, ThreadPoolExecutor(parallel) as threads:
        begun = [threads.submit(_in_process, console, start, local, until, config) for config in configs]
        for each in as_completed(begun):
            yield each.result()


Start = Callable[[list[str]], "subprocess.Popen[str]"]


@contextmanager
def _children() -> Iterator[Start]:
    running, asked = list[subprocess.Popen[str]](), list[bool]()

    def start(command: list[str]) -> subprocess.Popen[str]:
        if asked:
            raise StoppedError(_STOPPED)
        made = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running.append(made)
        return made

    def end(number: int, frame: FrameType | None) -> None:
        asked.append(True)
        for process in running:
            process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield start
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running:
            if process.poll() is None:
                process.terminate()


def _in_process(console: Console, start: Start, local: bool, until: str, config: Config) -> NightEnded:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="patchead-") as folder:
        file = Path(folder) / "night.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        words = ["score", "--config", str(file), "--until", until, *(["--local"] if local else [])]
        with start([sys.executable, "-m", "patchead", *words]) as process:
            for text in process.stdout or ():
                say(console, f"{config.archive.night} {text.rstrip()}")
    seconds = time.perf_counter() - began
    if process.returncode == StoppedError.exit_code:
        raise StoppedError(_STOPPED)
    run_id = str(config.run.run_id)
    record = read_json(RunFolder(config.lake.uri, wiring.storage(config), run_id).files, "run.json") or {}
    counts = record.get("images", 0), record.get("failed", 0) + record.get("in_failed_groups", 0)
    if process.returncode in (0, PUBLISHED_WITH_FAILURES):
        return ended(config, DONE, seconds, *counts)
    reason = " ".join(str(record.get("error") or f"its process ended with code {process.returncode}").split())
    return ended(config, FAILED, seconds, *counts, reason=reason)

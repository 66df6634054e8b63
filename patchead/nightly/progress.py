"""One bar per stage, and the seconds each stage took: a terminal sees bars, a log file sees one line per stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from patchead.printed import say


class Stages:
    """Run the stages of a night under a progress bar each and keep their wall-clock seconds.

    ``checks`` are called before each stage and after each unit, and raise where the run has to end.
    """

    def __init__(self, console: Console, checks: Sequence[Callable[[], None]] = ()) -> None:
        self.console, self._checks = console, checks
        self.seconds: dict[str, float] = {}
        self.items: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Time the body as stage ``name``; the yielded function advances its bar."""
        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self._check()
        started, done = time.perf_counter(), 0
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bars:
            task = bars.add_task(name, total=total, rate="")

            def advance(count: int) -> None:
                nonlocal done
                done += count
                seconds = time.perf_counter() - started
                bars.update(task, advance=count, rate=f"{done / seconds:.1f} images/s")
                self._check()

            try:
                yield advance
            finally:
                self.seconds[name] = round(time.perf_counter() - started, 3)
            if total is None:
                bars.update(task, total=max(done, 1), completed=max(done, 1))
        self.items[name] = done
        if not self.console.is_terminal:
            say(self.console, f"{name:<8} {self.describe(name)}")

    def _check(self) -> None:
        for check in self._checks:
            check()

    def describe(self, name: str) -> str:
        """Sum a stage up: ``"400 images in 12.3 s, 32.5 images/s"``."""
        seconds, items = self.seconds[name], self.items[name]
        if not items:
            return f"{seconds:.1f} s"
        return f"{items} images in {seconds:.1f} s, {items / max(seconds, 1e-9):.1f} images/s"

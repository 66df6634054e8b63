"""Where a night is: rate and time left per stage, for a terminal, for a log, for the lake and for Prometheus."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from patchead.printed import say, tell
from patchead.runtime import logs, metrics
from patchead.runtime.pace import Pace, duration, line

LINES_EVERY_S = 30.0


class Stages:
    """Run the stages of a night under a progress bar each and keep their wall-clock seconds.

    Where the console is no terminal, a line says where the stage is, every ``lines_every`` seconds. ``checks`` are
    called before each stage and after each unit, and raise where the run has to end.
    """

    def __init__(
        self, console: Console, checks: Sequence[Callable[[], None]] = (), *, lines_every: float = LINES_EVERY_S
    ) -> None:
        self.console, self._checks, self._lines_every = console, checks, lines_every
        self.seconds: dict[str, float] = {}
        self.items: dict[str, int] = {}
        self.nights: Sequence[dt.date] = ()
        """Of the run, once they are known; where it is one, it is a label of the metrics."""
        self._in_hand: tuple[str, Pace, float] | None = None

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Time the body as stage ``name``; the yielded function advances its bar."""
        self._check()
        started = time.perf_counter()
        self._in_hand = name, (pace := Pace(total, started)), started
        logs.about(stage=name)
        logs.LOGGER.info("stage begins" if total is None else f"stage begins: {total} images")
        self._tell()
        lines = nullcontext() if self.console.is_terminal else self._lines()
        try:
            with lines, self._bar(name, total) as bar:

                def advance(count: int) -> None:
                    pace.add(count, time.perf_counter())
                    bar(count, pace)
                    self._tell()
                    self._check()

                yield advance
        finally:
            self.seconds[name], self.items[name] = round(time.perf_counter() - started, 3), pace.done
            self._tell(over=True)
            self._in_hand = None
        logs.LOGGER.info(f"stage ends: {self.describe(name)}")
        logs.about(stage=None)
        if not self.console.is_terminal:
            say(self.console, f"{name:<8} {self.describe(name)}")

    def now(self) -> dict[str, Any]:
        """Say where the night is, as plain JSON values: what is written with the heartbeat.

        ``stage``, ``done``, ``total``, ``rate`` in images per second and ``seconds_left`` of the stage in hand, and the
        ``seconds`` that each stage took.
        """
        found: dict[str, Any] = {"stage": None, "seconds": dict(self.seconds)}
        if (held := self._in_hand) is None:
            return found
        name, pace, started = held
        moment = time.perf_counter()
        left = pace.seconds_left(moment)
        found["seconds"] |= {name: round(moment - started, 3)}
        rate = {"rate": round(pace.rate(moment), 3), "seconds_left": None if left is None else round(left, 1)}
        return found | {"stage": name, "done": pace.done, "total": pace.total} | rate

    def warn(self, text: str) -> None:
        """Tell a person, and the log, what went otherwise."""
        tell(self.console, text)
        logs.LOGGER.warning(text)

    def describe(self, name: str) -> str:
        """Sum a stage up: ``"400 images in 12.3 s, 32.5 images/s"``."""
        seconds, items = self.seconds[name], self.items[name]
        if not items:
            return f"{seconds:.1f} s"
        return f"{items} images in {seconds:.1f} s, {items / max(seconds, 1e-9):.1f} images/s"

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Callable[[int, Pace], None]]:
        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bars:
            task = bars.add_task(name, total=total, rate="")

            def move(count: int, pace: Pace) -> None:
                moment = time.perf_counter()
                left = pace.seconds_left(moment)
                still = f", {duration(left)} left" if left else ""
                bars.update(task, advance=count, rate=f"{pace.rate(moment):.1f} images/s{still}")

            yield move
            if total is None:
                done = max(int(bars.tasks[0].completed), 1)
                bars.update(task, total=done, completed=done)

    @contextmanager
    def _lines(self) -> Iterator[None]:
        """Have a thread say where the stage is, again and again: also while nothing comes."""
        ended = threading.Event()

        def go_on() -> None:
            while not ended.wait(self._lines_every):
                where = self.now()
                text = line(where["stage"], where["done"], where["total"], where["rate"], where["seconds_left"])
                say(self.console, text)
                logs.LOGGER.info(text)

        thread = threading.Thread(target=go_on, name="patchead-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _tell(self, *, over: bool = False) -> None:
        """Tell the metrics where the stage is."""
        if self._in_hand is None:
            return
        name, pace, started = self._in_hand
        labels = {"stage": name, "night": str(self.nights[0]) if len(self.nights) == 1 else ""}
        left = 0 if over or pace.total is None else pace.total - pace.done
        metrics.gauge("patchead_in_hand", 0 if over else 1, **labels)
        metrics.gauge("patchead_stage_images_left", left, **labels)
        metrics.gauge("patchead_stage_seconds", time.perf_counter() - started, **labels)
        still = 0 if over else pace.seconds_left(time.perf_counter())
        if still is not None:
            metrics.gauge("patchead_stage_seconds_left", still, **labels)
        metrics.gauge("patchead_stage_moved_timestamp_seconds", 0 if over else time.time(), **labels)
        metrics.tell_retries(name)

    def _check(self) -> None:
        for check in self._checks:
            check()

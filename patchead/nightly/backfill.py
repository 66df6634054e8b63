"""Back-fill: one night after the other, each a run of its own, each as if it were the only one."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from patchead.archive.nights import nights_of
from patchead.errors import SettingsError, StoppedError, bad_value
from patchead.lake.migration import current_runs
from patchead.lake.publication import PUBLISHED
from patchead.nightly import wiring
from patchead.settings.model import Config
from patchead.settings.places import NIGHTLY

DONE, FAILED, EMPTY, LEFT = "published", "failed", "no images", "published before"


@dataclass(frozen=True)
class NightEnded:
    """Say how one night of a back-fill ended."""

    night: dt.date
    run_id: str
    state: str
    """One of `DONE`, `FAILED`, `EMPTY`, `LEFT`."""
    seconds: float = 0.0
    images: int = 0
    failed: int = 0
    reason: str = ""


RunNights = Callable[[Sequence[Config]], Iterator[NightEnded]]


def nights_between(text: str) -> list[dt.date]:
    """Read ``"2026-01-01..2026-03-31"``: every date from the first to the last, both of them too.

    Raises:
        SettingsError: it is none.
    """
    first, _, last = text.partition("..")
    try:
        start, stop = dt.date.fromisoformat(first.strip()), dt.date.fromisoformat(last.strip())
    except ValueError:
        start, stop = dt.date.max, dt.date.min
    if start > stop:
        raise SettingsError(bad_value("--night", text, "a date, or FIRST..LAST such as 2026-01-01..2026-03-31"))
    return [start + dt.timedelta(days=day) for day in range((stop - start).days + 1)]


def published_nights(config: Config) -> dict[dt.date, str]:
    """Find the nights of a lake that have a published run in the settings' lane, and the newest such run of each.

    Raises:
        LakeError: the lake cannot be read.
    """
    runs = current_runs(config.lake.uri, wiring.storage(config)).sort_by("started_at")
    lane = config.run.lane
    rows = runs.select(["night", "run_id", "state", "lane"]).to_pylist()
    own = [row for row in rows if row["state"] == PUBLISHED and row["lane"] == lane and row["night"] is not None]
    return {row["night"]: row["run_id"] for row in own}


def gaps(config: Config) -> tuple[list[dt.date], int]:
    """List the nights of the archive without a published run, and count all nights of the archive.

    Raises:
        ArchiveError, LakeError: one of them cannot be read.
    """
    there, published = nights_of(wiring.catalog_request(config)), published_nights(config)
    return [night for night in there if night not in published], len(there)


def backfill(config: Config, nights: Sequence[dt.date], run_nights: RunNights) -> Iterator[NightEnded]:
    """Run every night that the archive holds and that is not published; a night that fails stops no other.

    With ``run.run_id`` in the settings the nights are published under that name, a dash and the date, whatever else
    the lake holds of them; without, nights with a published run are left alone, and the others are ``nightly-DATE``.
    The same call again goes on: every night under its run id.

    Args:
        config: of every night but for ``archive.night`` and ``run.run_id``.
        nights: in the order in which they are run.
        run_nights: runs them, and yields each as it ends.

    Yields:
        Nights as they end; first those for which there is nothing to do.
    """
    there = set(nights_of(wiring.catalog_request(config)))
    before = {} if config.run.run_id else published_nights(config)
    todo = [night for night in nights if night in there and night not in before]
    for night in nights:
        if night not in there:
            yield NightEnded(night, "", EMPTY)
        elif night in before:
            yield NightEnded(night, before[night], LEFT)
    if todo:
        yield from run_nights([of_night(config, night) for night in todo])


def in_order(run: Callable[[Config], tuple[int, int]], errors: tuple[type[Exception], ...]) -> RunNights:
    """Make what runs one night after the other in this process.

    Args:
        run: runs one; returns how many images it had and how many of them failed.
        errors: what ends a night, and none of the others; `StoppedError` ends all.
    """

    def run_nights(configs: Sequence[Config]) -> Iterator[NightEnded]:
        for config in configs:
            began, counts, state, reason = time.perf_counter(), (0, 0), DONE, ""
            try:
                counts = run(config)
            except StoppedError:
                raise
            except errors as exc:
                state, reason = FAILED, " ".join(str(exc).split())
            yield ended(config, state, time.perf_counter() - began, *counts, reason=reason)

    return run_nights


def ended(config: Config, state: str, seconds: float, images: int, failed: int, *, reason: str = "") -> NightEnded:
    """Say how the night of some settings ended."""
    night, run_id = config.archive.night, str(config.run.run_id)
    if night is None:
        raise ValueError("`config` names no night")
    return NightEnded(night, run_id, state, seconds, images, failed, reason)


def of_night(config: Config, night: dt.date) -> Config:
    """Make the settings of one night of a back-fill."""
    run_id = f"{config.run.run_id or NIGHTLY}-{night.isoformat()}"
    return config.model_copy(
        update={
            "archive": config.archive.model_copy(update={"night": night}),
            "run": config.run.model_copy(update={"run_id": run_id}),
        }
    )

"""Files of runs that nobody goes on with: staged groups, heatmaps of replaced runs, and what was set aside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from patchead.batches import concurrently
from patchead.files import Folder
from patchead.lake.heartbeat import HEARTBEAT_FILE, is_alive, read_json
from patchead.lake.stored_files import Stored
from patchead.storage import Storage, join

_STAGED = ("groups", "explained")


@dataclass(frozen=True)
class RunFiles:
    """Hold the files of ``runs/`` by run, and which of the runs are published, and which are at work."""

    files: Mapping[str, list[Stored]]
    published: Collection[str]
    living: Collection[str]

    def staged(self, older_than_s: float) -> list[Stored]:
        """Find what was staged by published runs."""
        done = (file for run in self._ended(published=True) for file in self.files[run])
        return [file for file in done if file.path.split("/")[2] in _STAGED and file.age_s > older_than_s]

    def given_up(self, older_than_s: float) -> list[str]:
        """Name the runs that were not published, and in whose folder nothing has been written for so long."""
        return [run for run in self._ended(published=False) if min(f.age_s for f in self.files[run]) > older_than_s]

    def _ended(self, *, published: bool) -> list[str]:
        return [run for run in self.files if run not in self.living and (run in self.published) == published]


def by_run(files: Iterable[Stored]) -> dict[str, list[Stored]]:
    """Sort files of ``runs/<run_id>/…`` by their run."""
    found = defaultdict[str, list[Stored]](list)
    for file in files:
        if file.path.count("/") >= 2:
            found[file.path.split("/")[1]].append(file)
    return dict(found)


def living_runs(lake_uri: str, storage: Storage, runs: Iterable[str] | None = None) -> list[str]:
    """Name the runs that a process works on, by their heartbeats; of all that have a folder, or of ``runs``.

    Raises:
        LakeError: the lake cannot be read.
    """
    folder = Folder(join(lake_uri, "runs"), storage)
    names = folder.names("") if runs is None else list(runs)
    beats = concurrently(lambda run: read_json(Folder(folder.uri_of(run), storage), HEARTBEAT_FILE), names)
    return [run for run, beat in zip(names, beats, strict=True) if is_alive(beat)]


def unnamed_heatmaps(
    heatmaps: Iterable[Stored], named: Collection[str], unfinished: Collection[str], older_than_s: float
) -> list[Stored]:
    """Find heatmaps that no published row names, of runs that are not ``unfinished``.

    Args:
        heatmaps: files of ``heatmaps/night=…/product=…/<run_id>/``.
        named: paths relative to the lake.
        unfinished: runs that work, or that may go on.
        older_than_s: seconds; who reads an earlier version of the tables still finds younger ones.
    """
    return [
        file
        for file in heatmaps
        if file.path not in named
        and file.path.split("/")[-2] not in unfinished
        and file.age_s > older_than_s
        and not file.is_left_over
    ]


def left_over(files: Iterable[Stored], set_aside_s: float) -> list[Stored]:
    """Find temporary files of processes that were killed a day ago, and damaged files set aside for so long."""
    return [f for f in files if f.is_left_over or ("/damaged/" in f.path and f.age_s > set_aside_s)]

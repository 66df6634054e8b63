"""The run record: what a run found, did, took and ran on; `run.json` in the lake and one row of the runs table."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import secrets
import subprocess
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import patchead
from patchead.redaction import redacted_values
from patchead.settings.model import Config

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PACKAGES = ("ray", "torch", "timm", "open_clip_torch", "pyarrow", "numpy", "pillow", "opencv-python-headless")


def new_run_id() -> str:
    """Make an id of time and a random suffix, e.g. ``20261121T031500Z-4f9a21``: sorts by time, never repeats."""
    return f"{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass
class RunRecord:
    """Hold what a run found, did and took.

    Counts add up: ``images = ok + failed + skipped`` and ``images - failed = embedded + reused``.
    """

    run_id: str
    config: Config
    state: str = "running"
    error: str | None = None
    started_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.timezone.utc))
    finished_at: dt.datetime | None = None
    nights: list[dt.date] | None = None
    """Nights of its images, once they are listed."""
    archive_root: str | None = None
    """Folder or URL that the images' paths are relative to, once they are listed."""
    by_night: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each night, as a date or "" where an image has none: its counts, by the name of their column of `RUNS`."""
    images: int = 0
    ok: int = 0
    failed: int = 0
    unread: int = 0
    """Those of the failed that the storage did not give."""
    skipped: int = 0
    embedded: int = 0
    reused: int = 0
    groups: int = 0
    groups_failed: int = 0
    """Those that could not be scored as a whole; ``scoring`` says why."""
    in_failed_groups: int = 0
    """Their images; they count as skipped."""
    in_incomplete_groups: int = 0
    """Scored images of groups of which regions, heatmaps or names are missing; ``scoring`` says what and why."""
    anomalous: int = 0
    ignored_files: int = 0
    ignored: dict[str, Any] = field(default_factory=dict)
    """What the archive holds but images, see `LeftOut.as_json`."""
    unreadable: dict[str, Any] = field(default_factory=dict)
    """Values of images that are null as they cannot be read, see `LeftOut.as_json`."""
    encoder_id: str | None = None
    scoring: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    storage_retries: int = 0
    """Requests to S3 that this process made again; those of a cluster's workers are not among them."""
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def incomplete(self) -> int:
        """Count the images that failed, or are of a group that failed or lacks something: what the exit code tells."""
        return self.failed + self.in_failed_groups + self.in_incomplete_groups

    def finish(self, state: str, error: str | None = None) -> None:
        """Close the record."""
        self.state, self.finished_at = state, dt.datetime.now(dt.timezone.utc)
        self.error = error if error is None else shortened(_COLOURS.sub("", error))

    def stopped_after(self, stage: str) -> RunRecord:
        """Close the record of a run that was asked for no more than ``stage``, and return it."""
        self.finish(f"stopped after {stage}")
        return self

    def as_json(self) -> dict[str, Any]:
        """Give everything as plain JSON values, for ``run.json``."""
        plain = {k: v for k, v in asdict(self).items() if k != "config"}
        plain |= {"config": self.config.model_dump(mode="json"), "versions": versions(), "git_commit": git_commit()}
        return redacted_values(json.loads(json.dumps(plain, default=str)))

    def note(self, name: str, nights: pa.ChunkedArray) -> None:
        """Note how many images, or groups, of each night there are.

        Args:
            name: of a count of `RUNS`.
            nights: date32 (n,), the night of each of them.
        """
        for counts in self.by_night.values():
            counts.pop(name, None)
        for one in pc.value_counts(nights).to_pylist():
            self.by_night.setdefault(str(one["values"] or ""), {})[name] = one["counts"]


def shortened(text: str, length: int = 2000) -> str:
    """Leave out the middle of a text that is too long to be recorded."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]} … {text[-half:]}"


@cache
def versions() -> dict[str, str]:
    """Look up the versions of what computes the scores."""
    found = {name: version(name) for name in _PACKAGES}
    return {"patchead": patchead.__version__, "python": platform.python_version(), **found}


def git_commit() -> str | None:
    """Find the commit of the code: ``PATCHEAD_GIT_COMMIT`` (set it in the image), else of the checkout it runs from."""
    if commit := os.environ.get("PATCHEAD_GIT_COMMIT"):
        return commit
    return _checked_out(Path(patchead.__file__).parent)


@cache
def _checked_out(source: Path) -> str | None:
    if not (source.parent / ".git").exists():
        return None
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None

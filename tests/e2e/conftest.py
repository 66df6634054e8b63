"""The nightly job as a fixture: in this process, and on Ray."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.runtime.executor import Executor
from patchead.runtime.inline_executor import InlineExecutor
from patchead.runtime.ray_executor import RayExecutor
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL


@pytest.fixture(scope="session")
def score_night() -> Callable[..., RunRecord]:
    """Run the nightly job in this process, as `patchead score --local` does."""
    return partial(_score, InlineExecutor)


@pytest.fixture(scope="session")
def score_night_on_ray(local_ray: None) -> Callable[..., RunRecord]:
    """Run the nightly job on the session's Ray."""
    return partial(_score, RayExecutor)


def _score(executor: Callable[[], Executor], archive: Path | str, lake: Path | str, **settings: Any) -> RunRecord:
    given = SMALL | {"archive.uri": str(archive), "lake.uri": str(lake)} | settings
    return run_night(load_config(None, given=given), Console(quiet=True), executor())

"""The nightly job as a fixture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.runtime.ray_executor import RayExecutor
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL


@pytest.fixture(scope="session")
def score_night(local_ray: None) -> Callable[..., RunRecord]:
    """Run the nightly job in this process, on the session's Ray."""

    def score(archive: Path | str, lake: Path | str, **settings: Any) -> RunRecord:
        given = SMALL | {"archive.uri": str(archive), "lake.uri": str(lake)} | settings
        return run_night(load_config(None, given=given), Console(quiet=True), RayExecutor())

    return score

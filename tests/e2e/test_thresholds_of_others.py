"""A night is told of thresholds of products that it does not hold, as soon as it knows its images."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from patchead.nightly.run import run_night
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL, good_images, write_group


def test_a_product_that_the_night_lacks_is_a_warning(tmp_path: Path) -> None:
    write_group(tmp_path / "archive", "2026-11-21", "screw", good_images(2))
    places = {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake")}
    said = io.StringIO()
    config = load_config(None, ["scoring.thresholds={screw: {z: 3}, screws: {z: 2}}"], SMALL | places)
    run_night(config, Console(file=said, width=200), InlineExecutor(), until="catalog")
    (warning,) = [line for line in said.getvalue().splitlines() if "warning" in line]
    assert warning.endswith("scoring.thresholds has screws, which is no product of this run. Did you mean 'screw'?")

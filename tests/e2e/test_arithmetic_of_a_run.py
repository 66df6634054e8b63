"""A night takes the arithmetic that the processor is fastest in, records what was measured, and warns of a slow one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from patchead.nightly.run import run_night
from patchead.runtime.inline_executor import InlineExecutor
from patchead.scoring.precision_probe import choose
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL, good_images, png, rows, spoiled, write_group


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_group(tmp_path / "archive", "2026-11-21", "screw", {**good_images(6), "bad.png": png(spoiled(100))})
    return tmp_path / "archive"


def night(archive: Path, lake: Path, precision: str) -> tuple[dict, list[float], str]:
    """What a night records of its scoring, its scores in order of image id, and what it prints."""
    given = SMALL | {"archive.uri": str(archive), "lake.uri": str(lake), "scoring.precision": precision}
    said = io.StringIO()
    run_night(load_config(None, given=given), Console(file=said, width=200), InlineExecutor())
    (run,) = rows(lake, "runs")
    assert json.loads(run["config_json"])["scoring"]["precision"] == precision
    return json.loads(run["scoring_json"]), [row["score"] for row in rows(lake)], said.getvalue()


def test_auto_is_what_the_recorded_probes_choose(archive: Path, tmp_path: Path) -> None:
    found, scores, said = night(archive, tmp_path / "auto", "auto")
    assert [set(probe) for probe in found["probes"]] == [{"fp32", "int8", "numkong over torch"}]
    assert found["precision"] == choose(found["probes"])
    assert "warning" not in said
    asked, same, _ = night(archive, tmp_path / "asked", found["precision"])
    assert asked["precision"] == found["precision"]
    np.testing.assert_allclose(scores, same, atol=1e-7)


@pytest.mark.usefixtures("plain_loops")
def test_on_a_processor_without_integer_instructions_auto_is_fp32_and_int8_warns(archive: Path, tmp_path: Path) -> None:
    found, scores, said = night(archive, tmp_path / "auto", "auto")
    assert found["precision"] == "fp32"
    assert found["probes"][0]["int8"] < 0.3
    assert "warning" not in said
    exact, same, _ = night(archive, tmp_path / "fp32", "fp32")
    assert exact["probes"] == []
    np.testing.assert_allclose(scores, same, atol=1e-7)
    slow, close, said = night(archive, tmp_path / "int8", "int8")
    assert slow["precision"] == "int8"
    assert f"int8 runs at {slow['probes'][0]['int8']:.2g} times the speed of fp32 on this processor" in said
    np.testing.assert_allclose(close, same, atol=2e-3)

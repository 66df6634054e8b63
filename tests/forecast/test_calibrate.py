"""Measuring this machine, at a tiny size: every figure is there and of a plausible order."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from rich.console import Console

from patchead.errors import SettingsError
from patchead.forecast.calibrate import Probe, Sizes, calibrate
from patchead.forecast.calibrate_report import run_calibration
from patchead.forecast.device_speeds import load_figures
from patchead.settings.load import load_config
from patchead.storage import Storage

TINY = Sizes(patches=16, dim=32, seconds=0.01, megabytes=1, calls=3)


@pytest.mark.slow
def test_a_tiny_calibration_is_printed_and_kept(local_ray: None, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    small = {"encoder.name": "timm/vit_tiny_patch16_224", "encoder.weights": "hub", "encoder.image_size": 32}
    config = load_config(None, given={"archive.uri": "unused://", "lake.uri": str(lake)} | small)
    console = Console(record=True, width=160, quiet=False)
    found = run_calibration(
        config,
        console,
        threads=1,
        actors=1,
        precisions=["fp32"],
        lake=str(lake),
        output=tmp_path / "c.json",
        sizes=TINY,
        embed=True,
    )
    assert list(found.embed) == ["timm/vit_tiny_patch16_224, 32 px, fp32"], "random weights: the hub is not asked"
    assert 0.1 < found.embed["timm/vit_tiny_patch16_224, 32 px, fp32"] < 1e6
    assert load_figures(tmp_path / "c.json") == found
    assert found.source.startswith("measured ")
    assert (found.device, found.threads, found.actors_per_node) == ("cpu", 1, 1)
    assert 1e6 < found.flops["fp32"] < 1e14
    assert 1e5 < found.network_bytes < 1e12
    assert 1e5 < found.read_bytes < 1e12
    assert 0 < found.task_seconds < 10
    assert 0 < found.start_seconds < 120
    printed = console.export_text()
    wanted = ("scoring in fp32", "GFLOP/s", "embedding, per actor", str(tmp_path / "c.json"))
    assert [word for word in wanted if word not in printed] == []
    assert list(lake.iterdir()) == []


def test_the_rate_is_not_that_of_a_first_call() -> None:
    """A GPU's takes a second or more, whatever it multiplies."""

    class Slow(Probe):
        sizes: ClassVar = list[int]()

        def _score_seconds(self, embeddings: np.ndarray, precision: str) -> float:
            self.sizes.append(len(embeddings))
            return 1.0 if len(self.sizes) == 1 else 1e-6 * len(embeddings) ** 2

    probe = Slow()
    assert probe.rate("fp32", Sizes(patches=4, dim=8, seconds=1e-3)) == pytest.approx(4 * 4 * 8 / 1e-6)
    assert probe.sizes == [8, 8, 16, 32, 32, 32]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"threads": 0}, r"--threads must be 1 to \d+"),
        ({"threads": 10**6}, "--threads"),
        ({"precisions": ["fp8"]}, "`precision` must be one of"),
        ({"threads": 1, "actors": 10**6}, "--actors"),
    ],
)
def test_what_this_machine_does_not_have_is_refused(local_ray: None, wrong: dict, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        calibrate(**wrong, lake=("memory://calibration", Storage()), sizes=TINY)


def test_a_cluster_is_not_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    with pytest.raises(SettingsError, match="unset RAY_ADDRESS"):
        calibrate()

"""`patchead plan` and `patchead calibrate` from the command line: what is printed, what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from patchead.cli import app
from patchead.errors import SettingsError
from patchead.forecast.device_speeds import load_figures, named, save_figures
from patchead.forecast.survey import limits_on
from patchead.settings.load import load_config
from tests.helpers.command import patchead

NIGHT = "2026-11-21"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home without a calibration."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def run(home: Path, *arguments: str) -> Result:
    """In this process: torch and Ray are imported once for all tests."""
    return CliRunner().invoke(app, arguments, env={"HOME": str(home)})


def unmeasured(printed: str) -> list[str]:
    """The lines without those of decoding and explaining, which are measured anew each time."""
    lines = printed.splitlines()
    assert sum(line.startswith(("decode   ", "explain  ")) for line in lines) == 2
    return [line for line in lines if not line.startswith(("decode   ", "explain  "))]


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    folder = tmp_path / "archive" / f"night={NIGHT}" / "product=screw"
    folder.mkdir(parents=True)
    sink = io.BytesIO()
    Image.new("RGB", (32, 32)).save(sink, "PNG")
    for i in range(6):
        (folder / f"{i}.png").write_bytes(sink.getvalue())
    small = ["--set=encoder.name=timm/vit_tiny_patch16_224", "--set=encoder.weights=random"]
    return [
        "--archive", str(tmp_path / "archive"), "--lake", str(tmp_path / "lake"), *small, "--set=encoder.image_size=64"
    ]  # fmt: skip


def test_a_plan_without_figures_has_no_seconds(home: Path, places: list[str]) -> None:
    done = run(home, "plan", *places)
    assert done.exit_code == 0, done.output
    wanted = [
        "product=screw",
        "6 images",
        "64 px, layers 6, 9, 12: 16 patches x 576",
        "symmetric",
        "no estimate: run `patchead calibrate`",
    ]
    wanted += ["GB read from the lake", "GB moved", "GB per actor", "nothing was written"]
    assert [words for words in wanted if words not in done.stdout] == []
    assert unmeasured(run(home, "score", "--dry-run", *places).stdout) == unmeasured(done.stdout)
    assert list(home.iterdir()) == []


def test_a_plan_on_a_named_gpu_says_that_nothing_was_measured(home: Path, places: list[str]) -> None:
    done = run(home, "plan", *places, "--device", "h100", "--actors", "2")
    assert done.exit_code == 0, done.output
    wanted = ["s of scoring on 2 actors", "H100: data sheet, not measured", "in fp16", "16 cores assumed"]
    wanted += [
        "read     6 images",
        "measured here on 6 of them",
        "embed    6 images, no estimate",
        "2% flagged assumed",
    ]
    assert [words for words in wanted if words not in done.stdout] == []
    done = run(home, "plan", *places, "--device", "T4", "--set=scoring.precision=bf16")
    assert done.exit_code == 0, done.output
    assert "no estimate: scoring.precision must be" in done.stdout
    for more in ([], ["--simulate", "--gpus", "1"]):
        done = run(home, "plan", *places, "--device", "h100", "--set=scoring.schedule=bounded", *more)
        assert done.exit_code == 0, done.output
        assert "warning: scoring.schedule bounded takes 8.5 times as long" in " ".join(done.stdout.split())


@pytest.mark.parametrize(("int8", "chosen"), [(4.0, "int8"), (0.05, "fp32")])
def test_auto_is_what_the_measured_machine_is_fastest_in(
    home: Path, places: list[str], tmp_path: Path, int8: float, chosen: str
) -> None:
    rates = {"fp32": 1e11, "bf16": 9e11, "int8": int8 * 1e11}
    measured = {"name": "node", "source": "measured today", "device": "cpu", "flops": rates, "flops_alone": rates}
    figures = named("L4").model_copy(update=measured)
    save_figures(figures, tmp_path / "node.json")
    done = run(home, "plan", *places, "--calibration", str(tmp_path / "node.json"))
    assert done.exit_code == 0, done.output
    assert f"TFLOP in {chosen}" in done.stdout
    done = run(home, "plan", "--simulate", *places, "--calibration", str(tmp_path / "node.json"), "--gpus", "2")
    assert f"TFLOP in {chosen}" in done.stdout


def test_a_simulation_of_an_archive_takes_its_groups(home: Path, places: list[str]) -> None:
    done = run(home, "plan", "--simulate", *places, "--device", "L4", "--gpus", "2", "--stragglers", "0")
    assert done.exit_code == 0, done.output
    assert "6 images in 1 groups" in done.stdout
    assert "slower" not in done.stdout


def test_a_million_images_need_no_archive(home: Path) -> None:
    wanted = ["--gpus", "64", "--images", "1000000", "--price-per-gpu-hour", "2.5", "--lose-node", "--device", "A100"]
    first, second = (run(home, "plan", "--simulate", *wanted, "--seed", "7") for _ in range(2))
    assert first.exit_code == 0, first.output
    words = ["makespan", "utilisation", "calls done again", "per GPU", "cost", "1000000 images in 5000 groups"]
    words += ["8 nodes", "A100: data sheet, not measured", "one node lost at 50%", "of 5 megapixels, assumed"]
    words += ["512 cores assumed", "images/s per actor by its data sheet", "whole night", "cost of the whole night"]
    words += ["night    about"]
    assert [word for word in words if word not in first.stdout] == []
    assert first.stdout == second.stdout


SIMULATE = ["plan", "--simulate", "--images", "100"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*SIMULATE, "--device", "H10"], ["--device must be one of", "got 'H10'", "Did you mean 'H100'?"]),
        ([*SIMULATE, "--device", "L4", "--gpus", "0"], ["--gpus must be at least 1; got 0"]),
        (["plan", "--simulate", "--device", "L4", "--images", "0"], ["--images must be at least 1; got 0"]),
        ([*SIMULATE, "--device", "L4", "--group-size", "0"], ["--group-size must be at least 1"]),
        ([*SIMULATE, "--device", "L4", "--gpus-per-node", "-1"], ["--gpus-per-node must be at least 1"]),
        ([*SIMULATE, "--device", "L4", "--cores-per-node", "0"], ["--cores-per-node must be at least 1; got 0"]),
        ([*SIMULATE, "--device", "L4", "--price-per-gpu-hour", "-1"], ["--price-per-gpu-hour must be from 0 to 1e9"]),
        ([*SIMULATE, "--device", "L4", "--price-per-gpu-hour", "inf"], ["from 0 to 1e9; got inf"]),
        ([*SIMULATE, "--device", "L4", "--slowdown", "0.5"], ["--slowdown must be a factor from 1 to 1e6"]),
        ([*SIMULATE, "--device", "L4", "--slowdown", "inf"], ["--slowdown must be a factor from 1 to 1e6; got inf"]),
        ([*SIMULATE, "--device", "L4", "--stragglers", "2"], ["--stragglers must be a fraction"]),
        ([*SIMULATE, "--device", "L4", "--actors", "0"], ["--actors must be at least 1"]),
        ([*SIMULATE, "--calibration", "nowhere.json"], ["--calibration must be", "nowhere.json", "patchead calibrate"]),
        (SIMULATE, ["no estimate: run `patchead calibrate`, or name a device with --device"]),
        (["plan", "--images", "100"], ["--simulate"]),
        (["plan"], ["archive.uri is required"]),
        (["plan", "--simulate", "--device", "L4"], ["archive.uri is required"]),
        (["calibrate", "--threads", "0"], ["--threads must be 1 to"]),
        (["calibrate", "--precision", "fp8"], ["--precision must be one of"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if value and value[0] in ("plan", "calibrate") else "",
)
def test_bad_input_is_a_settings_error(home: Path, arguments: list[str], words: list[str]) -> None:
    done = run(home, *arguments)
    assert isinstance(done.exception, SettingsError), done.output
    assert [word for word in words if word not in str(done.exception)] == []


def test_a_refusal_is_exit_code_2_with_one_message(home: Path) -> None:
    done = patchead(*SIMULATE, "--gpus", "0", "--device", "L4", env={"HOME": str(home)})
    assert (done.code, done.err) == (2, "error: --gpus must be at least 1; got 0.\n")


@pytest.mark.slow
def test_a_calibration_is_what_the_next_plan_takes(home: Path, places: list[str]) -> None:
    done = run(home, "calibrate", "--threads", "1", "--actors", "1", "--precision", "fp32")
    assert done.exit_code == 0, done.output
    figures = load_figures(home / ".cache/patchead/calibration.json")
    assert list(figures.flops) == ["fp32"]
    assert "GFLOP/s" in done.stdout
    planned = run(home, "plan", *places, "--actors", "1")
    assert "s of scoring on 1 actor:" in planned.stdout
    assert f"speeds of {figures.name}: measured" in planned.stdout


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({}, 4),
        ({"resources.cpus_per_actor": 64}, 64),
        ({"resources.cpus_per_actor": 64, "encoder.device": "cuda"}, 1),
    ],
)
def test_limits_know_the_threads_of_an_actor(given: dict[str, Any], threads: int) -> None:
    config = load_config(None, given={"archive.uri": "a", "lake.uri": "l", "scoring.precision": "fp32", **given})
    assert limits_on(config, 1, None).threads == threads

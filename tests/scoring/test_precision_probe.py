"""The probe of the processor: what it measures is what the kernel does, and what follows from it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import patchead
from patchead.errors import SettingsError
from patchead.forecast.calibrate import unit_vectors
from patchead.scoring import precision_probe
from patchead.scoring.leave_one_out import Aggregation, score_group
from patchead.scoring.precision_probe import (
    CLEARLY_FASTER,
    choose,
    clearly_slower,
    described,
    probe,
    to_time,
    warning,
    warning_here,
)
from patchead.scoring.race import race
from patchead.settings.identity import Decides, identity
from patchead.settings.load import load_config
from patchead.settings.resolve import settled_precision, with_precision

FAST, SLOW = {"fp32": 1.0, "int8": 3.1}, {"fp32": 1.0, "int8": 0.04}


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads", "plain_loops")
def test_integer_products_by_a_plain_loop_are_found_slow_without_waiting_for_them() -> None:
    found = probe()
    assert found["fp32"] == 1
    assert 0 < found["int8"] < 0.3
    assert choose([found]) == "fp32"
    assert clearly_slower(found["int8"])


@pytest.mark.usefixtures("threads")
def test_what_the_probe_finds_faster_or_slower_is_so_for_a_whole_group() -> None:
    """In CPU seconds, which no other process lengthens. A group of 24 has much that is no product of images."""
    stored = unit_vectors(24, 256, 384)

    def scored(precision: str) -> None:
        score_group(stored, np.arange(24), aggregation=Aggregation(), precision=precision, memory_bytes=10**9)

    seconds = race({name: lambda name=name: scored(name) for name in ("fp32", "bf16", "int8")}, 3)
    found = probe(candidates=("fp32", "bf16", "int8"))
    assert list(found) == ["fp32", "bf16", "int8"]
    for name, speed in found.items():
        if speed >= CLEARLY_FASTER:
            assert seconds[name] < seconds["fp32"], name
        if clearly_slower(speed):
            assert seconds[name] > seconds["fp32"], name


def test_a_process_asks_its_processor_once_and_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    precision_probe._probed.cache_clear()
    first = probe()
    assert torch.equal(torch.rand(3), expected)
    first["int8"] = -1.0  # the caller's own
    before = precision_probe._probed.cache_info().misses
    assert probe()["int8"] > 0
    assert precision_probe._probed.cache_info().misses == before


def test_an_unknown_arithmetic_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"`precision` must be one of"):
        probe(candidates=("fp8",))


@pytest.mark.parametrize(
    ("probes", "chosen"),
    [
        ([FAST], "int8"),
        ([SLOW], "fp32"),
        ([FAST, FAST, SLOW], "fp32"),
        ([{"fp32": 1.0, "int8": 1.4}], "fp32"),
        ([{"fp32": 1.0, "int8": 1.5}, FAST], "int8"),
        ([{"fp32": 1.0, "bf16": 9.0}], "fp32"),
        ([FAST, {"fp32": 1.0}], "fp32"),
    ],
)
def test_the_slowest_worker_decides_and_int8_must_be_clearly_faster(
    probes: list[dict[str, float]], chosen: str
) -> None:
    assert choose(probes) == chosen


def test_other_candidates_can_be_chosen_from() -> None:
    assert choose([{"fp32": 1.0, "bf16": 1.9, "int8": 4.0}], ("fp32", "bf16")) == "bf16"
    with pytest.raises(ValueError, match="one worker at least"):
        choose([])


def test_asking_for_what_is_slower_warns_with_the_ratio() -> None:
    text = warning("int8", [FAST, {"fp32": 1.0, "int8": 0.2449}], "the slowest of 2 workers")
    assert text == (
        "`precision` int8 runs at 0.24 times the speed of fp32 on the slowest of 2 workers; set "
        "`precision` to auto or fp32."
    )
    assert precision_probe.processor() in (warning("int8", [SLOW]) or "")
    for asked, probes in (
        ("int8", [FAST]),
        ("fp32", [SLOW]),
        ("auto", [SLOW]),
        ("int8", []),
        ("int8", [{"int8": 0.9}]),
    ):
        assert warning(asked, probes) is None


@pytest.mark.usefixtures("plain_loops")
def test_a_process_warns_of_itself() -> None:
    assert "int8 runs at 0.0" in (warning_here("int8", "cpu") or "")
    assert warning_here("auto", "cpu") is None
    assert warning_here("fp32", "cpu") is None


@pytest.mark.usefixtures("plain_loops")
def test_a_notebook_is_warned() -> None:
    photos = [np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8) for seed in range(5)]
    with pytest.warns(UserWarning, match=r"^precision int8 runs at 0\.0\d+ times the speed of fp32 on this"):
        found = patchead.score(photos, encoder="timm/test_vit", weights="random", image_size=64, precision="int8")
    assert found.table.num_rows == 5


def test_auto_is_settled_by_the_workers_on_a_cpu_and_by_none_on_a_gpu() -> None:
    assert settled_precision("auto", "cuda") == "fp16"
    assert settled_precision("auto", "cpu", [FAST]) == "int8"
    assert settled_precision("auto", "cpu", [FAST, SLOW]) == "fp32"
    assert settled_precision("bf16", "cpu", [SLOW]) == "bf16"
    assert settled_precision("auto", "cpu") == choose([probe()])  # nobody else was asked: this process


def test_a_runs_settings_with_the_settled_arithmetic() -> None:
    config = load_config(None, given={"archive.uri": "unused://a", "lake.uri": "unused://b"})
    settled = with_precision(config, "cpu", [FAST, FAST])
    assert (config.scoring.precision, settled.scoring.precision) == ("auto", "int8")
    assert identity(settled, Decides.SCORES, "cpu")["scoring.precision"] == "int8"
    assert identity(settled, Decides.IMAGES) == identity(config, Decides.IMAGES)


@pytest.mark.parametrize(
    ("asked", "device", "timed"),
    [
        ("auto", "cpu", ("fp32", "int8")),
        ("auto", "cuda", ()),
        ("fp32", "cpu", ()),
        ("int8", "cpu", ("fp32", "int8")),
        ("bf16", "cuda", ("fp32", "bf16")),
    ],
)
def test_a_worker_times_what_the_setting_needs(asked: str, device: str, timed: tuple[str, ...]) -> None:
    assert to_time(asked, device) == timed


def test_whoever_is_far_behind_is_called_no_more() -> None:
    calls: list[str] = []

    def busy(name: str, seconds: float) -> None:
        calls.append(name)
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    found = race({"quick": lambda: busy("quick", 0.002), "slow": lambda: busy("slow", 0.03)}, 7)
    assert (calls.count("quick"), calls.count("slow")) == (7, 4)
    assert 0.002 <= found["quick"] < found["slow"]


def test_nobody_is_left_behind_for_what_a_thread_prepares_in_its_first_call() -> None:
    costs = iter([0.03, 0.03, *[0.001] * 5])

    def busy(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    found = race({"ready": lambda: busy(0.002), "prepares twice": lambda: busy(next(costs))}, 7)
    assert found["prepares twice"] < found["ready"]


def test_the_processor_is_named_with_what_makes_it_fast() -> None:
    assert precision_probe.processor()
    for flags, shown in (
        ("fpu avx2 avx512f avx512_vnni avx512_bf16", "Some CPU (AVX-512, VNNI, BF16)"),
        ("fpu avx2 avx512f avx512_vnni amx_int8", "Some CPU (AVX-512, VNNI, AMX)"),
        ("fpu avx2", "Some CPU (AVX2)"),
        ("fpu", "Some CPU"),
    ):
        text = f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\nmodel name\t: Other\n"
        assert described(text) == shown
    assert described("") == "an unknown processor"

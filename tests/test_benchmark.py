"""The benchmarks' own arithmetic: what they compare is equal, and what they print follows from what they measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import benchmark
import numpy as np
import pytest
import torch
from benchmarks import records, searching
from benchmarks.arithmetic import arithmetic, automatic, packed
from benchmarks.index import index
from benchmarks.memory import Case, memory
from benchmarks.records import Record, interleaved, load, markdown, measurable, note_for, ratio, save
from benchmarks.scoring import cdist_loop, scoring
from benchmarks.searching import of_noise
from measured_page import Origin, machine

from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.leave_one_out import Aggregation, score_group
from patchead.scoring.precision_probe import CANDIDATES
from patchead.settings.resolve import settled_precision


def test_the_baseline_gives_the_same_scores_as_the_kernel() -> None:
    stored = unit_vectors(9, 49, 32)
    expected = score_group(stored, np.arange(9), aggregation=Aggregation(), memory_bytes=10**9).image_scores
    got = cdist_loop(torch.from_numpy(stored.astype(np.float32)))
    np.testing.assert_allclose(got, expected, atol=1e-3)  # cdist is inexact, and float16 vectors are not quite unit


def made(**changes: Any) -> Record:
    plain = {"benchmark": "scoring", "case": "c", "precision": "fp32", "metric": "m", "value": 1.0, "unit": "x"}
    return Record(**(plain | changes))


@pytest.mark.parametrize(
    ("value", "target", "met"), [(3.5, ">= 3.5", True), (3.4, ">= 3.5", False), (9, "<= 8", False), (1, None, None)]
)
def test_a_target_is_met_or_not(value: float, target: str | None, met: bool | None) -> None:
    record = made(value=value, target=target)
    assert record.met is met


def test_cases_take_turns_and_the_first_turn_does_not_count() -> None:
    order: list[str] = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert [len(taken) for taken in seconds.values()] == [2, 2]
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0


def test_a_target_of_other_processors_is_neither_met_nor_missed() -> None:
    record = made(precision="int8", value=0.24, target=">= 12", note="not this processor: 0.05 times fp32")
    assert record.met is None
    assert record.cells[-3:] == ("0.24 x", ">= 12", "not this processor: 0.05 times fp32")
    assert made(precision="int8", value=None, target=">= 12").met is None


@pytest.mark.usefixtures("plain_loops")
def test_on_a_processor_without_integer_instructions_the_benchmark_ends_and_says_so() -> None:
    assert measurable(["fp32", "int8"]) == ["fp32"]
    found = scoring(6, 64, 32, precisions=("fp32", "int8"), repeats=1)
    (left_out,) = [record for record in found if record.precision == "int8"]
    assert left_out.value is None
    assert re.fullmatch(r"not this processor: 0\.0\d+ times fp32", left_out.note)
    assert {record.precision for record in found if record.value is not None} == {"fp32"}


def test_a_target_for_fast_integers_is_one_where_the_probe_finds_them_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for speed, note in ((3.8, ""), (3.4, ""), (2.7, "not this processor: 2.7 times fp32")):
        monkeypatch.setattr(records, "probe", lambda speed=speed, **_: {"fp32": 1.0, "int8": speed})
        assert note_for("int8", 3.4) == note
        assert note_for("fp32", 3.4) == ""


def test_what_the_processor_makes_of_each_arithmetic() -> None:
    found = arithmetic()
    names = ["fp32", "fp16", "bf16", "int8"]
    bare, probed = ([record.precision for record in found if record.unit == unit] for unit in ("GOP/s", "x"))
    assert (bare, probed) == ([*names, "int8, NumKong", "int8, packed by oneDNN"], names)
    assert len(found) == len(bare) + len(probed)
    assert all(record.value is not None and record.value > 0 for record in found)


def test_what_is_packed_before_has_the_same_integers() -> None:
    own = torch.Generator().manual_seed(1)
    a, b = (torch.randint(-127, 128, (rows, 384), dtype=torch.int8, generator=own) for rows in (20, 33))
    np.testing.assert_array_equal(packed(a, b)().numpy(), torch._int_mm(a, b.t()).numpy())


def test_auto_is_measured_against_every_single_precision() -> None:
    found = automatic(((6, 16, 16),), repeats=1)
    chosen = settled_precision("auto", "cpu")
    assert {record.case for record in found} == {f"N=6 P=16 D=16, auto is {chosen}"}
    of_all, best, *each = found
    assert (of_all.metric, of_all.target) == ("speed of auto over the best of all precisions", ">= 0.9")
    assert (best.metric, best.target) == ("speed of auto over the best of fp32, int8", ">= 0.9")
    assert {record.precision for record in each} == {"fp32", "fp16", "bf16", "int8"}
    of = {record.precision: record.value for record in each if record.value is not None}
    assert best.value == min(of[name] for name in CANDIDATES if name in of)
    assert of_all.value == min(of.values())


HERE, THERE = (Origin(name, "jobs/benchmark.py", "2026-11-25") for name in ("AMD", "Intel"))


def test_saving_one_benchmark_keeps_the_records_of_the_others_and_of_other_machines(tmp_path: Path) -> None:
    output = tmp_path / "benchmarks.json"
    output.write_text('[{"benchmark": "scoring", "case": "of a version that did not tell the machine"}]')
    speed, room = made(), made(benchmark="memory", unit="")
    faster = made(precision="int8", value=2.0, target=">= 1")
    save([speed], output, THERE)
    save([speed, room], output, HERE)
    save([faster], output, HERE)
    assert load(output, "AMD") == ([room, faster], [HERE, HERE])
    assert load(output, "Intel") == ([speed], [THERE])
    assert json.loads(output.read_text())[-1]["met"] is True
    assert markdown([faster]).splitlines()[-1] == "| scoring | c | int8 | m | 2 x | >= 1 | yes |"


def test_a_page_has_a_table_for_each_benchmark_with_its_own_origin(tmp_path: Path) -> None:
    output, earlier = tmp_path / "benchmarks.json", replace(Origin.here(), command="jobs/benchmark.py --full")
    save([made(), made(precision="int8")], output, Origin.here())
    save([made(benchmark="memory")], output, earlier)
    save([made(benchmark="fidelity")], output, THERE)
    found = benchmark.page_tables(output, machine())
    assert list(found) == ["scoring", "memory"]
    assert found["memory"].startswith(f"By `jobs/benchmark.py --full` on {earlier.date}.\n\n| benchmark |")
    assert found["scoring"].count("| scoring |") == 2


@pytest.mark.slow
def test_scoring_stays_within_its_budget_as_the_process_sees_it() -> None:
    (record,) = memory((Case(images=120, patches=196, dim=32, precision="fp32", memory_gb=0.1),))
    assert record.met
    assert record.value is not None
    assert record.value > 0.05  # it was seen at all: the strip alone is a ninth of the budget


@pytest.mark.slow
def test_a_night_is_found_the_same_before_and_now() -> None:
    found = {record.metric: record.value for record in index(6_400, 4, 200)}  # raises where the two ways differ
    assert len(found) == 9
    assert all(value is not None and value > 0 for value in found.values())


@pytest.mark.slow
def test_one_pool_ends_though_it_holds_the_cpus_that_tasks_would_wait_for(tmp_path: Path) -> None:
    output = tmp_path / "benchmarks.json"
    run = [sys.executable, "jobs/benchmark.py", "one-pool", "--output", str(output)]  # its workers import jobs/
    subprocess.run(run, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.DEVNULL)
    values = [record["value"] for record in json.loads(output.read_text(encoding="utf-8"))]
    assert len(values) == 9
    assert all(value > 0 for value in values)


def test_a_search_is_measured_beside_the_full_one_with_equal_image_scores() -> None:
    found = of_noise("search-noise", 10, 16, repeats=1)
    differences = [record for record in found if record.metric == "largest difference of an image score"]
    assert len(differences) == 2
    assert all(record.met for record in differences)
    speeds = {record.metric for record in found if record.unit == "x"}
    assert speeds == {"speed of bounded over symmetric", "speed of auto over symmetric"}


def test_a_long_search_of_one_turn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`repeats` must be 2 at least for N=2 P=25000; got 1"):
        searching._measured("search-noise", "no structure", np.zeros((2, 25_000, 1), np.float16), repeats=1)


def test_how_long_all_benchmarks_may_take_is_told_and_measured() -> None:
    root, told = Path(__file__).parent.parent, f"; aim: {benchmark.MINUTES} minutes on two cores"
    assert told in (root / "Makefile").read_text()
    assert told in (root / "CONTRIBUTING.md").read_text()
    assert benchmark.whole_run(benchmark.MINUTES + 1.0, full=False).met is False
    assert benchmark.whole_run(600.0, full=True).met is None

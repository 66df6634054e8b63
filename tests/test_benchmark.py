"""The benchmarks' own arithmetic: what they compare is equal, and what they print follows from what they measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.memory import Case, memory
from benchmarks.records import Record, interleaved, markdown, ratio, save
from benchmarks.scoring import cdist_loop

from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.leave_one_out import Aggregation, score_group


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
    assert record.as_json()["met"] is met


def test_cases_take_turns_and_the_first_turn_does_not_count() -> None:
    order: list[str] = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert [len(taken) for taken in seconds.values()] == [2, 2]
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0


def test_saving_one_benchmark_keeps_the_records_of_the_others(tmp_path: Path) -> None:
    output = tmp_path / "benchmarks.json"
    save([made(), made(benchmark="memory", unit="")], output)
    save([made(precision="int8", value=2.0, target=">= 1")], output)
    rows = json.loads(output.read_text())
    assert sorted((row["benchmark"], row["precision"]) for row in rows) == [("memory", "fp32"), ("scoring", "int8")]
    keys = {"benchmark", "case", "precision", "metric", "value", "unit", "target", "met"}
    assert all(set(row) == keys for row in rows)
    assert markdown(output).splitlines()[-1] == "| scoring | c | int8 | m | 2 x | >= 1 | yes |"


def test_scoring_stays_within_its_budget_as_the_process_sees_it() -> None:
    (record,) = memory((Case(images=120, patches=196, dim=32, precision="fp32", memory_gb=0.1),))
    assert record.met
    assert record.value > 0.05  # it was seen at all: the strip alone is a ninth of the budget

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from patchead.errors import PlanError, SettingsError
from patchead.scoring.leave_one_out import Aggregation, score_group
from patchead.scoring.memory_budget import Workload, matmul_bytes
from tests.helpers.groups import group

GB = 10**9


def work(n: int, p: int, d: int = 384, precision: str = "fp32", references: int | None = None) -> Workload:
    return Workload(images=n, patches=p, dim=d, precision=precision, references=references or n)


def test_strip_is_one_value_per_patch_and_reference() -> None:
    assert work(10, 7).strip_bytes == 10 * 10 * 7 * 4
    assert work(10, 7, precision="int8").strip_bytes == work(10, 7).strip_bytes
    assert work(10, 7, precision="fp16").strip_bytes == work(10, 7, precision="bf16").strip_bytes == 10 * 10 * 7 * 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_auto_takes_the_strip_exactly_while_it_fits(precision: str) -> None:
    group_work = work(300, 256, precision=precision)
    limit = group_work.strip_bytes * 4 // 3
    assert group_work.choose_schedule(limit) == "symmetric"
    assert group_work.choose_schedule(limit - 1) == "row_stationary"
    assert group_work.choose_schedule(limit, "row_stationary") == "row_stationary"


def test_a_strip_that_does_not_fit_is_refused_with_the_remedy() -> None:
    needs, remedy = (
        "a strip of 4.1 GB for 1000 images of 1024",
        "Set `schedule` to auto, or `memory_bytes` to 5.46 GB or more",
    )
    with pytest.raises(PlanError, match=rf"^`schedule` symmetric needs {needs} .*{remedy}"):
        work(1000, 1024).choose_schedule(2 * GB, "symmetric")
    assert work(1000, 1024).choose_schedule(int(5.47 * GB), "symmetric") == "symmetric"
    with pytest.raises(SettingsError, match=r"`schedule` must be one of auto, symmetric, row_stationary; got 'fast'"):
        work(10, 10).choose_schedule(GB, "fast")


@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_more_memory_means_blocks_as_large_or_larger_up_to_the_group(schedule: str) -> None:
    sizes = [work(200, 256).block_images(memory * 10**6, schedule) for memory in range(100, 2000, 100)]
    assert sizes == sorted(sizes)
    assert 1 <= sizes[0] < sizes[-1] == 200


def test_a_small_panel_leaves_room_for_larger_query_blocks() -> None:
    alone = work(20_000, 256).block_images(GB, "row_stationary")
    assert work(20_000, 256, references=200).block_images(GB, "row_stationary") > 4 * alone


@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_a_budget_for_not_even_one_image_is_refused_and_the_remedy_works(schedule: str) -> None:
    with pytest.raises(PlanError, match=r"does not hold one image of 1024 .*Set it to .* GB or more") as caught:
        work(20, 1024).block_images(10**6, schedule)
    remedy = float(str(caught.value).split("Set it to ")[1].split()[0])
    assert work(20, 1024).block_images(int(remedy * 1.01 * GB), schedule) >= 1


BUDGETS = [
    (64, 64, 64, 6_000_000, "symmetric"),
    (64, 64, 64, 16_000_000, "symmetric"),
    (64, 64, 64, 4_000_000, "row_stationary"),
    (64, 64, 64, 12_000_000, "row_stationary"),
    (96, 16, 256, 8_000_000, "row_stationary"),
    (40, 196, 32, 8_000_000, "symmetric"),
    (40, 64, 768, 12_000_000, "symmetric"),
    (40, 64, 768, 12_000_000, "row_stationary"),
]
WITH_REPEATS = [
    pytest.param(*case, True, marks=pytest.mark.slow if place % 2 else ()) for place, case in enumerate(BUDGETS)
]


@pytest.mark.parametrize(
    ("n", "p", "d", "memory", "schedule", "repeats"), [*((*case, False) for case in BUDGETS), *WITH_REPEATS]
)
def test_scoring_allocates_no_more_than_its_budget(
    torch_memory: None, n: int, p: int, d: int, memory: int, schedule: str, repeats: bool
) -> None:
    embeddings = group(n, p, d)
    rule = Aggregation(repeats=repeats)
    score = partial(score_group, embeddings, np.arange(n), aggregation=rule, schedule=schedule, memory_bytes=memory)
    half = n // 2  # first calls import and keep what they need
    score_group(embeddings[:half], np.arange(half), aggregation=rule, schedule=schedule, memory_bytes=memory)
    peak = _peak_bytes(score)
    assert n * p * 4 < peak <= memory
    if schedule == "symmetric":
        assert peak >= work(n, p).strip_bytes


def test_the_product_gets_a_sixteenth() -> None:
    assert matmul_bytes(16 * GB) == GB


def _peak_bytes(call: Callable[[], object]) -> int:
    """Highest sum of what torch held at once during ``call``, plus the same of numpy."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        tracemalloc.start()
        call()
        peak_numpy = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    held = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            held += event.nbytes()
            peak = max(peak, held)
    return peak + peak_numpy

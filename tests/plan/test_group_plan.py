"""The plan: counts in, tasks, FLOPs and bytes out, decided before any actor is taken."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchead.errors import PlanError
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.planned import PromptCounts
from patchead.plan.tasks import group_tasks
from patchead.search.bound_choice import SPEED_ON_A_GPU

LIMITS = Limits(memory_bytes=4 * 10**9)


def limits(**changes: object) -> Limits:
    return dataclasses.replace(LIMITS, **changes)


def only(images: int, n_patches: int = 256, dim: int = 384, **changes: object):
    (group,) = make_plan([("g", images)], n_patches, dim, limits(**changes)).groups
    return group


def test_a_small_group_is_one_task_on_one_actor() -> None:
    group = only(200)
    assert (group.whole, group.matching_tasks, group.schedule) == (True, 1, "symmetric")


def test_flops_are_counted_from_the_definition() -> None:
    assert only(10, 7, 3, schedule="row_stationary").flops == 2 * 10 * 10 * 7 * 7 * 3
    assert only(10, 7, 3, schedule="symmetric").flops == 10 * 10 * 7 * 7 * 3
    assert only(10, 7, 3, max_references=4).flops == 2 * 10 * 4 * 7 * 7 * 3


def test_auto_takes_the_row_stationary_schedule_when_the_strip_does_not_fit() -> None:
    strip = 1000 * 1000 * 1024 * 4
    assert only(1000, 1024, memory_bytes=strip * 4 // 3 + 1).schedule == "symmetric"
    assert only(1000, 1024, memory_bytes=strip).schedule == "row_stationary"


def test_a_panel_is_never_symmetric() -> None:
    group = only(200, max_references=50, schedule="symmetric")
    assert (group.schedule, group.references) == ("row_stationary", 50)
    assert only(40, max_references=50).schedule == "symmetric"


def test_too_few_images_are_planned_as_nothing() -> None:
    group = only(4)
    assert (group.schedule, group.matching_tasks, group.flops) == ("none", 0, 0)
    assert only(5).schedule != "none"


def test_a_group_over_the_limit_is_refused_with_the_remedy() -> None:
    with pytest.raises(PlanError, match=r"group g has 20001 images.*max_references.*group_by"):
        only(20_001)
    assert only(20_001, max_references=200).references == 200


def test_a_memory_too_small_for_one_image_is_refused() -> None:
    with pytest.raises(PlanError, match=r"`memory_bytes`.*Set it to"):
        only(100, 1024, 768, memory_bytes=10**6)


def test_one_large_group_is_cut_so_that_every_actor_has_work() -> None:
    group = only(200, actors=4)
    assert not group.whole
    assert group.matching_tasks >= 4 * 2


def test_groups_stay_whole_up_to_a_tenth_of_an_actors_work() -> None:
    many = make_plan([(f"g{i:02d}", 100) for i in range(40)], 256, 384, limits(actors=4))
    assert all(group.whole for group in many.groups)
    few = make_plan([(f"g{i:02d}", 100) for i in range(36)], 256, 384, limits(actors=4))
    assert not any(group.whole for group in few.groups)


@given(n=st.lists(st.integers(5, 400), min_size=1, max_size=12), actors=st.integers(2, 8))
@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_no_task_is_more_than_an_eighth_of_an_actors_work(n: list[int], actors: int, schedule: str) -> None:
    sizes = [(f"g{i}", images) for i, images in enumerate(n)]
    plan = make_plan(sizes, 256, 384, limits(actors=actors, schedule=schedule))
    share = sum(images**2 for images in n) / actors
    for group in plan.groups:
        block = group.block_images
        if block == 1:
            continue  # cannot be cut finer
        largest = block**2 if group.whole else block * (block if schedule == "symmetric" else group.images / 2)
        assert largest * (1 if group.whole else 2) <= max(share / 8, 2 * group.images)


def test_tiles_of_a_block_with_itself_come_last_because_they_are_half_the_work() -> None:
    tiles = only(200, actors=2).tiles()
    diagonal = [a == b for a, b in tiles]
    assert diagonal == sorted(diagonal)


def test_the_largest_group_comes_first() -> None:
    plan = make_plan([("a", 10), ("b", 30), ("c", 20)], 16, 8, LIMITS)
    assert [group.group_id for group in plan.groups] == ["b", "c", "a"]


@given(images=st.integers(5, 3000), actors=st.integers(1, 16), memory_mb=st.integers(60, 4000))
def test_tiles_cover_every_pair_of_images_once(images: int, actors: int, memory_mb: int) -> None:
    group = only(images, 64, 128, actors=actors, memory_bytes=memory_mb * 10**6)
    if group.whole or group.schedule != "symmetric":
        return
    edges = [*range(0, images, group.block_images), images]
    sizes = [b - a for a, b in pairwise(edges)]
    pairs = sum(sizes[a] * sizes[b] * (1 if a == b else 2) for a, b in group.tiles())
    assert pairs == images * images
    assert group.matching_tasks == len(group.tiles())


def test_few_shot_compares_every_image_with_the_prompts_alone() -> None:
    (group,) = make_plan([("g", 3)], 256, 384, LIMITS, {"g": PromptCounts(4, 0)}).groups  # fewer than min_batch
    assert (group.schedule, group.references, group.prompts, group.whole) == ("row_stationary", 4, 4, True)
    assert group.flops == 2 * 3 * 4 * 256 * 256 * 384
    (large,) = make_plan([("g", 50_000)], 256, 384, limits(max_group_size=50_000), {"g": PromptCounts(4, 0)}).groups
    assert large.matching_tasks == len(large.blocks()) > 1
    with pytest.raises(PlanError, match=r"group g has 50000 images, more than `max_group_size`=20000"):
        make_plan([("g", 50_000)], 256, 384, LIMITS, {"g": PromptCounts(4, 0)})
    (judged,) = make_plan([("g", 3)], 256, 384, LIMITS, {"g": PromptCounts(8, 4)}).groups  # 4 turned, scored upright
    assert (judged.images, judged.nulls, judged.prompts) == (7, 4, 8)
    assert judged.flops == 2 * 7 * 8 * 256 * 256 * 384
    two = make_plan([("g", 200)], 256, 384, limits(actors=2), {"g": PromptCounts(4, 0)}).groups[0]
    assert two.matching_tasks >= 20


@pytest.mark.parametrize(
    ("changes", "schedule", "reduction", "pace"),
    [
        ({"schedule": "bounded", "device": "cuda"}, "bounded", 2, SPEED_ON_A_GPU),
        ({"schedule": "bounded", "device": "cuda", "max_references": 9}, "bounded", 1, SPEED_ON_A_GPU),
        ({"window": "auto", "device": "cuda"}, "bounded", 2, 1.0),
        ({"window": "auto", "device": "cuda", "memory_bytes": 2 * 10**8}, "bounded", 1, 1.0),
        ({"window": 0, "device": "cuda"}, "window", 256, 1.0),
    ],
)
def test_bounds_promise_nothing_on_a_gpu(
    changes: dict[str, object], schedule: str, reduction: int, pace: float
) -> None:
    group = only(600, **{"shown": 0} | changes)
    assert (group.schedule, group.pace) == (schedule, pace)
    assert group.flops == 2 * 600 * group.references * 256 * 256 * 384 // reduction
    assert {task.pace for task in group_tasks(group, 256, 384) if task.flops} == {pace}


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"schedule": "bounded", "shown": 20}, 0.05 + 0.145),  # (20 + 5) / 200 + 2 %
        ({"window": "auto", "shown": 20}, 0.05 + 0.145),  # where it does not lie alike; else it is less
        ({"bounded": frozenset({"g"}), "shown": 20}, 0.05 + 0.145),
        ({"schedule": "bounded", "shown": 20, "max_references": 40}, (0.05 + 0.145) / 5),
        ({"schedule": "bounded", "shown": 85}, 0.5),  # 0.05 + 0.47: it will be searched fully
        ({"schedule": "bounded"}, 0.5),
        ({"window": "auto"}, 0.5),
        ({"shown": 20}, 0.5),
        ({"window": 1, "shown": 20}, 9 / 256),
    ],
)
@pytest.mark.parametrize("actors", [1, 3])
def test_what_is_searched_to_be_shown_is_counted(changes: dict[str, object], share: float, actors: int) -> None:
    group = only(200, actors=actors, **changes)
    assert group.flops == pytest.approx(2 * 200**2 * 256**2 * 384 * share, rel=1e-6)
    assert sum(task.flops for task in group_tasks(group, 256, 384)) == group.flops


def test_bounds_are_tried_on_a_cpu_only() -> None:
    assert (only(200, shown=2).tries_bounds, only(200, shown=2).shown) == (True, pytest.approx(0.055))
    assert not only(200, shown=2, device="cuda").tries_bounds
    assert not only(200).tries_bounds  # all are shown


@pytest.mark.parametrize(
    ("changes", "schedule", "why"),
    [
        ({"schedule": "bounded", "shown": 20}, "bounded", ""),
        ({"schedule": "bounded", "shown": 91}, "symmetric", "most images are shown"),  # (91 + 5) / 200 + 0.02
        ({"schedule": "bounded"}, "symmetric", "most images are shown"),
        ({"schedule": "bounded", "device": "cuda"}, "symmetric", "most images are shown"),
        ({"schedule": "bounded", "max_references": 40, "shown": 91}, "bounded", ""),
        ({"schedule": "bounded", "max_references": 40}, "row_stationary", "most images are shown"),
        ({"schedule": "bounded", "memory_bytes": 16_000_000}, "row_stationary", "most images are shown"),
        ({"window": "auto"}, "bounded", ""),  # what lies alike leaves no bounds
        ({"window": "auto", "full": {"g": "bounds cost more"}}, "symmetric", "bounds cost more"),
        ({"window": 1}, "window", ""),
        ({"shown": 91}, "symmetric", ""),
    ],
)
def test_bounds_are_not_planned_where_what_is_shown_costs_as_much_as_the_full_search(
    changes: dict[str, object], schedule: str, why: str
) -> None:
    group = only(200, **changes)
    assert (group.schedule, group.why_full) == (schedule, why)


@pytest.mark.parametrize(("window", "schedule"), [("auto", "auto"), ("auto", "bounded"), (None, "bounded")])
@pytest.mark.parametrize("actors", [1, 2])
def test_a_window_auto_is_none_where_views_of_prompts_stand_in(window: Any, schedule: str, actors: int) -> None:
    of = limits(window=window, schedule=schedule, shown=2, actors=actors)
    plans = [make_plan([("g", 200)], 256, 384, of, {"g": PromptCounts(2, 16, few)}).groups[0] for few in (2, 0)]
    few = ("row_stationary", "fewer than 3 prompts that differ", False)
    asked = ("bounded", "", False)
    assert [(plan.schedule, plan.why_full, plan.tries_bounds) for plan in plans] == [few if window else asked, asked]


def test_a_window_that_was_asked_for_is_refused_where_views_of_prompts_stand_in() -> None:
    of, counts = limits(window=1), {"a": PromptCounts(8, 8), "b": PromptCounts(2, 16, 2)}
    with pytest.raises(PlanError, match=r"^group b: `window` must be off or auto .*; got 1\. .* 3 different normal"):
        make_plan([("a", 20), ("b", 20)], 256, 384, of, counts)
    refused: dict[str, str] = {}
    plan = make_plan([("a", 20), ("b", 20)], 256, 384, of, counts, refused)
    assert ([*refused], [group.group_id for group in plan.scored]) == (["b"], ["a"])


def test_the_images_of_the_night_alone_are_shown() -> None:
    bounded = limits(schedule="bounded")
    (group,) = make_plan([("g", 30)], 256, 384, bounded, {"g": PromptCounts(4, 10)}).groups
    assert (group.schedule, group.shown) == ("bounded", 0.75)


@pytest.mark.parametrize(
    ("threads", "most"),
    [(1, 20_900), (4, 17_100), (16, 9_800), (64, 3_400)],
)
def test_bounds_that_an_actors_threads_leave_no_memory_for_are_refused(threads: int, most: int) -> None:
    of = {"n_patches": 1024, "dim": 1152, "threads": threads, "max_group_size": 30_000}
    assert only(most, schedule="bounded", shown=20, **of).images == most
    with pytest.raises(PlanError, match="`memory_bytes`"):
        only(most + 300, schedule="bounded", shown=20, **of)
    assert only(most + 300, window=1, **of).schedule == "window"  # which takes images some at a time


def test_a_window_needs_no_memory_for_bounds_and_a_refusal_says_what_it_needs() -> None:
    small = 16_000_000
    assert only(400, window=1, memory_bytes=small).schedule == "window"
    assert only(400, window="auto", memory_bytes=small).schedule == "bounded"  # or the full search, if it must
    with pytest.raises(PlanError, match="too small for `schedule` bounded"):
        only(400, schedule="bounded", shown=20, memory_bytes=small)
    with pytest.raises(PlanError, match=r"\(0\.008 GB\) is too small for `window` 1 .* Set it to 0\.01\d+ GB or more"):
        only(400, window=1, memory_bytes=small // 2)

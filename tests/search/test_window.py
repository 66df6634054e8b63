"""The window rule: the oracle's scores, whatever the portions; refused where parts do not lie alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.alike import alike as measured
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.errors import PlanError, SettingsError
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.planned import GroupPlan, PromptCounts
from patchead.scoring import leave_one_out
from patchead.scoring.aggregate import Aggregation
from patchead.search import window_group
from patchead.search.alike import night_sample
from patchead.search.bounded_group import Comparison
from patchead.search.bounded_memory import Portions
from patchead.search.grid import Grid
from patchead.search.group_vectors import GroupVectors
from patchead.search.score import score_group
from patchead.search.window_group import ALIKE
from tests.helpers.groups import group
from tests.reference import oracle

MEMORY = 1 << 28


def alike(n: int, p: int, d: int = 32, seed: int = 0) -> np.ndarray:
    """Unit vectors of which those of one place are near each other."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((1, p, d)) + 0.3 * rng.standard_normal((n, p, d))
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)


def score(embeddings: np.ndarray, window: Any, grid: tuple[int, int], **options: Any) -> Any:
    aggregation = Aggregation(options.pop("aggregate", "nearest"), options.pop("fraction", 0.3), window=window)
    content = options.pop("content", np.arange(len(embeddings)))
    options = {"memory_bytes": MEMORY} | options
    return score_group(embeddings, content, aggregation=aggregation, grid=grid, **options)


@pytest.mark.parametrize("radius", [0, 1, 2, 9])
@pytest.mark.parametrize("aggregate", ["nearest", "farthest"])
@pytest.mark.parametrize("views", [1, 2])
def test_scores_are_those_of_the_oracle(radius: int, aggregate: str, views: int) -> None:
    embeddings = alike(9, views * 20)
    content, part, panel = [0, 1, 2, 3, 4, 2, 6, 7, 8], [-1, 7, 7, -1, 3, 3, 3, 9, -1], [0, 1, 3, 4, 6, 8]
    expected = oracle.window_patch_scores(embeddings, (4, 5), radius, content, part, aggregate, panel=panel)
    got = score(
        embeddings, radius, (4, 5), content=np.array(content), part=np.array(part), aggregate=aggregate,
        panel=np.array(panel),
    )  # fmt: skip
    np.testing.assert_allclose(got.patch_scores, expected, atol=1e-5)
    assert got.n_references.tolist() == [len(oracle.references(i, content, part, panel)) for i in range(9)]


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 10), h=st.integers(1, 6), w=st.integers(1, 6), radius=st.integers(0, 3))
def test_a_window_is_never_nearer_than_the_whole_image_and_a_wide_one_is_it(
    n: int, h: int, w: int, radius: int
) -> None:
    embeddings = alike(n, h * w, 16, seed=n)
    full = score_group(embeddings, np.arange(n), aggregation=Aggregation(), memory_bytes=MEMORY).patch_scores
    near, wide = (score(embeddings, of, (h, w)).patch_scores for of in (radius, 6))
    assert (near - full).min() > -1e-6
    np.testing.assert_allclose(wide, full, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.usefixtures("threads_put_back")
def test_no_bit_depends_on_portions_or_threads(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, found = alike(40, 35, 64), []
    small = Portions(queries=23, rows=50, hold=False, block_images=7, slab_bytes=60_000)
    for threads, sizes in ((1, None), (2, small), (2, None)):
        torch.set_num_threads(threads)
        if sizes is not None:
            monkeypatch.setattr(window_group, "window_portions", lambda *_, found=sizes, **__: found)
        found.append(score(embeddings, 1, (5, 7), precision=precision).patch_scores)
        monkeypatch.undo()
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.usefixtures("threads_put_back")
def test_images_that_the_memory_does_not_hold_are_compared_some_at_a_time(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    embeddings, sizes, images = alike(150, 42, 96), list[int](), GroupVectors.images
    content = np.arange(150) // 2  # none is its twin's reference
    expected = score(embeddings, 2, (6, 7), precision=precision, content=content).patch_scores
    monkeypatch.setattr(GroupVectors, "images", lambda *args: sizes.append((got := images(*args)).nbytes) or got)
    got = score(embeddings, 2, (6, 7), precision=precision, content=content, memory_bytes=(memory := 9_000_000))
    np.testing.assert_array_equal(got.patch_scores, expected)
    one_row = 150 * 5 * 7 * 96 * (4 if precision == "fp32" else 1)
    assert sizes and max(sizes) < min(memory // 4, one_row)
    for piece in (embeddings[:, :42:7], embeddings):
        with pytest.raises(PlanError, match=r"too small for `window` 2 on a group .* Set it to 0\.00\d+ GB or more"):
            score(piece, 2, (6, len(piece[0]) // 6), memory_bytes=200_000)


@pytest.mark.parametrize("counts", [None, PromptCounts(4, 4), PromptCounts(60, 0)])
@pytest.mark.parametrize(("panel", "p", "d"), [(None, 1024, 1152), (40, 1024, 1152), (None, 256, 384)])
@pytest.mark.usefixtures("threads_put_back")
def test_what_the_plan_has_room_for_every_block_has_room_for(
    counts: PromptCounts | None, panel: int | None, p: int, d: int
) -> None:
    """From the least memory on that the plan takes, which is what the whole group takes, or a little more."""
    torch.set_num_threads(1)
    stored = np.broadcast_to(np.float16(0), (1, p, d))

    def planned(memory: int) -> GroupPlan | None:
        limits = Limits(memory_bytes=memory, window=1, actors=4, max_references=None if counts else panel)
        try:
            return make_plan([("g", 200)], p, d, limits, counts and {"g": counts}).groups[0]
        except PlanError:
            return None

    def room(plan: GroupPlan, index: np.ndarray, memory: int) -> Portions:
        measured = night_sample(200) if counts else None
        compared = Comparison(
            blocks=[(np.zeros(1, np.int64), stored)], queries=index, references=np.arange(plan.references),
            content=np.zeros(1), part=np.zeros(1), n_references=np.zeros(1), aggregation=Aggregation(window=1),
            precision="fp32", memory_bytes=memory, grid=Grid.of((int(p**0.5),) * 2, p), device="cpu",
            measured=measured,
        )  # fmt: skip
        return window_group._sizes(compared, 1)

    least = next(memory for memory in range(10**7, 10**9, 2 * 10**6) if planned(memory))
    plan = planned(least)
    assert plan is not None and len(plan.blocks()) > 1
    for block in plan.blocks():
        room(plan, np.arange(200)[block], least)
    with pytest.raises(PlanError):
        room(plan, np.arange(plan.images), least - 2 * 10**6)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-3), ("bf16", 8e-3), ("int8", 4e-3)])
def test_lower_precision_stays_near_float32(precision: str, tolerance: float) -> None:
    embeddings = alike(12, 35, 64)
    expected = score(embeddings, 1, (5, 7)).patch_scores
    got = score(embeddings, 1, (5, 7), precision=precision).patch_scores
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_auto_takes_the_full_search_where_the_memory_is_too_small_for_more() -> None:
    straight = alike(40, 64, 48)
    mixed = np.random.default_rng(0).permuted(straight, axis=1)
    for embeddings, memory in ((straight, 1_400_000), (mixed, 4_000_000)):
        got = score(embeddings, "auto", (8, 8), memory_bytes=memory)
        full = score_group(embeddings, np.arange(40), aggregation=Aggregation(), memory_bytes=memory)
        assert got.search["generator"] == "full: memory_gb is too small for bounds"
        np.testing.assert_array_equal(got.patch_scores, full.patch_scores)


def test_auto_takes_the_window_where_parts_lie_alike_and_a_window_elsewhere_is_refused() -> None:
    straight = alike(30, 36)
    mixed = np.random.default_rng(0).permuted(straight, axis=1)
    chosen = score(straight, "auto", (6, 6))
    assert chosen.search["generator"] == "window rule r=1"
    assert chosen.search["offset"] == 0
    assert chosen.search["alike"] > 0.99
    np.testing.assert_array_equal(chosen.patch_scores, score(straight, 1, (6, 6)).patch_scores)
    turned = score(mixed, "auto", (6, 6))
    full = score_group(mixed, np.arange(30), aggregation=Aggregation(), memory_bytes=MEMORY)
    np.testing.assert_allclose(turned.image_scores, full.image_scores, rtol=0, atol=1e-6)
    assert not turned.search.get("generator", "full").startswith("window rule")
    assert turned.search["alike"] < ALIKE  # is told, and counted, whatever is done instead
    assert turned.search["offset"] > 0
    assert turned.search["multiplications"] >= 0.5 + 45 / 30**2
    with pytest.raises(
        SettingsError, match=r"`window` must be .*; got 1\. In this group the nearest match .* lies \d.* only -?\d+%"
    ):
        score(mixed, 1, (6, 6))


@pytest.mark.parametrize(("moved", "alike"), [(0, True), (1, True), (2, False), (3, False)])
def test_parts_lie_alike_as_far_as_the_window_reaches_them(moved: int, alike: bool) -> None:
    rng, found = np.random.default_rng(0), []
    part = rng.standard_normal((14, 14, 32))
    for _ in range(8):
        y, x = (moved * rng.integers(0, 2, 2)).tolist()
        found.append(np.roll(part, (y, x), (0, 1))[3:11, 3:11] + 0.3 * rng.standard_normal((8, 8, 32)))
    z = np.stack(found).reshape(8, 64, 32)
    embeddings = (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
    got = score(embeddings, "auto", (8, 8))
    assert got.search.get("generator", "full").startswith("window rule") == alike


@pytest.mark.parametrize("case", ["copies", "one-image panel"])
def test_where_no_two_images_can_be_compared_nothing_is_refused(case: str) -> None:
    embeddings = alike(8, 36)
    content, panel = (np.zeros(8, int), None) if case == "copies" else (np.arange(8), np.array([3]))
    expected = oracle.window_patch_scores(embeddings, (6, 6), 1, content.tolist(), [-1] * 8, "nearest", panel=panel)
    got = score(embeddings, 1, (6, 6), content=content, panel=panel)
    np.testing.assert_allclose(got.patch_scores, expected, atol=1e-5)
    assert (got.search["offset"], got.search["alike"]) == (None, None)
    assert (
        not score(embeddings, "auto", (6, 6), content=content, panel=panel)
        .search["generator"]
        .startswith("window rule")
    )


def test_the_images_of_a_night_are_compared_with_its_upright_prompts() -> None:
    photos = alike(14, 36)  # 12 of the night, 2 prompts; and both, each turned by 180 degrees
    night, prompts = photos[:12], np.concatenate([photos[12:], photos[12:, ::-1]])
    content, few_shot = np.array([*range(14), 12, 13]), Aggregation().few_shot()

    def found(window: Any, night: np.ndarray, prompts: np.ndarray, content: np.ndarray) -> Any:
        return score_group(
            np.concatenate([night, prompts]), content, aggregation=replace(few_shot, window=window), queries=len(night),
            memory_bytes=MEMORY, grid=(6, 6), panel=np.arange(len(night), len(content)), measured=night_sample(12),
        )  # fmt: skip

    expected = oracle.window_patch_scores(
        np.concatenate([night, prompts]), (6, 6), 1, content.tolist(), [-1] * 16, "nearest", panel=[12, 13, 14, 15],
        percent=1,
    )[:12]  # fmt: skip
    for window in (1, "auto"):
        got = found(window, night, prompts, content)
        np.testing.assert_allclose(got.patch_scores, expected, atol=1e-5)
        assert got.search["alike"] > 0.99
        assert found(window, night, prompts[:1], content[:13]).search["generator"] == "window rule r=1"
    moved = np.random.default_rng(0).permuted(night, axis=1)
    with pytest.raises(SettingsError, match=r"In this group and its references the nearest .* Use off or auto\."):
        found(1, moved, prompts[:1], content[:13])
    assert not found("auto", moved, prompts, content).search.get("generator", "full").startswith("window rule")


def test_one_picture_of_nothing_lies_alike() -> None:
    embeddings = np.repeat(np.repeat(group(1, 1, 32), 36, axis=1), 12, axis=0)
    assert score(embeddings, 1, (6, 6)).search["alike"] == 1


def test_poly_cells_lie_alike_and_pieces_of_grass_do_not() -> None:
    found = measured((224,), 6, ("poly cells", "grass, cropped and turned"))
    cells, grass = (record.value for record in found if record.metric == "lie alike")
    assert cells is not None and grass is not None
    assert cells >= ALIKE > grass


def test_a_window_and_repeats_are_not_combined_and_the_full_search_knows_none() -> None:
    embeddings = group(8, 9)
    rule = Aggregation(repeats=True, window=1)
    with pytest.raises(SettingsError, match="`window` and `repeats` cannot be combined"):
        score_group(embeddings, np.arange(8), aggregation=rule, memory_bytes=MEMORY)
    with pytest.raises(SettingsError, match="`schedule` and `repeats` cannot be combined"):
        score_group(
            embeddings, np.arange(8), aggregation=Aggregation(repeats=True), memory_bytes=MEMORY, schedule="bounded"
        )
    level = Aggregation(position_level=True)
    with pytest.raises(SettingsError, match="`schedule` and `position_level` cannot be combined"):
        score_group(embeddings, np.arange(8), aggregation=level, memory_bytes=MEMORY, schedule="bounded")
    with pytest.raises(SettingsError, match="`window auto` and `position_level` cannot be combined"):
        score_group(embeddings, np.arange(8), aggregation=replace(level, window="auto"), memory_bytes=MEMORY)
    with pytest.raises(ValueError, match=r"use search\.score\.score_group"):
        leave_one_out.score_group(embeddings, np.arange(8), aggregation=Aggregation(window=1), memory_bytes=MEMORY)
    for wrong in (-1, -3):
        with pytest.raises(SettingsError, match="`window` must be off, auto, or a number of cells"):
            Aggregation(window=wrong)

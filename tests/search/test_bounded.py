"""Bound and refine: the image scores of the full search, whatever the group, the bounds and the portions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.errors import PatcheadError, PlanError
from patchead.samples.finish import finish_samples
from patchead.samples.mask import ForegroundMask
from patchead.samples.side_arrays import SideArrays
from patchead.samples.wanted import FinishedImages
from patchead.scoring.aggregate import Aggregation, count_references, image_scores
from patchead.scoring.precision import DTYPES
from patchead.search import bound_choice, bounded, bounded_group, window_group
from patchead.search.bound_choice import PROJECTION, WINDOW, refused_on, warning_on
from patchead.search.bounded_group import BoundedScores, Comparison, score_bounded
from patchead.search.bounded_memory import Portions
from patchead.search.goals import TopPatches
from patchead.search.grid import Grid
from patchead.search.projection import Projection
from patchead.search.score import score_group
from tests.helpers.groups import group
from tests.reference import oracle

MEMORY = 1 << 28
GENERATORS = (WINDOW, PROJECTION)


def search(embeddings: np.ndarray, grid: tuple[int, int], generator: str, **options: Any) -> BoundedScores:
    n, everyone = len(embeddings), np.arange(len(embeddings))
    given: dict[str, Any] = {
        "blocks": [(everyone, embeddings)],
        "queries": everyone,
        "references": everyone,
        "content": everyone,
        "part": np.full(n, -1),
        "aggregation": Aggregation(image_top_fraction=0.05),
        "device": "cpu",
        "precision": "fp32",
        "memory_bytes": MEMORY,
        "grid": Grid.of(grid, embeddings.shape[1]),
    } | options
    panel = None if len(given["references"]) == n else given["references"]
    counts = count_references(given["content"], given["part"], panel)[given["queries"]]
    goal = options.pop("goal", None) or TopPatches(given["aggregation"].image_top_fraction)
    given.pop("goal", None)
    found = score_bounded(Comparison(n_references=counts, **given), goal, symmetric=True, generator=generator)
    assert isinstance(found, BoundedScores)
    return found


def assert_same_images(found: BoundedScores, full: np.ndarray, top: float, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(image_scores(found.patch_scores, top), image_scores(full, top), rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.patch_scores.max(axis=1), full.max(axis=1), rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.patch_scores[found.exact], full[found.exact], rtol=0, atol=tolerance)
    below = found.patch_scores - full
    assert not (below < -tolerance).any(), "a bound is below the score"


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("aggregate", ["nearest", "farthest"])
@pytest.mark.parametrize("percent", [1, 30, 100])
def test_image_scores_are_those_of_the_oracle(generator: str, aggregate: Any, percent: int) -> None:
    embeddings = group(12, 20)
    content, part = [0, 1, 2, 3, 4, 2, 6, 7, 8, 9, 10, 11], [-1, 7, 7, -1, 3, 3, 3, 9, -1, -1, -1, -1]
    expected = oracle.patch_scores(embeddings, content, part, aggregate, percent)
    found = search(
        embeddings, (4, 5), generator,
        content=np.array(content), part=np.array(part), aggregation=Aggregation(aggregate, percent / 100, 0.05),
    )  # fmt: skip
    assert_same_images(found, expected, 0.05, 1e-5)


def clusters(n: int, p: int, d: int) -> np.ndarray:
    """Patches that are one of two vectors."""
    ends = np.random.default_rng(1).standard_normal((2, d))
    z = ends[np.random.default_rng(2).integers(0, 2, (n, p))]
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)


def unstructured(n: int, p: int, d: int) -> np.ndarray:
    z = np.random.default_rng(3).standard_normal((n, p, d))
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)


ADVERSARIAL = {
    "all equal": np.repeat(np.repeat(group(1, 1, 32), 30, axis=1), 15, axis=0),
    "one image repeated": np.repeat(group(1, 30, 32), 15, axis=0),
    "two clusters": clusters(15, 30, 32),
    "no structure": unstructured(15, 30, 32),
    "places shuffled": np.random.default_rng(4).permuted(group(15, 30, 32), axis=1),
}


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("precision", list(DTYPES))
@pytest.mark.parametrize("name", list(ADVERSARIAL))
def test_adversarial_groups_in_every_arithmetic(name: str, precision: str, generator: str) -> None:
    embeddings = ADVERSARIAL[name]
    aggregation = Aggregation(fraction=0.2, image_top_fraction=0.1)
    full = score_group(
        embeddings, np.arange(15), aggregation=aggregation, precision=precision, memory_bytes=MEMORY
    ).patch_scores
    found = search(embeddings, (5, 6), generator, aggregation=aggregation, precision=precision)
    assert_same_images(found, full, 0.1)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 14),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    views=st.integers(1, 3),
    fraction=st.sampled_from([0.01, 0.3, 0.7, 1.0]),
    top=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    aggregate=st.sampled_from(["nearest", "farthest"]),
    copies=st.integers(1, 14),
    parts=st.integers(1, 14),
    panel=st.integers(1, 14) | st.none(),
    generator=st.sampled_from(GENERATORS),
)
def test_any_group(
    n: int, grid: tuple[int, int], views: int, fraction: float, top: float, aggregate: Any, copies: int, parts: int,
    panel: int | None, generator: str,
) -> None:  # fmt: skip
    embeddings = group(n, views * grid[0] * grid[1], 8, seed=n)
    content, part = np.arange(n) % copies, np.arange(n) % parts - 1
    references = np.arange(n) if panel is None else np.arange(n)[-min(panel, n) :]
    aggregation = Aggregation(aggregate, fraction, top)
    full = score_group(
        embeddings, content, part, aggregation=aggregation, memory_bytes=MEMORY, schedule="row_stationary",
        panel=references,
    ).patch_scores  # fmt: skip
    found = search(
        embeddings, grid, generator, content=content, part=part, references=references, aggregation=aggregation
    )
    known = ~np.isnan(full[:, 0])
    assert np.isnan(found.patch_scores[~known]).all()
    if known.any():
        some = BoundedScores(found.patch_scores[known], found.exact[known], {})
        assert_same_images(some, full[known], top)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.usefixtures("threads_put_back")
def test_no_bit_depends_on_portions_threads_or_where_bounds_come_from(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = group(40, 35, 64)
    blocks = [(cut, embeddings[cut]) for cut in np.array_split(np.random.default_rng(0).permutation(40), 3)]
    blocks = [(np.sort(cut), embeddings[np.sort(cut)]) for cut, _ in blocks]
    seen = []
    small = Portions(queries=13, rows=50, hold=False, block_images=7, slab_bytes=60_000)
    for threads, sizes, least in ((1, None, 256), (2, small, 64), (2, replace(small, hold=True, rows=33), 9)):
        torch.set_num_threads(threads)
        monkeypatch.setattr(bounded, "_LEAST_ROWS", least)
        if sizes is not None:
            monkeypatch.setattr(bounded_group, "portions", lambda *_, found=sizes: found)
        for generator in GENERATORS:
            given = {"blocks": blocks[::-1]} if sizes else {}
            found = search(embeddings, (5, 7), generator, precision=precision, **given)
            seen.append(image_scores(found.patch_scores, 0.05))
    for other in seen[1:]:
        np.testing.assert_array_equal(seen[0], other)


def test_few_patches_are_searched_where_parts_lie_alike() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 100, 64)) + 0.2 * rng.standard_normal((60, 100, 64))
    z[7, 30:33] = rng.standard_normal((3, 64))
    embeddings = (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
    aggregation = Aggregation(fraction=0.05)
    got = score_group(embeddings, np.arange(60), aggregation=aggregation, memory_bytes=MEMORY, schedule="bounded")
    full = score_group(embeddings, np.arange(60), aggregation=aggregation, memory_bytes=MEMORY)
    assert got.search["generator"] in GENERATORS
    assert got.search["searched"] < 0.1
    assert got.exact is not None
    np.testing.assert_allclose(got.image_scores, full.image_scores, rtol=0, atol=1e-6)
    assert got.image_scores.argmax() == 7


def test_a_group_that_has_no_use_for_bounds_is_searched_fully() -> None:
    embeddings = unstructured(24, 36, 16)
    options: dict[str, Any] = {"aggregation": Aggregation(), "memory_bytes": MEMORY}
    got = score_group(embeddings, np.arange(24), schedule="bounded", **options)
    full = score_group(embeddings, np.arange(24), schedule="symmetric", **options)
    np.testing.assert_array_equal(got.patch_scores, full.patch_scores)
    assert got.exact is None
    sample = 4 * 3 / 2 + 4 * 4  # four images, each pair once; then each with each in components
    share = pytest.approx(0.5 + sample / 24**2)
    assert got.search == {"generator": "full: bounds cost more", "searched": 1.0, "multiplications": share}
    assert full.search == {"multiplications": 0.5}
    streamed = score_group(embeddings, np.arange(24), schedule="row_stationary", **options)
    assert streamed.search == {"multiplications": 1.0}


def test_what_is_multiplied_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # 11 images against one prompt: a sample of 4 pairs of images, then what is searched, projected and gathered.
    embeddings, counted = group(12, 36, 32), []
    projected = Projection.lower_cosines

    def counting(self: Projection, queries: Any, allowed: Any, most: int) -> Any:
        counted.append(len(queries))
        return projected(self, queries, allowed, most)

    monkeypatch.setattr(Projection, "lower_cosines", counting)
    found = search(
        embeddings, (6, 6), PROJECTION, queries=np.arange(11), references=np.array([11]),
        aggregation=Aggregation().few_shot(),
    )  # fmt: skip
    facts, patches = found.facts, 11 * 36
    assert facts["projected"] == 1.0 == sum(counted) / patches
    low = 1.0  # 32 components of 32 dimensions
    assert facts["multiplications"] == pytest.approx(facts["searched"] + low + 1 / 36 + (4 + 4 * low) / 11)


def alike(n: int, p: int, d: int) -> np.ndarray:
    """Patches of one place near each other, and one image that differs."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, p, d)) + 0.2 * rng.standard_normal((n, p, d))
    z[7, 30:33] = rng.standard_normal((3, d))
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)


LEVEL = Aggregation(position_level=True)


@pytest.mark.parametrize(
    ("embeddings", "shown", "changes", "expected"),
    [
        (alike(60, 100, 64), 0.1, {}, "window"),
        (alike(60, 100, 64), 0.1, {"schedule": "row_stationary"}, "window"),
        (alike(60, 100, 64), 0.1, {"panel": np.arange(0, 60, 2)}, "window"),
        (alike(60, 100, 64), 0.1, {"aggregation": Aggregation(repeats=True)}, "full: repeats need every patch"),
        (alike(60, 100, 64), 0.1, {"aggregation": LEVEL}, "full: the position level needs every patch"),
        (alike(60, 100, 64), 0.42, {}, "full: bounds cost more"),
        (alike(60, 100, 64), 0.5, {}, "full: most images are shown"),
        (alike(60, 100, 64), 0.1, {"memory_bytes": 8_000_000}, "full: memory_gb is too small for bounds"),
        (unstructured(60, 100, 64), 0.1, {}, "full: bounds cost more"),
        (alike(24, 100, 64), 0.1, {}, "full: too few images to try"),
        (alike(60, 100, 64), None, {}, None),
    ],
)  # fmt: skip
def test_bounds_are_chosen_where_they_cost_less(
    embeddings: np.ndarray, shown: float | None, changes: dict[str, Any], expected: str | None
) -> None:
    options: dict[str, Any] = {"aggregation": Aggregation(), "memory_bytes": MEMORY, "schedule": "auto"} | changes
    n = len(embeddings)
    got = score_group(embeddings, np.arange(n), shown=shown, **options)
    full = score_group(embeddings, np.arange(n), **options)
    assert got.search.get("generator") == expected
    np.testing.assert_allclose(got.image_scores, full.image_scores, rtol=0, atol=1e-6)
    assert (got.exact is None) == (expected != "window")


@pytest.mark.parametrize(
    ("changes", "shown", "why"),
    [
        ({"schedule": "bounded"}, 0.42, "bounds cost more"),
        ({"schedule": "bounded"}, 0.5, "most images are shown"),
        ({"schedule": "bounded", "memory_bytes": 8_000_000}, 1.0, "most images are shown"),  # bounds need more
        ({"aggregation": Aggregation(window="auto")}, 0.42, "bounds cost more"),
        ({"aggregation": Aggregation(window="auto")}, 1.0, "most images are shown"),
        ({"aggregation": Aggregation(window="auto"), "schedule": "bounded"}, 1.0, "most images are shown"),
    ],
)
def test_what_is_shown_is_counted_whoever_asks_for_bounds(
    changes: dict[str, Any], shown: float, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_group, "ALIKE", 2)  # nothing lies so much alike: bounds are left to choose
    embeddings = alike(60, 100, 64)
    options: dict[str, Any] = {"aggregation": Aggregation(), "memory_bytes": MEMORY} | changes
    got = score_group(embeddings, np.arange(60), shown=shown, **options)
    assert got.search["generator"] == f"full: {why}"
    assert got.exact is None
    few = score_group(embeddings, np.arange(60), **options | {"memory_bytes": MEMORY})
    assert few.search["generator"] in GENERATORS


@pytest.mark.parametrize(
    ("device", "asked", "refused"),
    [("cpu", True, ""), ("cpu", False, ""), ("cuda", True, ""), ("cuda:1", False, "on a GPU bounds take longer")],
)
def test_bounds_are_for_cpus_and_for_who_asks(device: str, asked: bool, refused: str) -> None:
    assert refused_on(device, asked=asked) == refused


@pytest.mark.parametrize(
    ("device", "schedule", "window", "warned"),
    [
        ("cpu", "bounded", None, False),
        ("cuda", "auto", None, False),
        ("cuda", "bounded", "auto", False),
        ("cuda:0", "bounded", None, True),
    ],
)
def test_who_asks_for_bounds_on_a_gpu_is_warned(device: str, schedule: str, window: Any, warned: bool) -> None:
    text = warning_on(device, schedule, window)
    assert (text is not None) == warned
    assert text is None or "8.5 times as long" in text


@pytest.mark.parametrize("shown", [None, 0.1])
def test_a_window_that_is_not_taken_leaves_a_gpu_to_the_full_search(
    shown: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound_choice, "pays_on", lambda device: False)
    embeddings = np.random.default_rng(4).permuted(alike(40, 100, 16), axis=1)
    aggregation = Aggregation(window="auto")
    got = score_group(embeddings, np.arange(40), aggregation=aggregation, memory_bytes=MEMORY, shown=shown)
    assert got.search["generator"] == "full: on a GPU bounds take longer"
    assert got.exact is None


def test_prompts_are_searched_alike() -> None:
    embeddings = group(30, 36, 32)
    options: dict[str, Any] = {
        "aggregation": Aggregation().few_shot(), "memory_bytes": MEMORY, "panel": np.arange(26, 30), "queries": 26,
    }  # fmt: skip
    full = score_group(embeddings, np.arange(30), schedule="row_stationary", **options)
    got = score_group(embeddings, np.arange(30), schedule="bounded", **options)
    np.testing.assert_allclose(got.image_scores, full.image_scores, rtol=0, atol=1e-6)
    assert got.n_references.tolist() == [4] * 26


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("portion", [5, 12])
def test_aligned_views_with_a_mask_and_copies_are_finished_as_after_the_full_search(
    generator: str, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, grid, rng = 12, (4, 5), np.random.default_rng(0)
    embeddings, valid = group(n, 60, 16), rng.random((n, 3, 20)) < 0.8
    valid[:, 0], valid[5, 1:] = True, False
    shift = np.array([[1.0, 0, 0.2], [0, 1, 0.25]])
    motions = np.broadcast_to(np.stack([np.eye(2, 3), shift, [[-1, 0, 1], [0, -1, 1]]]), (n, 3, 2, 3)).astype(
        np.float32
    )
    side = SideArrays(attention=rng.random((n, 60)).astype(np.float16), valid=valid, motions=motions)
    mask, content, part = ForegroundMask(0.5, 0.5), np.arange(n) // 2, np.arange(n) % 5 - 1
    aggregation = Aggregation(fraction=0.3, image_top_fraction=0.1)
    options: dict[str, Any] = {"content": content, "part": part, "aggregation": aggregation}
    sizes = Portions(queries=portion, rows=50, hold=True, block_images=7, slab_bytes=1 << 20)
    monkeypatch.setattr(bounded_group, "portions", lambda *_: sizes)
    raw = search(embeddings, grid, generator, goal=FinishedImages(grid, side, mask, 0.1), **options).patch_scores
    everything = score_group(embeddings, memory_bytes=MEMORY, **options).patch_scores
    found, full = (finish_samples(of, grid, side, mask=mask, top_fraction=0.1) for of in (raw, everything))
    np.testing.assert_allclose(found.image_scores, full.image_scores, rtol=0, atol=1e-6)
    largest = (done.patch_scores.max(axis=(1, 2)) for done in (found, full))
    np.testing.assert_allclose(*largest, rtol=0, atol=1e-6)


def test_a_bad_embedding_and_a_small_budget_are_named() -> None:
    embeddings = group(40, 36, 32)
    embeddings[37, 2] = 0
    options: dict[str, Any] = {"aggregation": Aggregation(), "schedule": "bounded"}
    with pytest.raises(PatcheadError, match="patch 2 of image 37 "):
        score_group(embeddings, np.arange(40), memory_bytes=MEMORY, **options)
    with pytest.raises(PlanError, match="`schedule` bounded on a group of 40 references"):
        score_group(embeddings, np.arange(40), memory_bytes=100_000, **options)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from patchead.errors import PatcheadError, PlanError, SettingsError
from patchead.scoring import similarity
from patchead.scoring.aggregate import count_references
from patchead.scoring.leave_one_out import (
    Aggregation,
    reduce_query_block,
    reference_panel,
    score_group,
    score_query_block,
)
from patchead.scoring.memory_budget import Workload
from patchead.scoring.precision import prepare
from tests.helpers.groups import group
from tests.reference import oracle

MEMORY = 1 << 28
NOBODY = -1


@pytest.fixture
def _threads_put_back() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _score(embeddings: np.ndarray, content: np.ndarray | None = None, **options: Any) -> Any:
    options = {"aggregation": Aggregation(), "memory_bytes": MEMORY} | options
    return score_group(embeddings, np.arange(len(embeddings)) if content is None else content, **options)


@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
@pytest.mark.parametrize("aggregate", ["nearest", "farthest"])
@pytest.mark.parametrize(
    ("n", "p", "percent", "top_percent"),
    [(2, 1, 30, 1), (3, 35, 30, 1), (4, 49, 30, 0), (5, 6, 50, 30), (6, 35, 100, 5), (11, 12, 70, 100), (24, 4, 29, 1)],
)
def test_engine_equals_the_oracle(
    schedule: str, aggregate: Any, n: int, p: int, percent: int, top_percent: int
) -> None:
    embeddings = group(n, p, seed=n)
    expected = oracle.patch_scores(embeddings, list(range(n)), [NOBODY] * n, aggregate, percent)
    got = _score(embeddings, aggregation=Aggregation(aggregate, percent / 100, top_percent / 100), schedule=schedule)
    assert got.patch_scores.dtype == np.float32
    np.testing.assert_allclose(got.patch_scores, expected, atol=1e-5)
    np.testing.assert_allclose(got.image_scores, oracle.image_scores(expected, top_percent), atol=1e-5)
    assert got.n_references.tolist() == [n - 1] * n


@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
@pytest.mark.parametrize("aggregate", ["nearest", "farthest"])
def test_copies_and_parts_are_no_references(schedule: str, aggregate: Any) -> None:
    embeddings = group(9, 12)
    embeddings[5] = embeddings[2]
    content = [0, 1, 2, 3, 4, 2, 6, 7, 8]
    part = [NOBODY, 7, 7, NOBODY, 3, 3, 3, 9, NOBODY]
    expected = oracle.patch_scores(embeddings, content, part, aggregate)
    options = {"aggregation": Aggregation(aggregate), "schedule": schedule}
    got = _score(embeddings, np.array(content), part=np.array(part), **options)
    np.testing.assert_allclose(got.patch_scores, expected, atol=1e-5)
    assert got.n_references.tolist() == [len(oracle.references(i, content, part)) for i in range(9)]


def test_a_copy_does_not_hide_its_own_defect() -> None:
    embeddings = group(8, 12)
    embeddings[3, 4] *= -1
    twice = np.concatenate([embeddings, embeddings[3:4]])
    content = np.array([0, 1, 2, 3, 4, 5, 6, 7, 3])
    aggregation = Aggregation(fraction=0.1)
    honest, fooled = _score(twice, content, aggregation=aggregation), _score(twice, aggregation=aggregation)
    np.testing.assert_allclose(
        honest.patch_scores[[3, 8]], _score(embeddings, aggregation=aggregation).patch_scores[[3, 3]], atol=1e-6
    )
    assert fooled.patch_scores[3, 4] < 1e-6
    assert honest.patch_scores[3, 4] > 0.1


@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_a_group_of_identical_images_has_no_references_and_no_score(schedule: str) -> None:
    got = _score(np.repeat(group(1, 35), 6, axis=0), np.zeros(6, np.int64), schedule=schedule)
    assert got.n_references.tolist() == [0] * 6
    assert np.isnan(got.patch_scores).all()
    assert np.isnan(got.image_scores).all()


def test_only_the_image_without_a_reference_goes_without_a_score() -> None:
    embeddings, content, part = group(3, 5), [0, 0, 2], [1, NOBODY, 1]
    got = _score(embeddings, np.array(content), part=np.array(part))
    assert got.n_references.tolist() == [0, 1, 1]
    np.testing.assert_allclose(got.patch_scores, oracle.patch_scores(embeddings, content, part), atol=1e-5)
    assert np.isnan(got.image_scores).tolist() == [True, False, False]


def test_a_group_of_one() -> None:
    got = _score(group(1, 4))
    assert got.n_references.tolist() == [0]
    assert np.isnan(got.image_scores).all()


@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_embeddings_that_are_all_zero_are_refused(schedule: str) -> None:
    with pytest.raises(PatcheadError, match="the embedding of patch 0 of image 0 is zero"):
        _score(np.zeros((5, 4, 8), np.float16), schedule=schedule)
    embeddings = group(40, 64, 32)
    embeddings[37, 2] = 0
    with pytest.raises(PatcheadError, match="patch 2 of image 37 "):
        _score(embeddings, schedule=schedule, memory_bytes=2_000_000)


@pytest.mark.parametrize(
    ("p", "aggregate"),
    [
        *((p, "nearest") for p in (1, 35, 64)),
        (35, "farthest"),
        *(pytest.param(p, "farthest", marks=pytest.mark.slow) for p in (1, 64)),
    ],
)
@pytest.mark.usefixtures("_threads_put_back")
def test_memory_threads_and_schedule_do_not_change_the_numbers(p: int, aggregate: Any) -> None:
    n = 40
    embeddings = group(n, p, 32)
    content, part = np.arange(n) // 2 * 2, np.arange(n) % 11 - 1
    options: dict[str, Any] = {"part": part, "aggregation": Aggregation(aggregate)}
    expected = _score(embeddings, content, **options)
    blocks = set()
    for threads, memory in (
        (1, _memory_for(1, n, p)),
        (2, _memory_for(7, n, p)),
        (1, _memory_for(13, n, p)),
        (2, MEMORY),
    ):
        torch.set_num_threads(threads)
        for schedule in ("symmetric", "row_stationary", "auto"):
            got = _score(embeddings, content, schedule=schedule, memory_bytes=memory, **options)
            np.testing.assert_allclose(got.patch_scores, expected.patch_scores, atol=1e-6)
            np.testing.assert_allclose(got.image_scores, expected.image_scores, atol=1e-6)
        blocks.add(_work(n, p).block_images(memory, "symmetric"))
    assert blocks == {1, 7, 13, n}


def _memory_for(images: int, n: int, p: int) -> int:
    """The budget that holds the strip and two blocks of so many images of 32 dimensions, and no more."""
    scratch, block = n * p * 32 * 6, images * p * 32 * 6
    return (_work(n, p).strip_bytes + scratch + 2 * block) * 8 // 7 + 16


@pytest.mark.parametrize("images", [1, 5, 12])
def test_the_symmetric_schedule_multiplies_each_pair_once(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    n, p = 12, 600
    values: list[int] = []
    real = torch.mm

    def counted(x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        values.append(out.numel())
        return real(x, y, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    # sub-blocks of one image, on any number of threads: pairs within a larger one are multiplied twice
    monkeypatch.setattr(similarity, "_CPU_ROWS", p)
    _score(group(n, p, 32), schedule="symmetric", memory_bytes=_memory_for(images, n, p))
    assert sum(values) == n * (n - 1) // 2 * p * p
    values.clear()
    _score(group(n, p, 32), schedule="row_stationary")
    assert sum(values) == n * n * p * p


@pytest.mark.parametrize("tile", [1, 3, 8, 20])
@pytest.mark.filterwarnings("error")
def test_whole_group_rows_and_tiles_agree_in_any_order(tile: int) -> None:
    n, p = 20, 35
    embeddings = group(n, p)
    content, part = np.arange(n) // 2 * 2, np.arange(n) % 6 - 1
    n_references = count_references(content, part)
    aggregation = Aggregation("nearest", 0.4)
    expected = _score(embeddings, content, part=part, aggregation=aggregation).patch_scores
    starts = np.random.default_rng(tile).permutation(np.arange(0, n, tile))
    cuts = [np.arange(start, min(start + tile, n)) for start in starts]
    parts = _tiles(embeddings, cuts)
    for rows in cuts:
        shared: dict[str, Any] = {"aggregation": aggregation, "n_references": n_references[rows]}
        blocks = ((columns, embeddings[columns]) for columns in cuts)
        streamed = score_query_block(embeddings[rows], rows, blocks, content, part, memory_bytes=MEMORY, **shared)
        reduced = reduce_query_block(parts[rows[0]], rows, content, part, **shared)
        np.testing.assert_allclose(streamed, expected[rows], atol=1e-6)
        np.testing.assert_allclose(reduced, expected[rows], atol=1e-6)
        assert streamed.dtype == reduced.dtype == np.float32


def _tiles(embeddings: np.ndarray, cuts: list[np.ndarray]) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """The distributed symmetric schedule: each unordered pair of blocks once, both results kept by row block."""
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {cut[0]: [] for cut in cuts}
    for i, rows in enumerate(cuts):
        a = prepare(embeddings[rows])
        parts[rows[0]].append((rows, similarity.tile_self(a, budget_bytes=10_000).numpy()))
        for columns in cuts[i + 1 :]:
            ab, ba = similarity.tile(a, prepare(embeddings[columns]), budget_bytes=10_000)
            parts[rows[0]].append((columns, ab.numpy()))
            reverse = ba.numpy()
            reverse.flags.writeable = False  # as it comes from an object store
            parts[columns[0]].append((rows, reverse))
    return parts


def test_a_lost_or_repeated_block_is_an_error_not_a_shorter_mean() -> None:
    embeddings, n = group(6, 4), 6
    content, part, rows = np.arange(n), np.full(n, NOBODY), np.arange(2)
    n_references = count_references(content, part)[rows]
    halves = [np.arange(0, 3), np.arange(3, 6)]
    for wrong in (halves[:1], [*halves, halves[1]]):
        blocks = ((columns, embeddings[columns]) for columns in wrong)
        with pytest.raises(PatcheadError, match=r"image 0 of the group met \d references, not 5: .*lost or came twice"):
            score_query_block(
                embeddings[rows],
                rows,
                blocks,
                content,
                part,
                aggregation=Aggregation(),
                memory_bytes=MEMORY,
                n_references=n_references,
            )
        parts = [(columns, np.zeros((2, len(columns), 4), np.float32)) for columns in wrong]
        with pytest.raises(PatcheadError, match="lost or came twice"):
            reduce_query_block(parts, rows, content, part, aggregation=Aggregation(), n_references=n_references)
    with pytest.raises(ValueError, match="at least one part"):
        reduce_query_block([], rows, content, part, aggregation=Aggregation(), n_references=n_references)


def test_references_are_taken_from_the_stream_one_block_at_a_time() -> None:
    embeddings = group(12, 9)
    content, part = np.arange(12), np.full(12, NOBODY)
    taken: list[int] = []

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, 12, 4):
            taken.append(start)
            yield np.arange(start, start + 4), embeddings[start : start + 4]

    got = score_query_block(
        embeddings[:3], np.arange(3), blocks(), content, part,
        aggregation=Aggregation(), memory_bytes=MEMORY, n_references=np.full(3, 11),
    )  # fmt: skip
    assert taken == [0, 4, 8]
    np.testing.assert_allclose(got, _score(embeddings).patch_scores[:3], atol=1e-6)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-3), ("bf16", 8e-3), ("int8", 4e-3)])
@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
def test_lower_precision_stays_near_float32(precision: str, tolerance: float, schedule: str) -> None:
    embeddings = group(7, 35, 64)
    expected = _score(embeddings).patch_scores
    got = _score(embeddings, precision=precision, schedule=schedule).patch_scores
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_with_a_panel_only_its_images_are_references_and_none_is_its_own() -> None:
    n, content, part = 10, [0, 1, 2, 3, 4, 1, 6, 7, 8, 9], [NOBODY] * 8 + [5, 5]
    embeddings, panel = group(n, 6), np.array([1, 4, 8])
    expected = oracle.patch_scores(embeddings, content, part, panel=panel.tolist())
    got = _score(embeddings, np.array(content), part=np.array(part), panel=panel)
    np.testing.assert_allclose(got.patch_scores, expected, atol=1e-5)
    assert got.n_references.tolist() == [3, 2, 3, 3, 2, 2, 3, 3, 2, 2]


def test_a_panel_of_the_whole_group_changes_nothing() -> None:
    embeddings = group(8, 12)
    got = _score(embeddings, panel=np.arange(8))
    np.testing.assert_allclose(got.patch_scores, _score(embeddings).patch_scores, atol=1e-6)


def test_panel_is_drawn_by_id_and_seed_alone() -> None:
    ids = [f"night=2026-11-21/product=screw/{i:04}.png" for i in range(500)]
    panel = reference_panel(ids, 50, seed=3)
    assert panel.dtype == np.int64
    assert len(set(panel.tolist())) == 50
    assert (np.diff(panel) > 0).all()
    chosen = {ids[i] for i in panel}
    shuffled = np.random.default_rng(0).permutation(ids).tolist()
    assert {shuffled[i] for i in reference_panel(shuffled, 50, seed=3)} == chosen
    assert {ids[i] for i in reference_panel(ids, 50, seed=4)} != chosen
    assert {ids[i] for i in reference_panel(ids, 20, seed=3)} < chosen
    fewer = [name for name in ids if name not in sorted(chosen)[:5]]
    assert len({fewer[i] for i in reference_panel(fewer, 50, seed=3)} & chosen) == 45


def test_a_panel_stays_the_same_across_releases() -> None:
    assert reference_panel([f"{i}.png" for i in range(10)], 4, seed=0).tolist() == [1, 4, 7, 8]


def test_panel_of_a_small_group_is_everyone_and_of_none_is_refused() -> None:
    assert reference_panel(["a", "b"], 200, seed=0).tolist() == [0, 1]
    with pytest.raises(SettingsError, match=r"`size` must be at least 1; got 0"):
        reference_panel(["a"], 0, seed=0)


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"aggregate": "mean"}, "aggregate"),
        ({"fraction": 0}, "fraction"),
        ({"image_top_fraction": 2}, "image_top_fraction"),
    ],
)
def test_a_rule_without_meaning_is_refused(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(SettingsError, match=rf"`{parameter}` must be"):
        Aggregation(**options)


def test_arrays_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="content and part must have the 4 entries"):
        _score(group(4, 2), np.arange(3))
    with pytest.raises(SettingsError, match="`precision` must be one of"):
        _score(group(4, 2), precision="int3")
    with pytest.raises(PlanError, match="does not hold 20 query images"):
        score_query_block(
            group(20, 64), np.arange(20), [], np.arange(20), np.full(20, NOBODY),
            aggregation=Aggregation(), memory_bytes=100_000, n_references=np.full(20, 19),
        )  # fmt: skip


def _work(n: int, p: int) -> Workload:
    return Workload(images=n, patches=p, dim=32, references=n)

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from patchead.scoring.aggregate import count_references
from patchead.scoring.burn_out import Evidence
from patchead.scoring.leave_one_out import Aggregation, GroupScores, score_group
from patchead.scoring.memory_budget import Workload
from patchead.scoring.precision import prepare
from patchead.scoring.query_block import reduce_query_block
from patchead.scoring.rescore import Compared, rescore
from patchead.scoring.similarity import tile_self
from tests.helpers.repeats import shared_mark
from tests.reference import oracle

N, P, D = 36, 25, 24
SHARED = [2, 9, 17, 25, 30]
RULE = Aggregation(fraction=0.1, repeats=True)
MEMORY = 1 << 28
NOBODY = np.full(N, -1)


@pytest.fixture(scope="module")
def embeddings() -> Iterator[np.ndarray]:
    return shared_mark(N, P, D, SHARED)


@pytest.fixture(scope="module")
def plain(embeddings: np.ndarray) -> GroupScores:
    return score_group(embeddings, np.arange(N), aggregation=Aggregation(fraction=0.1), memory_bytes=MEMORY)


@pytest.fixture(scope="module")
def found(embeddings: np.ndarray) -> GroupScores:
    return score_group(embeddings, np.arange(N), aggregation=RULE, memory_bytes=MEMORY)


def test_images_that_share_a_mark_are_scored_without_each_other(
    embeddings: np.ndarray, plain: GroupScores, found: GroupScores
) -> None:
    (repeat,) = found.repeats
    assert repeat.images.tolist() == SHARED
    part = np.full(N, -1)
    part[SHARED] = 0
    expected = oracle.patch_scores(embeddings, list(range(N)), part.tolist(), percent=10)
    np.testing.assert_allclose(found.patch_scores[SHARED], expected[SHARED], atol=1e-6)
    others = np.delete(np.arange(N), SHARED)
    np.testing.assert_array_equal(found.patch_scores[others], plain.patch_scores[others])
    assert set(found.n_references[SHARED]) == {N - len(SHARED)}
    assert set(found.n_references[others]) == {N - 1}
    assert found.image_scores[SHARED].min() > found.image_scores[others].max()
    assert plain.image_scores[SHARED].max() < plain.image_scores[others].max()


@pytest.mark.parametrize("schedule", ["symmetric", "row_stationary"])
@pytest.mark.parametrize("images", [1, 7])
def test_schedules_and_block_sizes_agree(
    embeddings: np.ndarray, found: GroupScores, schedule: str, images: int
) -> None:
    work = Workload(images=N, patches=P, dim=D, references=N, fraction=0.1, repeats=True)
    least = next(m for m in range(1 << 16, 1 << 24, 1 << 12) if _holds(work, m, schedule, images))
    got = score_group(embeddings, np.arange(N), aggregation=RULE, memory_bytes=least, schedule=schedule)
    np.testing.assert_allclose(got.patch_scores, found.patch_scores, atol=1e-6)
    assert [r.images.tolist() for r in got.repeats] == [r.images.tolist() for r in found.repeats]
    np.testing.assert_array_equal(got.repeats[0].at, found.repeats[0].at)


def _holds(work: Workload, memory: int, schedule: str, images: int) -> bool:
    try:
        return work.choose_schedule(memory, schedule) == schedule and work.block_images(memory, schedule) >= images
    except Exception:  # noqa: BLE001 - the next size is tried
        return False


def test_tiles_of_a_cluster_agree(embeddings: np.ndarray, found: GroupScores) -> None:
    distances = tile_self(prepare(embeddings), budget_bytes=1 << 26).numpy()
    counts, content = count_references(np.arange(N), NOBODY), np.arange(N)
    compared = Compared(
        content=content,
        part=NOBODY,
        references=content,
        aggregation=RULE,
        device="cpu",
        precision="fp32",
        memory_bytes=MEMORY,
        grid=(5, 5),
    )
    scores, evidence = [], list[Evidence]()
    for rows in (np.arange(0, 13), np.arange(13, N)):
        test = compared.burn_out(rows, P, counts)
        assert test is not None
        cuts = [np.arange(20, N), np.arange(0, 20)]
        parts = [(cut, distances[np.ix_(rows, cut)]) for cut in cuts]
        scores.append(reduce_query_block(parts, rows, content, NOBODY, RULE, n_references=counts[rows], burn_out=test))
        evidence.append(test.result())
    done = rescore(np.concatenate(scores), counts, evidence, compared, lambda index: embeddings[index])
    np.testing.assert_allclose(done.patch_scores, found.patch_scores, atol=1e-6)
    np.testing.assert_array_equal(done.n_references, found.n_references)
    np.testing.assert_array_equal(np.flatnonzero(done.repeat_groups), SHARED)


def test_a_panel_is_searched_and_scored_again_alike(embeddings: np.ndarray) -> None:
    panel = np.arange(N - 6)
    found = score_group(embeddings, np.arange(N), aggregation=RULE, memory_bytes=MEMORY, panel=panel)
    (repeat,) = found.repeats
    assert repeat.images.tolist() == SHARED
    assert set(found.n_references[SHARED]) == {len(panel) - 4}  # image 30 is none of the panel


@pytest.mark.parametrize("rule", [Aggregation("farthest", repeats=True), Aggregation(repeats=True).few_shot()])
def test_rules_under_which_nothing_hides_look_for_no_repeats(embeddings: np.ndarray, rule: Aggregation) -> None:
    assert score_group(embeddings, np.arange(N), aggregation=rule, memory_bytes=MEMORY).repeats == []


def test_an_image_without_any_other_reference_keeps_its_score(embeddings: np.ndarray) -> None:
    """The panel is the five images themselves."""
    panel = np.array(SHARED)
    with_repeats = score_group(embeddings, np.arange(N), aggregation=RULE, memory_bytes=MEMORY, panel=panel)
    assert np.isfinite(with_repeats.patch_scores).all()


def test_int8_finds_the_same(embeddings: np.ndarray, found: GroupScores) -> None:
    got = score_group(embeddings, np.arange(N), aggregation=RULE, memory_bytes=MEMORY, precision="int8")
    assert [r.images.tolist() for r in got.repeats] == [r.images.tolist() for r in found.repeats]
    assert torch.from_numpy(np.abs(got.image_scores - found.image_scores)).max() < 0.01

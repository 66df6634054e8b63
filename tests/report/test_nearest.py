from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.report.nearest import Asked, Nearest, nearest_patches
from patchead.schema import OK, RECEIPTS, table
from patchead.settings.load import load_config
from patchead.storage import Storage

GRID, D, N = (3, 4), 16, 7
GROUP = "night=2026-11-21/product=screw"
IMAGES = [f"{number}.png" for number in range(N)]
CONFIG = load_config(None, [], {"archive.uri": "a://", "lake.uri": "b://"}).model_dump(mode="json")


@pytest.fixture
def vectors(tmp_path: Path) -> np.ndarray:
    """A scored group in a lake: unit vectors float16 (N, P, D); the worst patch of image n is its place n."""
    rng = np.random.default_rng(0)
    found = rng.standard_normal((N, GRID[0] * GRID[1], D))
    found = (found / np.linalg.norm(found, axis=2, keepdims=True)).astype(np.float16)
    store, folder = EmbeddingStore(str(tmp_path), Storage(), "encoder-1"), RunFolder(str(tmp_path), Storage(), "run-1")
    known = {"etag": "e", "size": 1, "content_hash": "h", "status": OK}
    rows = table([{"image_id": image} | known for image in IMAGES], RECEIPTS)
    folder.write_receipts(store.write_unit("unit", rows, found), store_id="encoder-1")
    patches = np.full((N, GRID[0] * GRID[1]), 0.1)
    patches[np.arange(N), np.arange(N)] = 0.7
    counts = np.full(N, N - 1)
    folder.write_group(GROUP, IMAGES, patches.reshape(N, *GRID), np.full(N, 0.2), counts, digest="d")
    return found.astype(np.float32)


def asked(*images: str, **changed: Any) -> Asked:
    values = {
        "run_id": "run-1",
        "group_id": GROUP,
        "images": images,
        "config": CONFIG,
        "parts": {},
        "contents": {},
        "search": "full",
    }
    return Asked(**(values | changed))


def found_of(lake: Path, question: Asked, count: int = N, budget: int = 1 << 30) -> Any:
    return nearest_patches(str(lake), Storage(), question, count=count, budget_bytes=budget)


def test_they_are_those_of_a_plain_search(tmp_path: Path, vectors: np.ndarray) -> None:
    found = found_of(tmp_path, asked("2.png", "5.png"))
    for number, image in ((2, "2.png"), (5, "5.png")):
        distances = (1 - vectors @ vectors[number, number]) / 2
        expected = sorted((float(distances[n].min()), f"{n}.png", int(distances[n].argmin())) for n in range(N))
        expected = [each for each in expected if each[1] != image]
        nearest = found[image]
        assert (nearest.place, nearest.grid) == (divmod(number, GRID[1]), GRID)
        assert [patch.image_id for patch in nearest.references] == [name for _, name, _ in expected]
        assert [patch.place for patch in nearest.references] == [divmod(at, GRID[1]) for _, _, at in expected]
        assert [patch.distance for patch in nearest.references] == pytest.approx([d for d, _, _ in expected], abs=1e-6)
        assert (nearest.looked_at, nearest.n_references) == (N - 1, N - 1)


def test_photos_of_one_part_copies_and_places_out_of_the_window_were_not_compared(
    tmp_path: Path, vectors: np.ndarray
) -> None:
    parts = {"0.png": "p1", "1.png": "p1", "2.png": "p2"}
    for same in ({"parts": parts}, {"contents": parts}):
        assert "1.png" not in {
            patch.image_id for patch in found_of(tmp_path, asked("0.png", **same))["0.png"].references
        }
    near = CONFIG | {"scoring": CONFIG["scoring"] | {"window": 0}}
    assert {patch.place for patch in found_of(tmp_path, asked("3.png", config=near))["3.png"].references} == {(0, 3)}
    said = CONFIG | {"scoring": CONFIG["scoring"] | {"window": "auto"}}
    question = asked("3.png", config=said, search="window rule r=0")
    assert {patch.place for patch in found_of(tmp_path, question)["3.png"].references} == {(0, 3)}


def test_a_budget_reads_a_part_of_the_group_and_says_so(tmp_path: Path, vectors: np.ndarray) -> None:
    found = found_of(tmp_path, asked("0.png"), budget=3 * GRID[0] * GRID[1] * D * 2)["0.png"]
    assert 2 <= found.looked_at <= 3
    assert found.n_references == N - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": CONFIG | {"scoring": CONFIG["scoring"] | {"mode": "few_shot"}}}, "compared with prompts"),
        ({"config": CONFIG | {"align": CONFIG["align"] | {"enabled": True}}}, "several views"),
        ({"run_id": "run-2"}, "receipts are gone"),
        ({"group_id": "other"}, "patch scores are gone"),
    ],
)
def test_what_is_not_there_any_more_is_said(
    tmp_path: Path, vectors: np.ndarray, change: dict[str, Any], words: str
) -> None:
    said = found_of(tmp_path, asked("0.png", **change))
    assert not isinstance(said, dict)
    assert words in said


def test_embeddings_that_were_removed_are_said_to_be(tmp_path: Path, vectors: np.ndarray) -> None:
    for file in (tmp_path / "embeddings").rglob("*.arrow"):
        file.unlink()
    assert "retention.embeddings_nights" in found_of(tmp_path, asked("0.png"))


def test_one_answer_for_each_image(tmp_path: Path, vectors: np.ndarray) -> None:
    found = found_of(tmp_path, asked(*IMAGES), count=2)
    assert set(found) == set(IMAGES)
    assert all(isinstance(each, Nearest) and len(each.references) == 2 for each in found.values())

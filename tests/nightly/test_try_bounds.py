"""Large groups that are cut into tiles are planned by bound and refine where a few of their images say so."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchead.forecast.calibrate import unit_vectors
from patchead.nightly import try_bounds
from patchead.nightly.try_bounds import could_be_tiled, with_bounds
from patchead.plan.group_plan import Limits, make_plan
from patchead.runtime.inline_executor import InlineExecutor
from patchead.scoring.aggregate import Aggregation
from patchead.search.score import score_group
from tests.nightly.test_score import MEMORY, SETTINGS, Stage, stored, tables

N, GRID, D = 44, (10, 10), 16


def alike() -> np.ndarray:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 100, D)) + 0.2 * rng.standard_normal((N, 100, D))
    z[7, 30:33] = rng.standard_normal((3, D))
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize(
    ("asked", "why_not"),
    [
        ({"shown": 2}, None),
        ({"schedule": "bounded", "shown": 2}, "full: bounds cost more"),
        ({"window": "auto", "shown": 2}, "full: bounds cost more"),
        ({"window": "auto"}, "full: most images are shown"),
    ],
)
@pytest.mark.parametrize("pays", [True, False])
def test_tiles_give_way_to_bounds_where_they_cost_less(
    tmp_path: Path, pays: bool, asked: dict[str, Any], why_not: str | None
) -> None:
    embeddings = alike() if pays else unit_vectors(N, 100, D)
    store, group = stored(tmp_path, embeddings)
    executor, window = InlineExecutor(), asked.get("window")
    aggregation = dataclasses.replace(SETTINGS.aggregation, window=window)
    settings = dataclasses.replace(SETTINGS, grid=GRID, aggregation=aggregation)
    stage = Stage(tmp_path, store, [group], executor, 4, grid=GRID, settings=settings, **asked)
    (planned,) = stage.plan.scored
    assert not planned.whole
    assert planned.schedule == ("symmetric" if asked == {"shown": 2} else "bounded")
    limits = Limits(memory_bytes=MEMORY, max_group_size=1000, actors=4, **asked)
    make = partial(make_plan, [("g", N)], 100, D)
    stage.plan = with_bounds(
        make(limits), make, limits, tables([group]), store, settings, executor.run_tasks, device="cpu"
    )
    (found,) = stage.plan.scored
    assert found.schedule == ("bounded" if pays else "symmetric")
    assert found.in_tiles != pays
    if pays and asked != {"shown": 2}:
        return  # what its blocks do is in test_score.py
    stage.run()
    expected = score_group(embeddings, np.arange(N), aggregation=aggregation, memory_bytes=MEMORY, grid=GRID)
    staged = stage.folder.read_group("g")
    np.testing.assert_allclose(staged.scores, expected.image_scores, rtol=0, atol=1e-6)
    assert staged.search.get("generator") == ("window" if pays else why_not)
    assert pays or staged.search["multiplications"] == 0.5


def test_a_window_that_the_blocks_of_a_group_cannot_hold_is_not_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(try_bounds, "window_fits", lambda work, *_: asked.append(work.references))
    store, group = stored(tmp_path, alike())
    settings = dataclasses.replace(SETTINGS, grid=GRID, aggregation=Aggregation(window="auto"))
    limits = Limits(memory_bytes=MEMORY, max_group_size=1000, actors=4, window="auto")
    make, run_tasks = partial(make_plan, [("g", N)], 100, D), InlineExecutor().run_tasks
    plan = with_bounds(make(limits), make, limits, tables([group]), store, settings, run_tasks, device="cpu")
    assert asked == [N]  # by the counts of the group, not of the sample
    assert (plan.groups[0].schedule, plan.groups[0].why_full) == ("symmetric", "most images are shown")


@pytest.mark.parametrize(
    ("device", "changes", "tried"),
    [
        ("cpu", {}, False),
        ("cpu", {"shown": 2}, True),
        ("cpu", {"schedule": "bounded"}, False),  # all are shown: it is in tiles already
        ("cpu", {"schedule": "bounded", "shown": 2}, True),
        ("cpu", {"shown": 17}, False),
        ("cpu", {"window": "auto"}, True),
        ("cpu", {"window": 1}, False),
        ("cpu", {"schedule": "bounded", "shown": 2, "max_references": 9}, False),
        ("cpu", {"schedule": "bounded", "shown": 2, "actors": 1}, False),
        ("cuda", {"shown": 2}, False),
        ("cuda", {"schedule": "bounded", "shown": 2}, False),
        ("cuda", {"window": "auto"}, True),
    ],
)
def test_what_is_tried(device: str, changes: dict[str, Any], tried: bool) -> None:
    limits = Limits(memory_bytes=MEMORY, **{"actors": 4, "device": device, **changes})
    plan = make_plan([("g", N)], 100, D, limits)
    assert could_be_tiled(plan.groups[0], plan, limits, device) == tried

"""Large groups that are cut into tiles are planned by bound and refine where a few of their images say so."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from patchead.forecast.calibrate import unit_vectors
from patchead.nightly.try_bounds import with_bounds
from patchead.plan.group_plan import Limits, make_plan
from patchead.runtime.inline_executor import InlineExecutor
from patchead.scoring.leave_one_out import score_group
from tests.nightly.test_score import MEMORY, SETTINGS, Stage, stored

N, GRID, D = 44, (10, 10), 16


def alike() -> np.ndarray:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 100, D)) + 0.2 * rng.standard_normal((N, 100, D))
    z[7, 30:33] = rng.standard_normal((3, D))
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("pays", [True, False])
def test_tiles_give_way_to_bounds_where_they_cost_less(tmp_path: Path, pays: bool) -> None:
    embeddings = alike() if pays else unit_vectors(N, 100, D)
    store, group = stored(tmp_path, embeddings)
    executor = InlineExecutor()
    stage = Stage(tmp_path, store, [group], executor, 4, grid=GRID, shown=2)
    (planned,) = stage.plan.scored
    assert planned.in_tiles
    limits = Limits(memory_bytes=MEMORY, max_group_size=1000, actors=4, shown=2)
    make = partial(make_plan, [("g", N)], 100, D)
    settings = dataclasses.replace(SETTINGS, grid=GRID)
    rows = {
        "image_id": group.image_ids,
        "content_hash": group.image_ids,
        "part_id": pa.nulls(N, pa.string()),
        "embedding_uri": [group.files[file] for file in group.uris],
        "row": group.rows,
    }
    tables = {"g": pa.table(rows)}
    stage.plan = with_bounds(make(limits), make, limits, tables, store, settings, executor.run_tasks, device="cpu")
    (found,) = stage.plan.scored
    assert found.schedule == ("bounded" if pays else "symmetric")
    stage.run()
    expected = score_group(embeddings, np.arange(N), aggregation=SETTINGS.aggregation, memory_bytes=MEMORY)
    staged = stage.folder.read_group("g")
    np.testing.assert_allclose(staged.scores, expected.image_scores, rtol=0, atol=1e-6)
    assert (staged.search.get("generator") == "window") == pays

"""One group as it was staged: what the scoring actors leave for the judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class StagedGroup:
    """Hold one group's ``patch_scores`` float32 (N, h, w), ``scores`` float64 (N,), ``n_references`` int32 (N,).

    ``aligned`` bool (N,); None where the run did not align. ``null_scores`` float64 (m,), those of normal images that
    were scored with the group, in few-shot mode; ``views_of`` is 1 or 2 if they are views of so many prompts.
    """

    image_ids: list[str]
    patch_scores: np.ndarray
    scores: np.ndarray
    n_references: np.ndarray
    aligned: np.ndarray | None
    null_scores: np.ndarray | None = None
    views_of: int = 0
    search: dict[str, Any] = field(default_factory=dict)
    """How bound and refine went; empty where the search was full."""
    repeat_group: np.ndarray | None = None
    """int32 (N,), 0 for none; None where repeats were not looked for."""
    score_subspace: np.ndarray | None = None
    """float64 (N,)."""
    exact: np.ndarray | None = None
    """bool (N,), images of which no patch score is an upper bound (method.md §10); None: all."""
    repeats: tuple[dict[str, Any], ...] = ()
    """Of each repeat, see `Repeat.facts`."""


def null_scores_of(rows: pa.Table) -> np.ndarray | None:
    """Read the scores of normal images; None without prompts, and of a run that an earlier version began."""
    found = rows["null_scores"][0].as_py() if "null_scores" in rows.column_names else None
    return None if found is None else np.array(found)


def known(rows: pa.Table, name: str) -> np.ndarray | None:
    """Read a column of which all values are known; None where it is not, or an earlier version did not stage it."""
    return None if name not in rows.column_names or rows[name].null_count else np.array(rows[name])


def with_maps(batch: pa.RecordBatch, places: np.ndarray, patch_scores: np.ndarray) -> pa.RecordBatch:
    """Put patch scores (n, h, w), which are no bounds, in the place of those at rows ``places`` of a staged batch."""
    maps = batch.column("patch_scores").to_numpy_ndarray().copy()
    exact = np.array(batch.column("exact").fill_null(True))
    maps[places], exact[places] = patch_scores, True
    found = {"patch_scores": pa.FixedShapeTensorArray.from_numpy_ndarray(maps), "exact": pa.array(exact)}
    columns = [found.get(name, batch.column(name)) for name in batch.schema.names]
    return pa.record_batch(columns, schema=batch.schema)

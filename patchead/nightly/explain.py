"""Stage 6: ranks, z and flags of every group, heatmaps and regions of the images that deserve them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray

from patchead.arrow_columns import compact
from patchead.errors import LakeError
from patchead.lake.staging import RunFolder
from patchead.nightly.explain_drawing import DrawSettings, draw
from patchead.runtime.dispatch import dispatch
from patchead.runtime.worker_errors import worker_errors
from patchead.schema import OK, REGIONS, SCHEMA_VERSION, SCORES, TOO_FEW_IMAGES
from patchead.scoring.aggregate import ranks
from patchead.scoring.verdict import robust_z, z_threshold_score

_NO_REFERENCE = "no reference: every image it may be compared with has the same content or shows the same part"


@dataclass(frozen=True)
class ExplainSettings:
    """What a worker needs to explain one group."""

    encoder_id: str
    threshold_z: float
    min_batch: int
    heatmaps: Literal["flagged", "all", "none"]
    patch_threshold: float | None
    drawing: DrawSettings


def explain(
    groups: dict[str, pa.Table],
    folder: RunFolder,
    settings: ExplainSettings,
    *,
    advance: Callable[[int], None],
) -> tuple[pa.Table, pa.Table]:
    """Rows of the scores and the regions table for every image of every group (manifest + receipt columns).

    Raises:
        PatcheadError: staged scores cannot be read, or heatmaps cannot be written.
    """
    task = ray.remote(num_cpus=1)(explain_group)

    def job(name: str) -> Callable[[Any], ray.ObjectRef]:
        return lambda _: task.remote(name, compact(groups[name]), folder, settings)

    slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
    scores, regions = [SCORES.empty_table()], [REGIONS.empty_table()]
    with worker_errors():
        for _, reference in dispatch([None] * slots, ((name, job(name)) for name in groups)):
            group_scores, group_regions = ray.get(reference)
            scores.append(group_scores)
            regions.append(group_regions)
            advance(group_scores.num_rows)
    return pa.concat_tables(scores), pa.concat_tables(regions)


def explain_group(name: str, rows: pa.Table, folder: RunFolder, settings: ExplainSettings) -> tuple[pa.Table, pa.Table]:
    """Score rows and region rows of one group; ``rows`` are its images in order of image id."""
    n = rows.num_rows
    if n < settings.min_batch:
        error = f"group of {n}, fewer than scoring.min_batch={settings.min_batch}"
        return _score_rows(rows, settings, status=[TOO_FEW_IMAGES] * n, error=[error] * n), REGIONS.empty_table()
    staged = folder.read_group(name)
    if staged.image_ids != rows["image_id"].to_pylist():
        raise LakeError(f"the staged scores of {name} are of other images. Run again under a new run id.")
    compared = staged.n_references > 0
    scored = staged.scores[compared]
    z, rank = np.zeros(n), np.zeros(n, np.int32)
    z[compared], rank[compared] = robust_z(scored), ranks(scored)
    flagged = compared & (z > settings.threshold_z)
    drawn = {"flagged": flagged, "all": compared, "none": np.zeros(n, bool)}[settings.heatmaps]
    threshold = settings.patch_threshold or z_threshold_score(scored, settings.threshold_z)
    pictures = draw(rows, staged.patch_scores, flagged | drawn, drawn, threshold, settings.drawing)
    missing = [None if known else _NO_REFERENCE for known in compared]
    scores = _score_rows(
        rows,
        settings,
        score=pa.array(staged.scores, mask=~compared),
        rank=pa.array(rank, mask=~compared),
        n_references=staged.n_references,
        z=pa.array(z, mask=~compared),
        is_anomalous=pa.array(flagged, mask=~compared),
        max_patch=pa.array(staged.patch_scores.max(axis=(1, 2)).astype(np.float64), mask=~compared),
        aligned=pa.nulls(n, pa.bool_()) if staged.aligned is None else pa.array(staged.aligned),
        heatmap_uri=pictures.uris,
        status=np.where(compared, OK, TOO_FEW_IMAGES),
        error=[note or why for note, why in zip(pictures.notes, missing, strict=True)],
    )
    return scores, pictures.regions


def failed_rows(images: pa.Table, settings: ExplainSettings) -> pa.Table:
    """SCORES rows of the images that could not be read or decoded."""
    return _score_rows(images, settings, group_size=pa.nulls(images.num_rows))


def _score_rows(rows: pa.Table, settings: ExplainSettings, **columns: Any) -> pa.Table:
    """SCORES of one group: what the manifest and the receipts say, the constants of the run, and ``columns``."""
    n = rows.num_rows
    constants = {
        "run_id": settings.drawing.run_id,
        "group_size": n,
        "encoder_id": settings.encoder_id,
        "schema_version": SCHEMA_VERSION,
    }
    made = {name: pa.repeat(value, n) for name, value in constants.items()} | columns
    kept = {name: rows[name] for name in SCORES.names if name in rows.column_names and name not in made}
    nulls = {name: pa.nulls(n) for name in SCORES.names}
    return pa.table({name: (nulls | kept | made)[name] for name in SCORES.names}).cast(SCORES)

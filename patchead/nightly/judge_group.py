"""What is decided for a group as a whole: ranks, z, flags and its verdict, the threshold of regions, the colours."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from patchead.errors import LakeError
from patchead.lake.accepted import Accepted
from patchead.lake.staging import RunFolder, StagedGroup
from patchead.maps.heatmap import colour_range
from patchead.maps.regions import peaks_of, threshold_of_peaks
from patchead.maps.shown import to_search
from patchead.schema import OK, TOO_FEW_IMAGES
from patchead.scoring.aggregate import NO_REFERENCE, placed, ranks
from patchead.scoring.diagnostics import diagnose
from patchead.scoring.drift import drift
from patchead.scoring.verdict import Verdict, VerdictSettings, judge


@dataclass(frozen=True)
class JudgeSettings:
    """Hold what a worker needs to judge one group."""

    verdict: VerdictSettings
    heatmaps: Literal["flagged", "all", "none"]
    top: int
    """So many of the highest scores are explained, flagged or not."""
    patch_threshold: float | None
    fit: str
    """How images became squares."""
    level: float | None = None
    """Of the whole night's p-values, where a false-discovery rule has found one (method.md §7.4)."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """z of products that have their own threshold."""

    def verdict_of(self, product: str | None) -> VerdictSettings:
        """Give the rule of one product's groups."""
        own = self.thresholds.get(product or "")
        return self.verdict if own is None else replace(self.verdict, threshold_z=own)


@dataclass(frozen=True)
class Judged:
    """Hold what is decided for the N images of a group as a whole."""

    columns: pa.Table
    """Columns of `SCORES`, in order of the group."""
    verdict: dict[str, Any]
    """Columns of `VERDICTS`."""
    flagged: np.ndarray
    """bool (N,): the anomalous images."""
    explained: np.ndarray
    """bool (N,): the images that get regions and, if any is drawn, a heatmap."""
    threshold: float
    """Of the regions: value of a map above which one reaches."""
    colours: tuple[float, float]
    """Patch scores of the darkest and of the brightest colour; (0, 0) where nothing is drawn."""
    unsearched: np.ndarray
    """bool (N,): images of which all patches must be searched before threshold, colours and maps are those of the full
    search. Where there are any, the group is judged again afterwards."""


@dataclass(frozen=True)
class ToJudge:
    """Hold one staged group."""

    images: pa.Table
    """Its ids of group and images, their product, width and height, in the group's order."""
    accepted: Accepted | None = None
    """Its accepted group, where the settings need one."""


def judge_group(group: ToJudge, *, folder: RunFolder, settings: JudgeSettings) -> Judged:
    """Judge one staged group.

    Args:
        group: to judge.
        folder: of the run, with the staged scores.
        settings: of the run.

    Raises:
        LakeError: the staged scores cannot be read, or are of other images.
    """
    images = group.images
    name, product = (images[column][0].as_py() for column in ("group_id", "product"))
    staged = folder.read_group(name)
    if staged.image_ids != images["image_id"].to_pylist():
        raise LakeError(f"the staged scores of {name} are of other images. Run again under a new run id.")
    compared = staged.n_references > 0
    scored = staged.scores[compared]
    verdict = judge(
        scored,
        settings.verdict_of(product),
        reference=None if group.accepted is None else group.accepted.scores,
        level=settings.level,
        null_scores=staged.null_scores,
        views_of=staged.views_of,
    )
    rank = placed(ranks(scored), compared)
    flagged = placed(verdict.flagged, compared)
    explained = compared if settings.heatmaps == "all" else flagged | (compared & (rank <= settings.top))
    good = compared & ~flagged
    sizes = list(zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True))
    peaks, threshold = None, settings.patch_threshold
    if threshold is None:
        peaks = peaks_of(staged.patch_scores, sizes, good, settings.fit)
        threshold = threshold_of_peaks(peaks[good], verdict.normal_score)
    drawn = settings.heatmaps != "none" and explained.any()
    return Judged(
        columns=_columns(staged, compared, rank, verdict),
        verdict=_verdict_row(len(compared), scored, verdict, threshold)
        | _search_columns(staged.search)
        | _drift_row(group.accepted, scored, verdict)
        | {"repeats_json": _repeats_json(staged)},
        flagged=flagged,
        explained=explained,
        threshold=threshold,
        colours=colour_range(staged.patch_scores, explained, threshold) if drawn else (0.0, 0.0),
        unsearched=np.zeros(len(compared), bool) if staged.exact is None else to_search(staged.exact, explained, peaks),
    )


def _columns(staged: StagedGroup, compared: np.ndarray, rank: np.ndarray, verdict: Verdict) -> pa.Table:
    n, limit = len(compared), _finite(verdict.threshold_score)

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(values, mask=~compared)

    def of_compared(values: np.ndarray) -> pa.Array:
        return column(placed(values, compared))

    p_values = verdict.p_values
    columns = {
        "score": column(staged.scores),
        "rank": column(rank),
        "n_references": pa.array(staged.n_references),
        "z": of_compared(verdict.z),
        "p_value": pa.nulls(n, pa.float64()) if p_values is None else of_compared(p_values),
        "is_anomalous": of_compared(verdict.flagged),
        "threshold_score": pa.array([limit if known else None for known in compared], pa.float64()),
        "verdict_rule": pa.array([verdict.rule if known else None for known in compared], pa.string()),
        "max_patch": column(staged.patch_scores.max(axis=(1, 2)).astype(np.float64)),
        "score_subspace": pa.nulls(n, pa.float64())
        if staged.score_subspace is None
        else pa.array(staged.score_subspace, mask=~compared),
        "repeat_group": pa.nulls(n, pa.int32())
        if staged.repeat_group is None
        else pa.array(staged.repeat_group, mask=staged.repeat_group == 0),
        "aligned": pa.nulls(n, pa.bool_()) if staged.aligned is None else pa.array(staged.aligned),
        "status": pa.array(np.where(compared, OK, TOO_FEW_IMAGES)),
        "error": pa.array([None if known else NO_REFERENCE for known in compared], pa.string()),
    }
    return pa.table(columns)


def _verdict_row(images: int, scored: np.ndarray, verdict: Verdict, threshold: float) -> dict[str, Any]:
    """Columns of `VERDICTS`; without a score only the counts."""
    row: dict[str, Any] = {"images": images, "scored": len(scored), "flagged": int(verdict.flagged.sum())}
    if not len(scored):
        return row
    return row | {
        "verdict_rule": verdict.rule,
        "centre": verdict.centre,
        "scale": verdict.scale,
        "threshold_z": _finite(verdict.threshold_z),
        "threshold_score": _finite(verdict.threshold_score),
        "region_threshold": _finite(threshold),
        **asdict(diagnose(scored, verdict)),
    }


def _search_columns(search: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of `VERDICTS`: how the group was searched."""
    return {
        "search": search.get("generator", "full"),
        "search_share": search.get("multiplications", 1.0),
        "search_refined": search.get("searched", 1.0),
        "search_alike": search.get("alike"),
        "search_offset": search.get("offset"),
    }


def _drift_row(accepted: Accepted | None, scored: np.ndarray, verdict: Verdict) -> dict[str, Any]:
    """Columns of `VERDICTS` that tell how the group differs from its accepted one."""
    if accepted is None or not len(scored):
        return {}
    row, found = {"accepted": accepted.name}, drift(scored, accepted.scores, verdict.threshold_score)
    if found is None:
        return row
    return row | {"drift_p": found.p, "drift_shift": found.shift, "drift_scale": found.scale}


def _repeats_json(staged: StagedGroup) -> str | None:
    return None if staged.repeat_group is None else json.dumps(staged.repeats)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

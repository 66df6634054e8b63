"""Stage 6: ranks, z and flags of every group, heatmaps and regions of the images that deserve them.

What concerns a group as a whole (ranks, z, flags, the threshold of regions, the colour range) is decided by one task
that reads all its patch scores. Its images are then drawn a portion at a time, by as many tasks as the cluster runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import compact, values
from patchead.errors import LakeError
from patchead.lake.staging import RunFolder
from patchead.maps.heatmap import colour_range
from patchead.nightly.explain_drawing import COLUMNS, FILES, DrawSettings, Portion, draw_portion
from patchead.schema import OK, REGIONS, SCHEMA_VERSION, SCORES, TOO_FEW_IMAGES
from patchead.scoring.aggregate import NO_REFERENCE, ranks
from patchead.scoring.verdict import robust_z, z_threshold_score

PORTION = 64
"""Images that one task draws, at most."""

RunTasks = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[int, Any]]]
"""Runs a function on every item and yields the item's number and the result as each one is finished."""


@dataclass(frozen=True)
class ExplainSettings:
    """Hold what a worker needs to explain one group."""

    encoder_id: str
    threshold_z: float
    min_batch: int
    heatmaps: Literal["flagged", "all", "none"]
    patch_threshold: float | None
    drawing: DrawSettings


@dataclass(frozen=True)
class Ranking:
    """Hold what is decided for the N images of a group as a whole."""

    columns: pa.Table
    """Columns of `SCORES`, in order of the group."""
    explained: np.ndarray
    """bool (N,): the images that get regions and, if any is drawn, a heatmap."""
    threshold: float
    """Patch score above which a pixel belongs to a region."""
    colours: tuple[float, float]
    """Patch scores of the darkest and of the brightest colour; (0, 0) where nothing is drawn."""


def explain(
    groups: Mapping[str, pa.Table],
    folder: RunFolder,
    settings: ExplainSettings,
    *,
    map_tasks: RunTasks,
    advance: Callable[[int], None],
    portion: int = PORTION,
) -> tuple[pa.Table, pa.Table]:
    """Explain every image of every group from its staged scores (method.md §6, method.md §7).

    Args:
        groups: columns of the manifest and the receipts by group id, each in order of image id.
        folder: of the run, with the staged scores.
        settings: of the run.
        map_tasks: what runs a function on many items, on a cluster or in this process.
        advance: is told how many images have been dealt with.
        portion: images that one task draws, at most.

    Returns:
        Rows of the scores and of the regions table, in order of the groups and of their images.

    Raises:
        PatcheadError: staged scores cannot be read or are of other images, or heatmaps cannot be written.
    """
    rankings = _rankings(groups, folder, settings, map_tasks, advance)
    cuts = [(name, cut) for name, ranking in rankings.items() for cut in _cut(groups[name], ranking, portion)]
    drawing = partial(draw_portion, folder=folder, settings=settings.drawing)
    items = (_portion(groups[name], cut, rankings[name], settings) for name, cut in cuts)
    files, regions = [FILES.empty_table()], [REGIONS.empty_table()]
    for _, pictures in map_tasks(drawing, items):
        files.append(pictures.files)
        regions.append(pictures.regions)
        advance(pictures.files.num_rows)
    scores = [_scored(rows, rankings.get(name), settings) for name, rows in groups.items()]
    found = pa.concat_tables(regions).sort_by([(name, "ascending") for name in ("group_id", "image_id", "region")])
    return _with_files(pa.concat_tables([SCORES.empty_table(), *scores]), pa.concat_tables(files)), found


def rank_group(images: pa.Table, *, folder: RunFolder, settings: ExplainSettings) -> Ranking:
    """Rank one staged group; ``images`` are its ids of group and images, in the group's order.

    Raises:
        LakeError: the staged scores cannot be read, or are of other images.
    """
    name, n = images["group_id"][0].as_py(), images.num_rows
    staged = folder.read_group(name)
    if staged.image_ids != images["image_id"].to_pylist():
        raise LakeError(f"the staged scores of {name} are of other images. Run again under a new run id.")
    compared = staged.n_references > 0
    scored = staged.scores[compared]
    z, rank = np.zeros(n), np.zeros(n, np.int32)
    z[compared], rank[compared] = robust_z(scored), ranks(scored)
    flagged = compared & (z > settings.threshold_z)
    explained = compared if settings.heatmaps == "all" else flagged
    threshold = settings.patch_threshold or z_threshold_score(scored, settings.threshold_z)
    drawn = settings.heatmaps != "none" and explained.any()
    columns = {
        "score": pa.array(staged.scores, mask=~compared),
        "rank": pa.array(rank, mask=~compared),
        "n_references": pa.array(staged.n_references),
        "z": pa.array(z, mask=~compared),
        "is_anomalous": pa.array(flagged, mask=~compared),
        "max_patch": pa.array(staged.patch_scores.max(axis=(1, 2)).astype(np.float64), mask=~compared),
        "aligned": pa.nulls(n, pa.bool_()) if staged.aligned is None else pa.array(staged.aligned),
        "status": pa.array(np.where(compared, OK, TOO_FEW_IMAGES)),
        "error": pa.array([None if known else NO_REFERENCE for known in compared], pa.string()),
    }
    colours = colour_range(staged.patch_scores, threshold) if drawn else (0.0, 0.0)
    return Ranking(pa.table(columns), explained, threshold, colours)


def failed_rows(images: pa.Table, settings: ExplainSettings) -> pa.Table:
    """Make the rows of `SCORES` of images that could not be read or decoded."""
    return _score_rows(images, settings, group_size=pa.nulls(images.num_rows))


def _rankings(
    groups: Mapping[str, pa.Table],
    folder: RunFolder,
    settings: ExplainSettings,
    map_tasks: RunTasks,
    advance: Callable[[int], None],
) -> dict[str, Ranking]:
    """The ranking of every group that is large enough, in order of the groups."""
    names = [name for name, rows in groups.items() if rows.num_rows >= settings.min_batch]
    advance(sum(rows.num_rows for rows in groups.values()) - sum(groups[name].num_rows for name in names))
    items = (compact(groups[name].select(["group_id", "image_id"])) for name in names)
    found: dict[int, Ranking] = {}
    for number, ranking in map_tasks(partial(rank_group, folder=folder, settings=settings), items):
        found[number] = ranking
        advance(int((~ranking.explained).sum()))
    return {name: found[number] for number, name in enumerate(names)}


def _cut(images: pa.Table, ranking: Ranking, size: int) -> list[np.ndarray]:
    """The group's explained images in parts of equal length, at most ``size``; those of one shard follow each other."""
    place = pa.array(np.arange(images.num_rows))
    wanted = images.select(["format", "uri"]).append_column("place", place).filter(pa.array(ranking.explained))
    ordered = wanted.sort_by([(name, "ascending") for name in wanted.column_names])
    return np.array_split(np.asarray(ordered["place"]), -(-wanted.num_rows // size)) if wanted.num_rows else []


def _portion(images: pa.Table, indices: np.ndarray, ranking: Ranking, settings: ExplainSettings) -> Portion:
    return Portion(
        images=images.select(COLUMNS).take(indices),
        indices=indices,
        drawn=settings.heatmaps != "none",
        threshold=ranking.threshold,
        colours=ranking.colours,
    )


def _scored(images: pa.Table, ranking: Ranking | None, settings: ExplainSettings) -> pa.Table:
    """SCORES of one group; without a ranking it is too small."""
    n = images.num_rows
    if ranking is not None:
        return _score_rows(images, settings, **dict(zip(ranking.columns.column_names, ranking.columns, strict=True)))
    error = f"group of {n}, fewer than scoring.min_batch={settings.min_batch}"
    return _score_rows(images, settings, status=[TOO_FEW_IMAGES] * n, error=[error] * n)


def _score_rows(images: pa.Table, settings: ExplainSettings, **columns: Any) -> pa.Table:
    """SCORES of one group: what the manifest and the receipts say, the constants of the run, and ``columns``."""
    n = images.num_rows
    constants = {
        "run_id": settings.drawing.run_id,
        "group_size": n,
        "encoder_id": settings.encoder_id,
        "schema_version": SCHEMA_VERSION,
    }
    made = {name: pa.repeat(value, n) for name, value in constants.items()} | columns
    kept = {name: images[name] for name in SCORES.names if name in images.column_names and name not in made}
    nulls = {name: pa.nulls(n) for name in SCORES.names}
    return pa.table({name: (nulls | kept | made)[name] for name in SCORES.names}).cast(SCORES)


def _with_files(scores: pa.Table, files: pa.Table) -> pa.Table:
    """The scores with the heatmaps that were drawn, and a note where one could not be."""
    place = pc.index_in(scores["image_id"], value_set=values(files["image_id"]))
    columns = {name: scores[name] for name in SCORES.names}
    columns["heatmap_uri"] = files["heatmap_uri"].take(place)
    columns["error"] = pc.coalesce(files["note"].take(place), scores["error"])
    return pa.table(columns, schema=SCORES)

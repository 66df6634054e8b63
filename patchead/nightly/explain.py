"""Stage 6: the verdict on every group, heatmaps and regions of the images that deserve them.

What concerns a group as a whole is decided by one task that reads all its patch scores (`judge_group`). Its images are
then drawn a portion at a time, by as many tasks as the cluster runs. What fails concerns its group and no other
(`lacking`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import compact, values
from patchead.errors import PatcheadError
from patchead.lake.accepted import Accepted
from patchead.lake.region_shares import with_shares
from patchead.lake.staged_pictures import FILES
from patchead.lake.staging import RunFolder
from patchead.nightly.explain_drawing import COLUMNS, DrawSettings, Portion, draw_portion
from patchead.nightly.judge_group import Judged, JudgeSettings, ToJudge, judge_group
from patchead.nightly.lacking import Lacking, together, with_lacking
from patchead.result_tables import TABLES_VERSION
from patchead.runtime.executor import RunTasks
from patchead.schema import GROUP_FAILED, OK, REGION_VECTORS, SCORES, STAGED_REGIONS, TOO_FEW_IMAGES, VERDICTS, table

PORTION = 64
"""Images that one task draws, at most."""

SearchImages = Callable[[Mapping[str, np.ndarray], Callable[[str, PatcheadError], None]], None]
"""Searches all patches of images, given by their places in each group, and puts them in the place of bounds; tells the
second function of groups for which it could not."""


@dataclass(frozen=True)
class ExplainSettings:
    """Hold what a worker needs to explain one group."""

    encoder_id: str
    lane: str
    archive_root: str
    """What the images' paths are relative to."""
    min_batch: int
    judging: JudgeSettings
    drawing: DrawSettings
    failed: Mapping[str, str] = field(default_factory=dict)
    """Why, by the id of each group that could not be scored: its images are rows that say so."""

    def judged(self, groups: Mapping[str, pa.Table]) -> list[str]:
        """List the groups that have scores, in their order."""
        large = [name for name, rows in groups.items() if rows.num_rows >= self.min_batch]
        return [name for name in large if name not in self.failed]


@dataclass(frozen=True)
class Explained:
    """Hold the rows of a run's result tables, in order of the groups and of their images."""

    scores: pa.Table
    regions: pa.Table
    verdicts: pa.Table
    searched: int = 0
    """Images of which all patches were searched because they are shown."""
    vectors: pa.Table = field(default_factory=REGION_VECTORS.empty_table)
    """Of the regions that were described, see `name`."""
    unjudged: Mapping[str, str] = field(default_factory=dict)
    """Why, by the id of each group that has scores and could not be judged; in the tables it has neither."""
    incomplete: Mapping[str, str] = field(default_factory=dict)
    """What is missing, and why, by the id of each group of which regions, heatmaps or names are."""

    def without(self, incomplete: Mapping[str, str]) -> Explained:
        """Say that something is missing of more groups, and why."""
        both = {name: together(self.incomplete.get(name), why) for name, why in incomplete.items()}
        verdicts = with_lacking(self.verdicts, incomplete)
        return replace(self, verdicts=verdicts, incomplete={**self.incomplete, **both})


def explain(
    groups: Mapping[str, pa.Table],
    folder: RunFolder,
    settings: ExplainSettings,
    *,
    map_tasks: RunTasks,
    advance: Callable[[int], None],
    portion: int = PORTION,
    accepted: Mapping[str, Accepted] = MappingProxyType({}),
    search: SearchImages | None = None,
) -> Explained:
    """Explain every image of every group from its staged scores (method.md §6, method.md §7).

    Args:
        groups: columns of the manifest and the receipts by group id, each in order of image id.
        folder: of the run, with the staged scores.
        settings: of the run.
        map_tasks: what runs a function on many items, on a cluster or in this process.
        advance: is told how many images have been dealt with.
        portion: images that one task draws, at most.
        accepted: the accepted group of each group, where the settings need one.
        search: searches all patches of images of which bound and refine has left bounds, and stages them.

    Raises:
        DamagedFileError: a file of the lake is damaged.
        FullDiskError: there is no room for a heatmap.
        ValueError: there are bounds, and nothing that searches.
    """
    lacking = Lacking()
    judge = partial(_judged, accepted=accepted, folder=folder, settings=settings, map_tasks=map_tasks, lacking=lacking)
    judged, searched = judge(groups, advance=advance), 0
    while bounds := {name: places for name, places in _bounds(judged).items() if name not in lacking.unsearched}:
        if search is None:
            raise ValueError(f"the scores of {next(iter(bounds))} are bounds in part, and `search` is None")
        search(bounds, lacking.not_searched)
        found = [name for name in bounds if name not in lacking.unsearched]
        searched += sum(len(bounds[name]) for name in found)
        judged |= judge({name: groups[name] for name in found}, advance=_told_before)
        judged = {name: of for name, of in judged.items() if name not in lacking.unjudged}
    settings = replace(settings, failed={**settings.failed, **lacking.unjudged})
    files, regions = _drawn(groups, judged, folder, settings, map_tasks, advance, lacking, portion)
    scores = [_scored(rows, judged.get(name), settings) for name, rows in groups.items()]
    order = [(name, "ascending") for name in ("group_id", "image_id", "region")]
    every = pa.concat_tables([SCORES.empty_table(), *scores])
    verdicts = table([_verdict(rows, judged.get(name), settings) for name, rows in groups.items()], VERDICTS)
    return Explained(
        scores=_with_files(every, files, settings.drawing.lake_uri),
        regions=with_shares(regions.sort_by(order), every, settings.lane),
        verdicts=verdicts,
        searched=searched,
        unjudged=lacking.unjudged,
    ).without(lacking.incomplete)


def _bounds(judged: Mapping[str, Judged]) -> dict[str, np.ndarray]:
    """Places of the images that are to be searched fully, by group."""
    return {name: np.flatnonzero(of.unsearched) for name, of in judged.items() if of.unsearched.any()}


def _drawn(
    groups: Mapping[str, pa.Table],
    judged: dict[str, Judged],
    folder: RunFolder,
    settings: ExplainSettings,
    map_tasks: RunTasks,
    advance: Callable[[int], None],
    lacking: Lacking,
    portion: int,
) -> tuple[pa.Table, pa.Table]:
    """FILES and STAGED_REGIONS of the explained images; where a group was not searched, its threshold is none."""
    for name in lacking.unsearched & judged.keys():
        images = groups[name].filter(pa.array(judged[name].explained))
        lacking.unexplained(name, images)
        advance(images.num_rows)
        judged[name] = replace(judged[name], verdict=judged[name].verdict | {"region_threshold": None})
    drawn = {name: found for name, found in judged.items() if name not in lacking.unsearched}
    cuts = [(name, cut) for name, found in drawn.items() for cut in _cut(groups[name], found, portion)]
    items = (_portion(groups[name], cut, drawn[name], settings) for name, cut in cuts)
    files, regions = [FILES.empty_table()], [STAGED_REGIONS.empty_table()]

    def failed(number: int, error: PatcheadError) -> None:
        name, cut = cuts[number]
        lacking.not_drawn(name, groups[name].take(pa.array(cut)), error)
        advance(len(cut))

    drawing = partial(draw_portion, folder=folder, settings=settings.drawing)
    for _, pictures in map_tasks(drawing, items, failed=failed):
        files.append(pictures.files)
        regions.append(pictures.regions)
        advance(pictures.files.num_rows)
    return pa.concat_tables([*files, *lacking.files]), pa.concat_tables(regions)


def failed_rows(images: pa.Table, settings: ExplainSettings) -> pa.Table:
    """Make the rows of `SCORES` of images that could not be read or decoded."""
    return _score_rows(images, settings, group_size=pa.nulls(images.num_rows))


def _judged(
    groups: Mapping[str, pa.Table],
    *,
    accepted: Mapping[str, Accepted],
    folder: RunFolder,
    settings: ExplainSettings,
    map_tasks: RunTasks,
    lacking: Lacking,
    advance: Callable[[int], None],
) -> dict[str, Judged]:
    """What is decided for every group that is large enough and can be judged, in order of the groups."""
    names = settings.judged(groups)
    advance(sum(rows.num_rows for rows in groups.values()) - sum(groups[name].num_rows for name in names))
    columns = ["group_id", "image_id", "product", "width", "height"]
    items = (ToJudge(compact(groups[name].select(columns)), accepted.get(name)) for name in names)
    done: dict[int, Judged] = {}

    def failed(number: int, error: PatcheadError) -> None:
        lacking.no_verdict(names[number], error)
        advance(groups[names[number]].num_rows)

    judging = partial(judge_group, folder=folder, settings=settings.judging)
    for number, found in map_tasks(judging, items, failed=failed):
        done[number] = found
        advance(int((~found.explained).sum()))
    return {name: done[number] for number, name in enumerate(names) if number in done}


def _told_before(count: int) -> None:
    """Tell nobody: these images have been counted when the group was judged first."""


def _cut(images: pa.Table, found: Judged, size: int) -> list[np.ndarray]:
    """The group's explained images in parts of equal length, at most ``size``; those of one shard follow each other."""
    place = pa.array(np.arange(images.num_rows))
    wanted = images.select(["format", "uri"]).append_column("place", place).filter(pa.array(found.explained))
    ordered = wanted.sort_by([(name, "ascending") for name in wanted.column_names])
    return np.array_split(np.asarray(ordered["place"]), -(-wanted.num_rows // size)) if wanted.num_rows else []


def _portion(images: pa.Table, indices: np.ndarray, found: Judged, settings: ExplainSettings) -> Portion:
    return Portion(
        images=images.select([name for name in images.column_names if name in (*COLUMNS, "bit_depth")]).take(indices),
        indices=indices,
        flagged=found.flagged[indices],
        drawn=settings.judging.heatmaps != "none",
        threshold=found.threshold,
        colours=found.colours,
    )


def _scored(images: pa.Table, found: Judged | None, settings: ExplainSettings) -> pa.Table:
    """SCORES of one group; without a verdict it could not be scored, or it is too small."""
    n = images.num_rows
    if found is not None:
        return _score_rows(images, settings, **dict(zip(found.columns.column_names, found.columns, strict=True)))
    why = settings.failed.get(images["group_id"][0].as_py())
    small = f"group of {n}, fewer than scoring.min_batch={settings.min_batch}"
    error = small if why is None else f"the group cannot be scored: {why}"
    return _score_rows(images, settings, status=[_status(0, why)] * n, error=[error] * n)


def _verdict(images: pa.Table, found: Judged | None, settings: ExplainSettings) -> dict[str, Any]:
    """VERDICTS of one group."""
    group = {name: images[name][0].as_py() for name in ("night", "product", "group_id")}
    why = settings.failed.get(group["group_id"])
    decided = {"images": images.num_rows, "scored": 0, "flagged": 0, "error": why} if found is None else found.verdict
    decided = {"status": _status(decided["scored"], why)} | decided
    run = {"run_id": settings.drawing.run_id, "lane": settings.lane, "encoder_id": settings.encoder_id}
    return group | run | {"schema_version": TABLES_VERSION} | decided


def _status(scored: int, why: str | None) -> str:
    return OK if scored else TOO_FEW_IMAGES if why is None else GROUP_FAILED


def _score_rows(images: pa.Table, settings: ExplainSettings, **columns: Any) -> pa.Table:
    """SCORES of one group: what the manifest and the receipts say, the constants of the run, and ``columns``."""
    n = images.num_rows
    constants = {
        "run_id": settings.drawing.run_id,
        "lane": settings.lane,
        "group_size": n,
        "encoder_id": settings.encoder_id,
        "schema_version": TABLES_VERSION,
    }
    places = {"member": images["key"], "path": _below(images["uri"], settings.archive_root)}
    made = {name: pa.repeat(value, n) for name, value in constants.items()} | places | columns
    kept = {name: images[name] for name in SCORES.names if name in images.column_names and name not in made}
    nulls = {name: pa.nulls(n) for name in SCORES.names}
    return pa.table({name: (nulls | kept | made)[name] for name in SCORES.names}).cast(SCORES)


def _below(uris: pa.ChunkedArray, root: str) -> pa.ChunkedArray:
    """Addresses without the folder that they lie in."""
    return pc.utf8_slice_codeunits(uris, len(root.rstrip("/")) + 1)


def _with_files(scores: pa.Table, files: pa.Table, lake_uri: str) -> pa.Table:
    """The scores with the heatmaps that were drawn, and a note where one could not be."""
    place = pc.index_in(scores["image_id"], value_set=values(files["image_id"]))
    columns = {name: scores[name] for name in SCORES.names}
    columns["heatmap_path"] = _below(files["heatmap_uri"].take(place), lake_uri)
    columns["error"] = pc.coalesce(files["note"].take(place), scores["error"])
    return pa.table(columns, schema=SCORES)

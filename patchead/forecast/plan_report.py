"""The plan of a run and what it will cost, printed without Ray, weights or a single write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Column, Table

from patchead.errors import SettingsError
from patchead.forecast.cluster import Cluster, Outcome
from patchead.forecast.device_speeds import DATA_SHEET, EFFICIENCY, NO_FIGURES, DeviceFigures, find_figures
from patchead.forecast.searched_before import searched_before
from patchead.forecast.simulate import simulate
from patchead.forecast.stages import Stage
from patchead.forecast.stages_report import night_lines, total_line
from patchead.forecast.survey import Survey, actor_count, device_of, limits_on, survey_archive
from patchead.nightly import wiring
from patchead.plan.group_plan import Limits
from patchead.plan.peak_memory import peak_bytes
from patchead.plan.planned import GroupPlan, Plan
from patchead.plan.tasks import LOAD, PlannedTasks, Task, group_tasks
from patchead.printed import add_cells, tell
from patchead.scoring.memory_budget import GIGABYTE
from patchead.search.bound_choice import warning_on
from patchead.search.score import BOUNDED
from patchead.settings.argument_names import in_settings, named_as_settings
from patchead.settings.model import Config
from patchead.settings.resolve import layers_and_size

MOST_ROWS = 40
_WHOLE = 120  # columns that the whole table takes


@named_as_settings()
def print_plan(
    config: Config,
    console: Console,
    *,
    actors: int | None = None,
    device: str | None = None,
    calibration: Path | None = None,
    cores_per_node: int | None = None,
) -> dict[str, Any]:
    """List the archive, plan every group, print what a run would do and how long it would take.

    Returns: the same as plain values: ``groups`` and ``stages``, lists with an object each, ``seconds`` of the night or
        None, and ``told``, the lines below the table.

    Args:
        config: of the run.
        console: where to print.
        actors: scoring actors; default: ``resources.score_actors``, else 1.
        device, calibration: where the speeds come from; see `devices.find_figures`.
        cores_per_node: CPU cores of a node; default: see `stages.cores_of`.

    Raises:
        PatcheadError: the archive cannot be listed, the encoder is unknown, or a group cannot be planned.
    """
    figures = find_figures(device, calibration)
    count = actor_count(config, actors)
    survey = survey_archive(config, figures)
    limits = limits_on(config, count, figures)
    plan = survey.plan(config, limits)
    cluster, why_not = _cluster(count, figures, limits)
    rows = [_row(group, plan, limits, cluster.seconds if cluster else None) for group in plan.groups]
    console.print(_groups(rows, console.width))
    night = survey.night(config, plan, cluster, cores_per_node)
    outcome = simulate(PlannedTasks(plan), cluster) if cluster else None
    scoring = outcome.makespan if outcome else None
    lines = [*_facts(config, survey, plan), *_scoring(plan, limits), *searched_before(config, plan)]
    lines += _estimate(outcome, cluster) if outcome and cluster else [f"time     {why_not}"]
    lines += [*night_lines(night, wiring.encoder_spec(config, device_of(config, figures))), *total_line(night, scoring)]
    if slow := warning_on(limits.device, limits.schedule, limits.window):
        lines.append(f"warning: {in_settings(slow)}")
    lines += ["dry run: nothing was written, nothing was started"]
    for line in lines:
        tell(console, line)
    score = Stage("score", *_scored(plan, outcome), origin(figures) if figures else "")
    stages = [night.read, night.decode, night.embed, score, night.explain]
    total = None if scoring is None else night.seconds(scoring)
    return {"groups": rows, "stages": [asdict(stage) for stage in stages], "seconds": total, "told": lines}


def _scored(plan: Plan, outcome: Outcome | None) -> tuple[int, float | None, float | None]:
    """Images, actor seconds, and seconds with the actors' start."""
    images = sum(group.images for group in plan.scored)
    return (images, outcome.busy, outcome.makespan) if outcome else (images, None, None)


def _cluster(count: int, figures: DeviceFigures | None, limits: Limits) -> tuple[Cluster | None, str]:
    """The actors as the estimate sees them, or why there is no estimate."""
    if figures is None:
        return None, NO_FIGURES
    try:
        figures.rate(limits.precision, 1)
    except SettingsError as exc:
        return None, f"no estimate: {exc}"
    return Cluster(
        actors=count, actors_per_node=figures.actors_per_node, figures=figures, precision=limits.precision
    ), ""


def _groups(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Of fewer columns, where there is no room: the lines below have their sums."""
    left_out = () if width >= _WHOLE else ("read GB", "moved GB", "actor s")
    columns = {
        name: Column(name, justify="left" if name in ("group", "schedule") else "right", overflow="fold")
        for name in _SHOWN
        if name not in left_out
    }
    table = Table(*columns.values(), box=None if left_out else HEAVY_HEAD, pad_edge=not left_out)
    for row in rows[:MOST_ROWS]:
        add_cells(table, [_SHOWN[name](row) for name in columns])
    if len(rows) > MOST_ROWS:
        add_cells(table, [f"… and {len(rows) - MOST_ROWS} more groups"])
    return table


def _row(group: GroupPlan, plan: Plan, limits: Limits, seconds: Callable[[Task], float] | None) -> dict[str, Any]:
    tasks = list(group_tasks(group, plan.n_patches, plan.dim))
    read, moved = _bytes(tasks)
    note = "too few images" if group.schedule == "none" else group.schedule
    if group.schedule == BOUNDED and limits.window == "auto":
        note = f"window or {group.counted_as or BOUNDED}"
    return {
        "group": group.group_id,
        "images": group.images - group.nulls,
        "references": group.references,
        "schedule": note + " or bounded" * group.tries_bounds,
        "tiles": group.matching_tasks,
        "flops": group.flops,
        "read_bytes": read,
        "moved_bytes": moved,
        "peak_bytes": peak_bytes(group, plan.n_patches, plan.dim, limits),
        "actor_seconds": sum(seconds(task) for task in tasks if task.kind != LOAD) if seconds else None,
    }


def _facts(config: Config, survey: Survey, plan: Plan) -> list[str]:
    encoder = config.encoder
    return [
        f"archive  {config.archive.uri}: {survey.images} images, {survey.broken} of them unreadable already; "
        f"{survey.left_out.total} other files ignored",
        *(f"         {line}" for line in [*survey.left_out.lines(), *survey.unreadable.lines()]),
        f"encoder  {encoder.name}, weights {encoder.weights}, {survey.shape.image_size} px, {_layers(config)}: "
        f"{plan.n_patches} patches x {plan.dim} dimensions per image",
        f"lake     {config.lake.uri}: {_gb(plan.embedding_bytes)} GB of embeddings if none is there yet",
    ]


def _layers(config: Config) -> str:
    layers, _ = layers_and_size(config)
    return f"layers {', '.join(map(str, sorted(layers)))}" if layers else "last layer"


def _scoring(plan: Plan, limits: Limits) -> list[str]:
    read, moved = _bytes(PlannedTasks(plan))
    peak = max((peak_bytes(group, plan.n_patches, plan.dim, limits) for group in plan.scored), default=0)
    images, nulls, tiles = (
        sum(getattr(group, name) for group in plan.scored) for name in ("images", "nulls", "matching_tasks")
    )
    with_them = f" and {nulls} normal ones for the verdict" if nulls else ""
    return [
        f"scoring  {len(plan.scored)} of {len(plan.groups)} groups, {images - nulls} images{with_them}, {tiles} tiles, "
        f"{plan.flops / 1e12:.3g} TFLOP in {limits.precision}",
        f"         {_gb(read)} GB read from the lake, {_gb(moved)} GB moved through the object store, "
        f"at most {_gb(peak)} GB per actor",
    ]


def _estimate(outcome: Outcome, cluster: Cluster) -> list[str]:
    start, count = cluster.figures.start_seconds if outcome.tasks else 0.0, cluster.actors
    return [
        f"time     about {outcome.makespan:.3g} s of scoring on {count} {'actor' if count == 1 else 'actors'}: "
        f"{start:.3g} s to start, then {outcome.makespan - start:.3g} s, {outcome.utilisation:.0%} busy",
        f"         {origin(cluster.figures)}",
    ]


def origin(figures: DeviceFigures) -> str:
    """Say where the speeds come from, in one line."""
    note = f"; {EFFICIENCY:.0%} of the dense rate and all other speeds are assumed" * (figures.source == DATA_SHEET)
    threads = f", {figures.threads} threads per actor" if figures.device == "cpu" else ""
    return f"speeds of {figures.name}: {figures.source}{threads}{note}"


def _bytes(tasks: Iterable[Task]) -> tuple[int, int]:
    """Read from the lake, and moved through the object store."""
    read = moved = 0
    for task in tasks:
        read += task.read_bytes
        moved += task.moved_bytes
    return read, moved


def _gb(size: float) -> str:
    return f"{size / GIGABYTE:.3g}"


_SHOWN: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "group": itemgetter("group"),
    "images": itemgetter("images"),
    "references": itemgetter("references"),
    "schedule": itemgetter("schedule"),
    "tiles": itemgetter("tiles"),
    "TFLOP": lambda row: f"{row['flops'] / 1e12:.3g}",
    "read GB": lambda row: _gb(row["read_bytes"]),
    "moved GB": lambda row: _gb(row["moved_bytes"]),
    "peak GB": lambda row: _gb(row["peak_bytes"]),
    "actor s": lambda row: "-" if row["actor_seconds"] is None else f"{row['actor_seconds']:.3g}",
}
"""The table's columns, and each one's cell."""

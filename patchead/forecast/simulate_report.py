"""`patchead plan --simulate`: a run on a cluster that is not there, undisturbed and disturbed, side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from patchead.archive.left_out import LeftOut
from patchead.encoders import describe
from patchead.errors import SettingsError, bad_value
from patchead.forecast.cluster import Cluster, Disturbances, Outcome
from patchead.forecast.device_speeds import NO_FIGURES, DeviceFigures, find_figures
from patchead.forecast.plan_report import origin
from patchead.forecast.simulate import simulate
from patchead.forecast.stages import Night
from patchead.forecast.stages_report import night_lines, total_line
from patchead.forecast.survey import Survey, device_of, limits_on, survey_archive
from patchead.nightly import wiring
from patchead.nightly.prompts import prompt_counts
from patchead.plan.planned import Plan, PromptCounts
from patchead.plan.tasks import PlannedTasks
from patchead.printed import add_cells, tell
from patchead.scoring.memory_budget import GIGABYTE
from patchead.search.bound_choice import warning_on
from patchead.settings.argument_names import in_settings, named_as_settings
from patchead.settings.model import Config
from patchead.settings.modes import accepted_references


@dataclass(frozen=True, kw_only=True)
class SimulationRequest:
    """Hold what `patchead plan --simulate` is asked for. Without ``images`` the groups are those of the archive."""

    gpus: int
    images: int | None = None
    group_size: int = 200
    device: str | None = None
    calibration: Path | None = None
    gpus_per_node: int | None = None
    cores_per_node: int | None = None
    """CPU cores of a node; default: see `stages.cores_of`."""
    price_per_gpu_hour: float | None = None
    """In any currency."""


@named_as_settings()
def print_simulation(config: Config, console: Console, request: SimulationRequest, disturbances: Disturbances) -> None:
    """Plan the groups with the real planner, simulate their tasks, print makespan, utilisation, bytes and cost.

    Raises:
        SettingsError: a number out of range, an unknown device, or no figures to simulate with.
        PatcheadError: the archive cannot be listed, or a group cannot be planned.
    """
    _check(request)
    figures = find_figures(request.device, request.calibration)
    if figures is None:
        raise SettingsError(f"{NO_FIGURES}.")
    device = device_of(config, figures)
    limits = limits_on(config, request.gpus, figures)
    cluster = Cluster(
        actors=request.gpus,
        actors_per_node=request.gpus_per_node or figures.actors_per_node,
        figures=figures,
        precision=limits.precision,
    )
    if request.images is None:
        survey = survey_archive(config, figures)
    else:
        shape = describe(wiring.encoder_spec(config, device))
        sizes = even_groups(request.images, request.group_size)
        references = _references_of_each(config, sizes)
        survey = Survey(
            sizes=sizes,
            images=request.images,
            left_out=LeftOut(),
            unreadable=LeftOut(),
            shape=shape,
            references=references,
            sample=None,
        )
    plan = survey.plan(config, limits)
    tasks = PlannedTasks(plan)
    columns = {"undisturbed": simulate(tasks, cluster)}
    if disturbances.lose_at is not None or disturbances.stragglers:
        columns[_name(disturbances)] = simulate(tasks, cluster, disturbances)
    night = survey.night(config, plan, cluster, request.cores_per_node)
    console.print(_table(columns, night, request.price_per_gpu_hour))
    stages = night_lines(night, wiring.encoder_spec(config, device))
    for line in [*_lines(plan, cluster, figures), *stages, *total_line(night, columns["undisturbed"].makespan)]:
        tell(console, line)
    if slow := warning_on(limits.device, limits.schedule, limits.window):
        tell(console, f"warning: {in_settings(slow)}")


def _references_of_each(config: Config, sizes: list[tuple[str, int]]) -> dict[str, PromptCounts] | None:
    if accepted_references(config):
        if (most := config.scoring.max_references) is None:
            raise SettingsError(
                "--images imagines the archive: with scoring.references=accepted set scoring.max_references, the "
                "accepted images of each group."
            )
        return dict.fromkeys((name for name, _ in sizes), PromptCounts(most, 0))
    if not wiring.few_shot(config):
        return None
    if config.prompts.k is None:
        raise SettingsError("--images imagines the archive: in few_shot mode set prompts.k, the prompts of each group.")
    return dict.fromkeys((name for name, _ in sizes), prompt_counts(config.prompts.k, config.prompts.rotations))


def even_groups(images: int, size: int) -> list[tuple[str, int]]:
    """Cut images into groups of ``size``, the last with what is left."""
    count = -(-images // size)
    return [(f"group {i:06d}", min(size, images - size * i)) for i in range(count)]


def _check(request: SimulationRequest) -> None:
    counts = {
        "--gpus": request.gpus,
        "--images": request.images,
        "--group-size": request.group_size,
        "--gpus-per-node": request.gpus_per_node,
    }
    for name, value in counts.items():
        if value is not None and value < 1:
            raise SettingsError(bad_value(name, value, "at least 1"))
    if request.price_per_gpu_hour is not None and not 0 <= request.price_per_gpu_hour <= 1e9:
        raise SettingsError(bad_value("--price-per-gpu-hour", request.price_per_gpu_hour, "from 0 to 1e9"))


def _name(disturbances: Disturbances) -> str:
    parts = []
    if disturbances.stragglers:
        parts.append(f"{disturbances.stragglers:.3g} of the calls {disturbances.slowdown:g} x slower")
    if disturbances.lose_at is not None:
        parts.append(f"one node lost at {disturbances.lose_at:.0%}")
    return ", ".join(parts)


def _table(columns: dict[str, Outcome], night: Night, price: float | None) -> Table:
    table = Table("", *(Column(name, justify="right") for name in columns))
    rows = {
        "makespan": lambda o: f"{o.makespan:.4g} s ({o.makespan / 3600:.3g} h)",
        "utilisation": lambda o: f"{o.utilisation:.1%}",
        "idle before the last calls, at most": lambda o: f"{o.idle:.1%}",
        "calls": lambda o: str(o.tasks),
        "calls done again": lambda o: str(o.redone),
        "GB read and moved per GPU": lambda o: f"{o.bytes_per_actor / GIGABYTE:.3g}",
    }
    if price is not None:
        rows["cost"] = lambda o: f"{o.cost(price):.2f}"
    totals = {id(outcome): total for outcome in columns.values() if (total := night.seconds(outcome.makespan))}
    if totals:
        rows["whole night"] = lambda o: f"{totals[id(o)]:.4g} s ({totals[id(o)] / 3600:.3g} h)"
    if totals and price is not None:
        rows["cost of the whole night"] = lambda o: f"{replace(o, makespan=totals[id(o)]).cost(price):.2f}"
    for name, show in rows.items():
        add_cells(table, [name, *(show(outcome) for outcome in columns.values())])
    return table


def _lines(plan: Plan, cluster: Cluster, figures: DeviceFigures) -> list[str]:
    images = sum(group.images for group in plan.scored)
    cut = sum(not group.whole for group in plan.scored)
    return [
        f"scoring  {images} images in {len(plan.scored)} groups, {cut} of them cut into blocks; "
        f"{plan.n_patches} patches x {plan.dim} dimensions, {plan.flops / 1e12:.4g} TFLOP in {cluster.precision}",
        f"cluster  {cluster.actors} x {figures.name}, {cluster.together} per node, {cluster.nodes} nodes; "
        f"{origin(figures)}",
        "simulated: scoring, with the actors' start; what comes before and after is reckoned, undisturbed:",
    ]

"""`patchead plan` and `patchead calibrate`: what a run would do and take, and the speeds that it is reckoned with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchead.commands.machine import JsonOption, print_json, told_on
from patchead.commands.options import (
    ArchiveOption,
    CalibrationOption,
    ConfigOption,
    LakeOption,
    LimitOption,
    NightOption,
    ProductOption,
    SetOption,
    out,
    settings_of,
    short_options,
)
from patchead.errors import SettingsError
from patchead.settings.load import UNUSED_PLACES, load_config


def plan(
    *,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    lake: LakeOption = None,
    night: NightOption = None,
    product: ProductOption = None,
    limit: LimitOption = None,
    overrides: SetOption = None,
    actors: Annotated[int | None, typer.Option(help="Scoring actors; default: resources.score_actors, or 1.")] = None,
    device: Annotated[str | None, typer.Option(help="Speeds from a GPU's data sheet, e.g. H100.")] = None,
    calibration: CalibrationOption = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Simulate the run on a cluster.")] = False,
    gpus: Annotated[int | None, typer.Option(help="Simulated GPUs (or CPU actors); default: as --actors.")] = None,
    images: Annotated[int | None, typer.Option(help="Simulate this many images; needs no archive.")] = None,
    group_size: Annotated[int, typer.Option(help="Images per group of --images.")] = 200,
    gpus_per_node: Annotated[int | None, typer.Option(help="Default: 8, or as calibrated.")] = None,
    cores_per_node: Annotated[int | None, typer.Option(help="CPU cores; default: 8 a GPU, or as calibrated.")] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(help="In any currency; prints the cost.")] = None,
    stragglers: Annotated[float, typer.Option(help="Fraction of the calls that are slow.")] = 0.05,
    slowdown: Annotated[float, typer.Option(help="How many times slower they are.")] = 2.0,
    lose_node: Annotated[bool, typer.Option(help="Lose one node halfway; it is replaced after 5 minutes.")] = False,
    seed: Annotated[int, typer.Option(help="Which calls are slow.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Print what a run would do and cost: tiles, FLOPs, bytes, memory, seconds. Nothing is written or started.

    With --simulate, play the same tiles on a cluster of --gpus, with stragglers and a lost node.
    """
    chosen = short_options(archive, lake, night, product, limit)
    if not simulate:
        from patchead.forecast.plan_report import print_plan

        if images is not None or gpus is not None:
            raise SettingsError("--images and --gpus belong to a simulation: add --simulate, or use --actors.")
        settings = settings_of(config, overrides, chosen)
        told = told_on(quiet=as_json, as_json=as_json)
        planned = print_plan(
            settings, told, actors=actors, device=device, calibration=calibration, cores_per_node=cores_per_node
        )
        if as_json:
            print_json(planned)
        return
    if as_json:
        raise SettingsError("--json does not go with --simulate: it is for the plan.")
    from patchead.forecast.cluster import Disturbances
    from patchead.forecast.simulate_report import SimulationRequest, print_simulation
    from patchead.forecast.survey import actor_count

    places = {} if images is None else UNUSED_PLACES
    settings = settings_of(config, overrides, places | chosen)
    count = actor_count(settings, actors) if gpus is None else gpus
    request = SimulationRequest(
        gpus=count,
        images=images,
        group_size=group_size,
        device=device,
        calibration=calibration,
        gpus_per_node=gpus_per_node,
        cores_per_node=cores_per_node,
        price_per_gpu_hour=price_per_gpu_hour,
    )
    disturbances = Disturbances(stragglers=stragglers, slowdown=slowdown, lose_at=0.5 if lose_node else None, seed=seed)
    print_simulation(settings, out, request, disturbances)


def calibrate(
    threads: Annotated[int | None, typer.Option(help="Threads of one actor; default: 4, or what there is.")] = None,
    actors: Annotated[int | None, typer.Option(help="Actors at work at once; default: as many as fit.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Of the products; may be repeated.")] = None,
    lake: Annotated[str | None, typer.Option(help="Measure reading here; default: a temporary folder.")] = None,
    overrides: SetOption = None,
    embed: Annotated[bool, typer.Option("--embed", help="Measure the pace of the settings' encoder too.")] = False,
    output: Annotated[Path | None, typer.Option(help="Default: ~/.cache/patchead/calibration.json.")] = None,
) -> None:
    """Measure this machine's speeds, in well under a minute, and keep them for `patchead plan`."""
    from patchead.forecast.calibrate_report import run_calibration

    settings = load_config(None, overrides or [], {**UNUSED_PLACES, "lake.uri": lake or UNUSED_PLACES["lake.uri"]})
    run_calibration(
        settings, out, threads=threads, actors=actors, precisions=precision or [], lake=lake, output=output, embed=embed
    )

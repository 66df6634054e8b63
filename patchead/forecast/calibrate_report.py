"""`patchead calibrate`: measure, print, keep."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from patchead.errors import arguments_named
from patchead.forecast.calibrate import Sizes, calibrate
from patchead.forecast.device_speeds import DEFAULT_FILE, DeviceFigures, save_figures
from patchead.nightly import wiring
from patchead.printed import add_cells, say
from patchead.settings.model import Config


def run_calibration(
    config: Config,
    console: Console,
    *,
    threads: int | None = None,
    actors: int | None = None,
    precisions: Sequence[str] = (),
    lake: str | None = None,
    output: Path | None = None,
    sizes: Sizes | None = None,
    embed: bool = False,
) -> DeviceFigures:
    """Measure this machine and write the figures to ``output`` (default: where `patchead plan` looks for them).

    ``embed``: the pace of the settings' encoder is measured too.

    Raises:
        PatcheadError: see `calibrate` and `save_figures`.
    """
    place = (lake, wiring.storage(config)) if lake else None
    encoder = partial(wiring.encoder_spec, config) if embed else None
    with arguments_named({"precision": "--precision"}):
        figures = calibrate(
            threads=threads, actors=actors, precisions=precisions, lake=place, sizes=sizes, encoder=encoder
        )
    path = output or DEFAULT_FILE.expanduser()
    save_figures(figures, path)
    console.print(_table(figures, lake))
    say(console, f"{figures.source}; written to {path}")
    return figures


def _table(figures: DeviceFigures, lake: str | None) -> Table:
    actors = "1 actor" if figures.actors_per_node == 1 else f"{figures.actors_per_node} actors"
    table = Table("what", Column("measured", justify="right"), "")
    for precision, rate in figures.flops.items():
        alone = f"alone {figures.flops_alone[precision] / 1e9:.4g}" if figures.actors_per_node > 1 else ""
        add_cells(table, [f"scoring in {precision}, per actor", f"{rate / 1e9:.4g} GFLOP/s", alone])
    for encoder, rate in figures.embed.items():
        add_cells(table, [f"embedding, per actor: {encoder}", f"{rate:.4g} images/s", "random weights"])
    read_from = lake or "a temporary folder: the page cache"
    add_cells(table, ["read, per node", f"{figures.read_bytes / 1e9:.3g} GB/s", read_from])
    add_cells(table, ["object store, per node", f"{figures.network_bytes / 1e9:.3g} GB/s", "this machine, no network"])
    add_cells(table, ["overhead of a call", f"{figures.task_seconds * 1e3:.3g} ms", ""])
    add_cells(table, ["start of the actors", f"{figures.start_seconds:.3g} s", ""])
    add_cells(table, ["at work at once", actors, f"{figures.device}, {figures.threads} threads each"])
    return table

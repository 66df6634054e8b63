"""How does the time per image grow with the group, exactly and with a panel of references? With a plot."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

from benchmarks.records import Record, interleaved, ratio
from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.leave_one_out import Aggregation, reference_panel, score_group
from patchead.scoring.precision_probe import choose, probe, processor

PANEL = 200
MEMORY = 4 * 10**9
PATCHES, DIM = 64, 384


def growth(sizes: tuple[int, ...], *, repeats: int, plot: Path | None = None) -> list[Record]:
    """Seconds per image for groups of ``sizes`` images, in what this processor is fastest in.

    The first and the last size make the ratio.
    """
    precision = choose([probe()])
    cases: dict[str, Callable[[], object]] = {}
    for n in sizes:
        stored = unit_vectors(n, PATCHES, DIM)
        panel = reference_panel([str(i) for i in range(n)], PANEL, 0)
        run = partial(
            score_group,
            stored,
            np.arange(n),
            aggregation=Aggregation(),
            precision=precision,
            memory_bytes=MEMORY,
            schedule="auto",
        )
        cases[f"exact {n}"] = run
        cases[f"panel {n}"] = partial(run, panel=panel)
    seconds = interleaved(cases, repeats)
    per_image = {name: [value / int(name.split()[1]) for value in taken] for name, taken in seconds.items()}
    figure = partial(Record, benchmark="growth", precision=precision)
    records = []
    for name, values in per_image.items():
        references, size = name.split()
        metric, case = f"milliseconds per image, {references}", f"N={size} P={PATCHES} D={DIM}"
        records.append(figure(case=case, metric=metric, value=1e3 * statistics.median(values), unit="ms"))
    for references, target in (("panel", "<= 1.25"), ("exact", None)):
        value = ratio(per_image[f"{references} {sizes[-1]}"], per_image[f"{references} {sizes[0]}"])
        case, metric = f"N={sizes[-1]} over N={sizes[0]}", f"time per image, {references}"
        records.append(figure(case=case, metric=metric, value=value, unit="x", target=target))
    if plot is not None:
        _draw(per_image, sizes, precision, plot)
    return records


def _draw(per_image: dict[str, list[float]], sizes: tuple[int, ...], precision: str, path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), dpi=120)
    for references, label in (("exact", "all other images (exact)"), ("panel", f"panel of {PANEL} references")):
        milliseconds = [1e3 * statistics.median(per_image[f"{references} {n}"]) for n in sizes]
        axes.plot(sizes, milliseconds, marker="o", label=label)
    axes.set_xlabel("images in the group")
    axes.set_ylabel("ms per image")
    axes.set_ylim(bottom=0)
    case = f"P = {PATCHES}, D = {DIM}, {precision}, {torch.get_num_threads()} threads"
    axes.set_title(f"{case}, {processor()}", fontsize=8)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)

"""Rows to figures for reading: each class, and the mean over classes, as mean ± standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchead.evaluation.records import METRICS, TOO_FEW, Row

MEAN = "mean"


@dataclass(frozen=True)
class Figure:
    """Hold a mean; ``std`` is that of the sample (n - 1), None with one seed; ``classes`` is how many it is over."""

    mean: float
    std: float | None
    classes: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """Hold one line of the table; a figure is None where the metric is undefined. Seconds: to embed and score
    the images once, by the mean seed."""

    variant: str
    class_name: str
    images: int
    anomalous: int
    figures: dict[str, Figure | None]
    seconds: float


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Make a line per variant and class and, where there are several, one for their mean, in the order of the rows.

    The mean over classes is taken for each seed first, so that its deviation is that of the whole dataset's figure.
    A class without a metric is left out of that metric's mean (`Figure.classes`, `notes`).
    """
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        of_variant = [row for row in rows if row.variant == variant]
        names = list(dict.fromkeys(row.class_name for row in of_variant))
        groups = [[row for row in of_variant if row.class_name == name] for name in names]
        lines += [_line(variant, name, [group]) for name, group in zip(names, groups, strict=True)]
        if len(names) > 1:
            lines.append(_line(variant, MEAN, groups))
    return lines


def notes(rows: Sequence[Row]) -> list[str]:
    """Say what the figures leave out, one sentence each."""
    first = _first_seeds(rows)
    found = []
    for line in summarise(rows):
        if line.class_name == MEAN:
            classes = len({row.class_name for row in rows})
            for metric, figure in line.figures.items():
                if figure is None or figure.classes < classes:
                    counted = figure.classes if figure else 0
                    found.append(f"{line.variant}: {metric} is the mean of {counted} of {classes} classes.")
    for row in first:
        where = f"{row.class_name}, {row.variant}"
        if row.status == TOO_FEW:
            found.append(f"{where}: {row.images} images are too few for scoring.min_batch; nothing was scored.")
        elif row.unscored:
            found.append(f"{where}: {row.unscored} images without a reference are in no metric.")
        if row.without_mask:
            found.append(f"{where}: {row.without_mask} anomalous images without a mask are in no pixel metric.")
        if row.aligned is not None and row.aligned < row.images:
            found.append(f"{where}: {row.images - row.aligned} of {row.images} images could not be aligned.")
    return found


def _first_seeds(rows: Sequence[Row]) -> list[Row]:
    return list({(row.variant, row.class_name): row for row in reversed(rows)}.values())[::-1]


def _line(variant: str, name: str, classes: Sequence[Sequence[Row]]) -> Line:
    firsts = [group[0] for group in classes]
    return Line(
        variant=variant,
        class_name=name,
        images=sum(row.images for row in firsts),
        anomalous=sum(row.anomalous for row in firsts),
        figures={metric: _figure(metric, classes) for metric in METRICS},
        seconds=sum(float(np.mean([row.embed_seconds + row.score_seconds for row in group])) for group in classes),
    )


def _figure(metric: str, classes: Sequence[Sequence[Row]]) -> Figure | None:
    """Classes (seeds) → mean over classes for each seed → mean and deviation over seeds."""
    known = [values for group in classes if None not in (values := [getattr(row, metric) for row in group])]
    if not known:
        return None
    seeds = np.mean(np.array(known, np.float64), axis=0)
    return Figure(float(seeds.mean()), float(seeds.std(ddof=1)) if len(seeds) > 1 else None, len(known))

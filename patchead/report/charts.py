"""The two drawings of a group: its scores with the null and the threshold, and its nights one after the other.

Static SVG by matplotlib: it opens without a script, prints, and is a few kilobytes where plotly.js is four megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from patchead.report import svg
from patchead.report.changes import share_of

_FEWEST_BINS, _MOST_BINS = 16, 44
_FEW_NIGHTS = 8
_LABEL_RIGHT_OF = 0.75
_HISTOGRAM, _DRIFT = (6.2, 2.3), (6.2, 2.5)  # inches of 72 points


def histogram(scores: np.ndarray, flagged: np.ndarray, verdict: Mapping[str, Any], name: str) -> Markup:
    """Draw the scores of a group: flagged ones apart, the normal that the verdict fitted, and the threshold.

    Args:
        scores: float (N,).
        flagged: bool (N,).
        verdict: its row of the table of verdicts.
        name: what the group is called.
    """
    limit, centre, scale = verdict["threshold_score"], verdict["centre"], verdict["scale"]
    bins = int(np.clip(2.5 * len(scores) ** 0.5, _FEWEST_BINS, _MOST_BINS))
    edges = np.linspace(*_range(scores, limit), bins + 1)
    with svg.style(f"histogram {name}"):
        figure = Figure(_HISTOGRAM, layout="constrained")
        axes = figure.subplots()
        titles = _draw_bars(axes, edges, scores, flagged)
        if centre is not None and scale:
            _draw_null(axes, edges, len(scores), centre, scale)
            titles["null"] = f"The fitted normal of good images: centre {centre:.4f}, scale {scale:.4f}"
        if limit is not None:
            _draw_threshold(axes, edges, limit)
            titles["threshold"] = f"Above {limit:.4f} an image is flagged"
        axes.set_xlabel("image score")
        axes.set_ylabel("images")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        label = (
            f"Histogram of {len(scores)} image scores of {name}, from {scores.min():.3f} to {scores.max():.3f}; "
            f"{int(flagged.sum())} are flagged"
        )
        return svg.inline(figure, label, titles)


def drift(nights: Sequence[Mapping[str, Any]], name: str) -> Markup:
    """Draw the nights of a group: median and scale above, the flagged share below.

    Args:
        nights: rows of the table of verdicts, oldest first, each with a median.
        name: what the group is called.
    """
    days = np.array([row["night"] for row in nights], "datetime64[D]")
    median = np.array([row["median"] for row in nights], float)
    scale = np.array([row["scale"] or 0.0 for row in nights], float)
    share = np.array([100 * (share_of(row) or 0.0) for row in nights])
    titles, width = {}, 0.8 if len(nights) > _FEW_NIGHTS else 0.3
    with svg.style(f"drift {name}"):
        figure = Figure(_DRIFT, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        above.fill_between(days, median - scale, median + scale, color=svg.CALM, alpha=0.25, linewidth=0)
        above.plot(days, median, color=svg.CALM, linewidth=1.5)
        for number, row in enumerate(nights):
            above.plot(
                days[number], median[number], "o", color=svg.CALM, markersize=5, gid=f"night-{number}"
            )  # one artist each, to hover over
            below.bar(days[number], share[number], width, color=svg.HOT, linewidth=0, gid=f"share-{number}")
            titles[f"night-{number}"] = f"{row['night']}: median {median[number]:.4f}, scale {scale[number]:.4f}"
            titles[f"share-{number}"] = f"{row['night']}: {row['flagged']} of {row['scored']} flagged"
        above.set_ylabel("median ± scale")
        below.set_ylabel("flagged, %")
        below.set_ylim(0, max(1.0, 1.15 * float(share.max())))
        for axes in (above, below):
            axes.yaxis.set_major_locator(MaxNLocator(3))
        below.margins(x=0.04)
        below.set_xlim(days[0] - np.timedelta64(1, "D"), days[-1] + np.timedelta64(1, "D"))
        locator = AutoDateLocator(minticks=2, maxticks=7)
        below.xaxis.set_major_locator(locator)
        below.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        label = (
            f"{name} over {len(nights)} nights: median from {median[0]:.3f} to {median[-1]:.3f}, flagged share from "
            f"{share[0]:.1f} % to {share[-1]:.1f} %"
        )
        return svg.inline(figure, label, titles)


def _draw_bars(axes: Any, edges: np.ndarray, scores: np.ndarray, flagged: np.ndarray) -> dict[str, str]:
    """The bars, the flagged above; what is told of each."""
    calm, hot = np.histogram(scores[~flagged], edges)[0], np.histogram(scores[flagged], edges)[0]
    titles = {}
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        bottom = 0
        for colour, count, what in ((svg.CALM, int(calm[number]), "calm"), (svg.HOT, int(hot[number]), "flagged")):
            if count:
                gid = f"bar-{number}-{what}"
                axes.bar(low, count, high - low, bottom, align="edge", color=colour, linewidth=0, gid=gid)
                titles[gid] = f"{low:.4f} to {high:.4f}: {count} {'not flagged' if what == 'calm' else what}"
                bottom += count
    return titles


def _draw_threshold(axes: Any, edges: np.ndarray, limit: float) -> None:
    at_right = (limit - edges[0]) > _LABEL_RIGHT_OF * (edges[-1] - edges[0])
    axes.axvline(limit, color=svg.HOT, linewidth=1.3, linestyle=(0, (4, 2)), gid="threshold")
    axes.annotate(
        f"threshold {limit:.3f}",
        (limit, 1),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        xytext=(-4 if at_right else 4, -2),
        ha="right" if at_right else "left",
        va="top",
        color=svg.INK,
    )


def _draw_null(axes: Any, edges: np.ndarray, count: int, centre: float, scale: float) -> None:
    at = np.linspace(edges[0], edges[-1], 200)
    density = np.exp(-0.5 * ((at - centre) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
    axes.plot(at, density * count * (edges[1] - edges[0]), color=svg.NULL, linewidth=1.6, gid="null")


def _range(scores: np.ndarray, limit: float | None) -> tuple[float, float]:
    low, high = float(scores.min()), float(scores.max())
    if limit is not None:
        high = max(high, limit)
    margin = 0.04 * (high - low) or 0.01
    return low - margin, high + margin

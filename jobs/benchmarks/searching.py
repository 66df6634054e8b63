"""What do bound and refine and the window rule save? Beside the symmetric full search, on real embeddings and worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle
from statistics import median

import numpy as np
import torch
from demo_archive import elpv_cells
from skimage import data
from sklearn.metrics import average_precision_score, roc_auc_score
from studies import cells
from studies.features import DINO, Features

from benchmarks.alike import piece, whole_group
from benchmarks.records import Record, interleaved, ratio
from benchmarks.scoring import MEMORY, cdist_loop
from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.aggregate import Aggregation, image_scores
from patchead.scoring.leave_one_out import GroupScores
from patchead.search.bounded_group import BoundedScores
from patchead.search.score import score_group
from patchead.search.window_group import score_by_window

FRACTIONS = (0.05, 0.3)
_PROBABILITIES = (0.0, 1 / 3, 2 / 3, 1.0)  # of a defect: all cells
_SHOWN = 0.1  # share of the images that auto presumes to be shown; the search of these is not in its time
_LONG = 50_000  # patches of a group from which on a turn takes minutes, and none warms up
_CDIST_QUERIES = 2  # images of the cdist loop, whose time grows with them in a straight line
_TARGETS: Mapping[tuple[str, int, int], str] = {  # case, N, P: of the speed of bounded over the symmetric kernel
    ("poly", 200, 1024): ">= 12",
    ("poly", 200, 256): ">= 5",
    ("grass", 60, 1024): ">= 5",
    ("brick", 60, 1024): ">= 5",
    ("no structure", 200, 256): ">= 0.9",
}


def of_cells(benchmark: str, images: int, size: int, *, repeats: int) -> list[Record]:
    """Poly-crystalline cells of the first split, a tenth of them defective, at ``size`` pixels: P = (size / 14)²."""
    features, split, bad = Features(DINO, size), cells.split("poly", 0), images // 10
    names = split.good[: images - bad] + split.defective[:bad]
    truth = np.arange(images) >= images - bad
    return _measured(benchmark, "poly", features.take(names, DINO.layers), repeats, truth)


def of_textures(benchmark: str, images: int, size: int, *, repeats: int) -> list[Record]:
    """Pieces of brick and of grass, each turned by a random angle."""
    records, encoder = [], Features(DINO, size).encoder
    for name in ("grass", "brick"):
        rng = np.random.default_rng(0)
        pictures = np.stack([piece(getattr(data, name)(), size, rng, turn=True) for _ in range(images)])
        parts = np.array_split(pictures, -(-images // 8))
        records += _measured(
            benchmark, name, np.concatenate([encoder.embed(part).all_vectors() for part in parts]), repeats
        )
    return records


def of_noise(benchmark: str, images: int, patches: int, *, repeats: int) -> list[Record]:
    """Vectors without structure: the worst case."""
    return _measured(benchmark, "no structure", unit_vectors(images, patches, 384), repeats)


def of_sizes(benchmark: str, images: int, size: int, *, repeats: int) -> list[Record]:
    """How the bounded search grows: a quarter of ``images`` cells of both products against all; the last block."""
    features = Features(replace(DINO, layers=DINO.layers[-1:]), size)
    every = sorted({name for product in cells.PRODUCTS for p in _PROBABILITIES for name in elpv_cells(product, p)})
    found, cases, fraction = dict[str, GroupScores](), dict[str, Callable[[], object]](), FRACTIONS[0]
    sizes = (images // 4, images)
    for n in sizes:
        names = tuple(every[at] for at in np.linspace(0, len(every) - 1, n).round().astype(int))
        cases[str(n)] = partial(_score, features.take(names, DINO.layers[-1:]), found, str(n), "bounded", fraction)
    features.forget()
    seconds = interleaved(cases, repeats, warm_up=False)
    p, d = features.encoder.n_patches, features.encoder.dim
    records = []
    for n in sizes:
        case = f"N={n} P={p} D={d}, nearest {fraction:.0%}"
        figure = partial(Record, benchmark=benchmark, case=case, precision="fp32")
        search, taken = found[str(n)].search, 1e3 * median(seconds[str(n)]) / n
        pairs = search["multiplications"] * (n - 1)
        records += [
            figure(metric="milliseconds per image, bounded", value=taken, unit="ms"),
            figure(metric="multiplied per image, in full products with one other", value=pairs),
            figure(metric="patches searched", value=float(search["searched"])),
        ]
    few, many = sizes
    case, metric = f"N={many} over N={few}", "time per image, bounded"
    value = few / many * ratio(seconds[str(many)], seconds[str(few)])
    return [*records, Record(benchmark=benchmark, case=case, precision="fp32", metric=metric, value=value, unit="x")]


def _measured(
    benchmark: str, name: str, embeddings: np.ndarray, repeats: int, truth: np.ndarray | None = None
) -> list[Record]:
    """Every way takes turns with the full search; that with both fractions in turn: its time depends on neither."""
    n, p, d = embeddings.shape
    found, fractions = dict[str, GroupScores](), cycle(FRACTIONS)
    warm_up = n * p < _LONG
    if repeats + warm_up < len(FRACTIONS):
        raise ValueError(f"`repeats` must be {len(FRACTIONS) - warm_up} at least for N={n} P={p}; got {repeats}")
    ways = ("bounded", "auto", "window") if truth is not None else ("bounded", "auto")

    def full() -> None:
        fraction = next(fractions)
        _score(embeddings, found, _named("symmetric", fraction), "symmetric", fraction)

    cases: dict[str, Callable[[], object]] = {"symmetric": full}
    for fraction in FRACTIONS:
        for way in ways:
            cases[_named(way, fraction)] = partial(_score, embeddings, found, _named(way, fraction), way, fraction)
    if truth is not None:
        floats = torch.from_numpy(embeddings.astype(np.float32))
        cases["cdist"] = partial(cdist_loop, floats, FRACTIONS[-1], queries=_CDIST_QUERIES)
    seconds = interleaved(cases, repeats, warm_up=warm_up)
    records = []
    for fraction in FRACTIONS:
        case = f"{name}, N={n} P={p} D={d}, nearest {fraction:.0%}"
        figure = partial(Record, benchmark=benchmark, case=case, precision="fp32")
        taken = {way: seconds[_named(way, fraction)] for way in ways} | {"symmetric": seconds["symmetric"]}
        scored = {way: found[_named(way, fraction)] for way in (*ways, "symmetric")}
        for way, target in (("bounded", _TARGETS.get((name, n, p))), ("auto", ">= 0.9")):
            speed = ratio(taken["symmetric"], taken[way])
            records.append(figure(metric=f"speed of {way} over symmetric", value=speed, unit="x", target=target))
        records += [figure(metric=metric, value=value, target=bound) for metric, value, bound in _facts(scored)]
        if truth is None:
            continue
        goal = n == 200 and p == 1024
        speed, target = ratio(taken["symmetric"], taken["window"]), ">= 60" if goal else None
        records.append(figure(metric="speed of the window over symmetric", value=speed, unit="x", target=target))
        for way in ("symmetric", "window"):
            scores = scored[way].image_scores
            records.append(figure(metric=f"AUROC, {way}", value=float(roc_auc_score(truth, scores))))
            records.append(figure(metric=f"AP, {way}", value=float(average_precision_score(truth, scores))))
        if fraction == FRACTIONS[-1]:
            metric = f"speed of bounded over the cdist loop, by {_CDIST_QUERIES} of its {n} images"
            speed, target = n / _CDIST_QUERIES * ratio(seconds["cdist"], taken["bounded"]), ">= 25" if goal else None
            records.append(figure(metric=metric, value=speed, unit="x", target=target))
    return records


def _named(way: str, fraction: float) -> str:
    return f"{way}, nearest {fraction:.0%}"


def _score(embeddings: np.ndarray, found: dict[str, GroupScores], name: str, way: str, fraction: float) -> None:
    """Put a group's scores into ``found`` by ``name``; ``way`` is a schedule or the window rule."""
    aggregation = Aggregation(fraction=fraction)
    if way == "window":
        found[name] = _windowed(embeddings, aggregation)
        return
    found[name] = score_group(
        embeddings,
        np.arange(len(embeddings)),
        aggregation=aggregation,
        schedule=way,
        memory_bytes=MEMORY,
        shown=_SHOWN if way == "auto" else None,
    )


def _windowed(embeddings: np.ndarray, aggregation: Aggregation) -> GroupScores:
    """The window rule with r = 1, whether the group lies alike or not: which it does is among the figures."""
    compared = replace(whole_group(embeddings, replace(aggregation, window=1)), memory_bytes=MEMORY)
    scored = score_by_window(compared, anyway=True)
    assert isinstance(scored, BoundedScores)
    images = image_scores(scored.patch_scores, aggregation.image_top_fraction)
    return GroupScores(scored.patch_scores, images, compared.n_references)


def _facts(found: Mapping[str, GroupScores]) -> list[tuple[str, float, str | None]]:
    full, bounded = found["symmetric"], found["bounded"]
    difference = float(np.abs(full.image_scores - bounded.image_scores).max())
    facts: list[tuple[str, float, str | None]] = [("largest difference of an image score", difference, "<= 1e-6")]
    for metric, key in (
        ("patches searched", "searched"),
        ("multiplications, of all pairs", "multiplications"),
        ("offset of the nearest match, cells", "offset"),
    ):
        if key in bounded.search:
            facts.append((metric, float(bounded.search[key]), None))
    return facts

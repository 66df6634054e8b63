"""What do bound and refine and the window rule save? Beside the symmetric full search, on real embeddings and worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

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
from patchead.search.bounded_group import score_by_window
from patchead.search.score import score_group

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


def of_sizes(benchmark: str, images: int, size: int) -> list[Record]:
    """How the bounded search grows: a quarter of ``images`` cells of both products against all; the last block."""
    features = Features(replace(DINO, layers=DINO.layers[-1:]), size)
    every = sorted({name for product in cells.PRODUCTS for p in _PROBABILITIES for name in elpv_cells(product, p)})
    records, taken = [], []
    for n in (images // 4, images):
        names = tuple(every[at] for at in np.linspace(0, len(every) - 1, n).round().astype(int))
        embeddings, found = features.take(names, DINO.layers[-1:]), dict[str, GroupScores]()
        run = _cases(embeddings, Aggregation(fraction=FRACTIONS[0]), found, window=False)["bounded"]
        taken.append(interleaved({"bounded": run}, 1, warm_up=False)["bounded"][0] / n)
        _, p, d = embeddings.shape
        pairs = found["bounded"].search["multiplications"] * (n - 1)
        figure = partial(
            Record, benchmark=benchmark, case=f"N={n} P={p} D={d}, nearest {FRACTIONS[0]:.0%}", precision="fp32"
        )
        records += [
            figure(metric="milliseconds per image, bounded", value=1e3 * taken[-1], unit="ms"),
            figure(metric="multiplied per image, in full products with one other", value=pairs),
            figure(metric="patches searched", value=float(found["bounded"].search["searched"])),
        ]
    case, metric = f"N={images} over N={images // 4}", "time per image, bounded"
    ratio_of = taken[1] / taken[0]
    return [*records, Record(benchmark=benchmark, case=case, precision="fp32", metric=metric, value=ratio_of, unit="x")]


def _measured(
    benchmark: str, name: str, embeddings: np.ndarray, repeats: int, truth: np.ndarray | None = None
) -> list[Record]:
    n, p, d = embeddings.shape
    records = []
    for fraction in FRACTIONS:
        aggregation = Aggregation(fraction=fraction)
        found: dict[str, GroupScores] = {}
        cases = _cases(embeddings, aggregation, found, window=truth is not None)
        if truth is not None and fraction == FRACTIONS[-1]:
            floats = torch.from_numpy(embeddings.astype(np.float32))
            cases["cdist"] = partial(cdist_loop, floats, fraction, queries=_CDIST_QUERIES)
        seconds = interleaved(cases, repeats, warm_up=n * p < _LONG)
        case = f"{name}, N={n} P={p} D={d}, nearest {fraction:.0%}"
        figure = partial(Record, benchmark=benchmark, case=case, precision="fp32")
        speed = ratio(seconds["symmetric"], seconds["bounded"])
        target = _TARGETS.get((name, n, p))
        records.append(figure(metric="speed of bounded over symmetric", value=speed, unit="x", target=target))
        speed = ratio(seconds["symmetric"], seconds["auto"])
        records.append(figure(metric="speed of auto over symmetric", value=speed, unit="x", target=">= 0.9"))
        records += [figure(metric=metric, value=value, target=bound) for metric, value, bound in _facts(found)]
        if "window" in seconds and truth is not None:
            target = ">= 60" if p == 1024 and n == 200 else None
            speed = ratio(seconds["symmetric"], seconds["window"])
            records.append(figure(metric="speed of the window over symmetric", value=speed, unit="x", target=target))
            for rule in ("symmetric", "window"):
                scores = found[rule].image_scores
                records.append(figure(metric=f"AUROC, {rule}", value=float(roc_auc_score(truth, scores))))
                records.append(figure(metric=f"AP, {rule}", value=float(average_precision_score(truth, scores))))
        if "cdist" in seconds:
            speed = n / _CDIST_QUERIES * ratio(seconds["cdist"], seconds["bounded"])
            target = ">= 25" if p == 1024 and n == 200 else None
            records.append(figure(metric="speed of bounded over the cdist loop", value=speed, unit="x", target=target))
    return records


def _cases(
    embeddings: np.ndarray, aggregation: Aggregation, found: dict[str, GroupScores], *, window: bool
) -> dict[str, Callable[[], object]]:
    """Each case puts its scores into ``found``."""
    content = np.arange(len(embeddings))

    def score(name: str, schedule: str, rule: Aggregation, shown: float | None = None) -> None:
        found[name] = score_group(
            embeddings, content, aggregation=rule, schedule=schedule, memory_bytes=MEMORY, shown=shown
        )

    cases: dict[str, Callable[[], object]] = {
        "symmetric": partial(score, "symmetric", "symmetric", aggregation),
        "bounded": partial(score, "bounded", "bounded", aggregation),
        "auto": partial(score, "auto", "auto", aggregation, _SHOWN),
    }
    if window:
        cases["window"] = partial(_windowed, embeddings, aggregation, found)
    return cases


def _windowed(embeddings: np.ndarray, aggregation: Aggregation, found: dict[str, GroupScores]) -> None:
    """The window rule with r = 1, whether the group lies alike or not: which it does is among the figures."""
    compared = replace(whole_group(embeddings, replace(aggregation, window=1)), memory_bytes=MEMORY)
    scored = score_by_window(compared, anyway=True)
    assert scored is not None
    images = image_scores(scored.patch_scores, aggregation.image_top_fraction)
    found["window"] = GroupScores(scored.patch_scores, images, compared.n_references)


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

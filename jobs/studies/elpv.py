"""Solar cells, batch zero-shot: products, rates of defects, layers, sizes and aggregates, each on disjoint splits."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from patchead.scoring.aggregate import Aggregation
from studies import cells
from studies.cells import RATES
from studies.elpv_parts import PARTS, Part, fitted
from studies.elpv_tables import LEFT_OUT, sheets
from studies.features import Features, shared
from studies.findings import Case, Finding, Say
from studies.strips import Sorted, scored, strip

__all__ = ["RULES", "STUDY", "run", "sheets"]

STUDY = "elpv"
NEAREST = tuple((fraction, top) for fraction in (0.05, 0.1, 0.2, 0.3) for top in (0.0, 0.005, 0.01, 0.02))
#: Nearest references as fractions with every image score, and the paper's literal prose.
RULES = (*(Aggregation("nearest", fraction, top) for fraction, top in NEAREST), Aggregation("farthest", 0.3, 0.01))


def run(say: Say, minutes: float = inf) -> list[Finding]:
    """Figures of all parts that fit into ``minutes`` on this processor, a value per split; and what was left out."""
    kept, left_out = [part.settled() for part in PARTS], list[str]()
    if minutes < inf:
        kept, left_out = fitted(kept, minutes)
    for what in left_out:
        say(f"left out, to end within {minutes:.0f} minutes on this processor: {what}")
    findings = [finding for part in kept for finding in run_part(part, say)]
    return findings + [Finding(STUDY, {"what": what}, LEFT_OUT, (1.0,)) for what in left_out]


def run_part(part: Part, say: Say) -> Iterator[Finding]:
    """AUROC and AP of every rule and rate."""
    features = shared(part.model, part.size) if part.keep else Features(part.model, part.size)
    for product, numbers in part.splits.items():
        values: dict[tuple[str, int, Aggregation], list[tuple[float, float]]] = {}
        for number in numbers:
            for key, found in _of_split(part, features, cells.split(product, number)):
                values.setdefault(key, []).append(found)
            say(f"{part.model.label}, {part.size} px: {product}, split {number}")
            if not part.keep:
                features.forget()
        for (layers, rate, aggregation), pairs in values.items():
            case = case_of(part, product, layers, rate, aggregation, numbers)
            for metric, column in zip(("AUROC", "AP"), zip(*pairs, strict=True), strict=True):
                yield Finding(STUDY, dict(case), metric, column)


def case_of(
    part: Part, product: str, layers: str, rate: int, aggregation: Aggregation, splits: tuple[int, ...]
) -> Case:
    """How one figure is named."""
    return {
        "encoder": part.model.label,
        "px": part.size,
        "layers": layers,
        "product": product,
        "splits": " ".join(map(str, splits)),
        "rate": rate,
        "aggregate": aggregation.aggregate,
        "fraction": aggregation.fraction,
        "top": aggregation.image_top_fraction,
        "arithmetic": f"{part.model.dtype} encoder, {part.precision} scores",
    }


def _of_split(
    part: Part, features: Features, split: cells.Split
) -> Iterator[tuple[tuple[str, int, Aggregation], tuple[float, float]]]:
    """AUROC and AP of every layer choice, rate and rule; one strip of distances per layer choice."""
    for layers, chosen in part.layers.items():
        distances = strip(features.take(split.names(part.rate), chosen), part.precision)
        for rate in (rate for rate in RATES if rate <= part.rate):
            truth = split.truth(rate)
            ordered = Sorted.of(distances, np.arange(len(truth)))
            for aggregation, scores in scored(ordered, RULES):
                found = roc_auc_score(truth, scores), average_precision_score(truth, scores)
                yield (layers, rate, aggregation), (float(found[0]), float(found[1]))

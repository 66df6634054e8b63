"""Solar cells, batch zero-shot: products, rates of defects, layers, sizes and aggregates, each on disjoint splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from patchead.scoring.aggregate import Aggregation
from studies import cells
from studies.cells import CHOOSING, RATES, SPLITS
from studies.elpv_tables import sheets
from studies.features import DINO, DINO_BF16, LITE, RANDOM, Features, Model, shared
from studies.findings import Case, Finding, Say
from studies.strips import Sorted, scored, strip

__all__ = ["RULES", "STUDY", "run", "sheets"]

STUDY = "elpv"
LAYERS: dict[str, tuple[int, ...]] = {"last": (), "6+12": (6, 12), "6+9+12": (6, 9, 12)}
NEAREST = tuple((fraction, top) for fraction in (0.05, 0.1, 0.2, 0.3) for top in (0.0, 0.005, 0.01, 0.02))
#: Nearest references as fractions with every image score, and the paper's literal prose.
RULES = (*(Aggregation("nearest", fraction, top) for fraction, top in NEAREST), Aggregation("farthest", 0.3, 0.01))


@dataclass(frozen=True, kw_only=True)
class Part:
    """A share of the study: one encoder at one size on some splits of each product.

    ``rate`` is the highest rate of defects, the lower ones come with it; ``keep`` leaves the embeddings to the other
    studies that use this encoder at this size.
    """

    model: Model
    size: int
    layers: dict[str, tuple[int, ...]]
    splits: Mapping[str, tuple[int, ...]]
    precision: str = "fp32"
    rate: int = max(RATES)
    keep: bool = False


FEWER = {"mono": SPLITS[:1], "poly": SPLITS}
THREE = {"6+9+12": LAYERS["6+9+12"]}
LAST_AND_THREE = {"last": LAYERS["last"], **THREE}
# What takes long is done on fewer splits, at 448 px also in cheaper arithmetic; the tables say so.
PARTS = (
    Part(model=DINO, size=224, layers=LAYERS, splits={"poly": SPLITS}, keep=True),
    Part(model=DINO_BF16, size=224, layers=LAYERS, splits={"mono": SPLITS}, precision="int8", keep=True),
    Part(model=DINO_BF16, size=224, layers=LAYERS, splits={"poly": CHOOSING["poly"]}, precision="int8", rate=10),
    Part(model=RANDOM, size=224, layers=LAST_AND_THREE, splits=FEWER, precision="int8", rate=10),
    Part(model=LITE, size=224, layers={"levels 3+4": LITE.layers}, splits=FEWER, precision="int8", rate=10),
    Part(model=DINO_BF16, size=448, layers=LAST_AND_THREE, splits={"poly": SPLITS}, precision="int8", rate=10),
    Part(model=DINO_BF16, size=448, layers=THREE, splits={"mono": SPLITS[:1]}, precision="int8", rate=10),
    Part(model=DINO_BF16, size=448, layers=THREE, splits={"poly": CHOOSING["poly"][:1]}, precision="int8", rate=10),
)


def run(say: Say) -> list[Finding]:
    """All parts; a value per split."""
    return [finding for part in PARTS for finding in run_part(part, say)]


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
        "arithmetic": f"{part.model.dtype} encoder, {part.precision} products",
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

"""The parts of the study on solar cells, how long each takes on this processor, and what is left out for time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch

from patchead.encoders import describe
from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.precision_probe import probe
from patchead.scoring.race import race
from patchead.settings.resolve import settled_precision
from studies.cells import CHOOSING, GOOD, RATES, SPLITS
from studies.features import DINO, DINO_AUTO, LITE, RANDOM, Model
from studies.strips import strip

LAYERS: dict[str, tuple[int, ...]] = {"last": (), "6+12": (6, 12), "6+9+12": (6, 9, 12)}
FEWER = {"mono": SPLITS[:1], "poly": SPLITS}
THREE = {"6+9+12": LAYERS["6+9+12"]}
LAST_AND_THREE = {"last": LAYERS["last"], **THREE}
_LARGE = 448


@dataclass(frozen=True, kw_only=True)
class Part:
    """A share of the study: one encoder at one size on some splits of each product.

    ``rate`` is the highest rate of defects, the lower ones come with it; ``keep`` leaves the embeddings to the other
    studies that use this encoder at this size. ``auto`` is the arithmetic that this processor is fastest in.
    """

    model: Model
    size: int
    layers: Mapping[str, tuple[int, ...]]
    splits: Mapping[str, tuple[int, ...]]
    precision: str = "fp32"
    rate: int = max(RATES)
    keep: bool = False

    def settled(self) -> Part:
        """The part with no ``auto`` in it."""
        precision = settled_precision(self.precision, "cpu")
        return replace(self, model=self.model.settled(self.size), precision=precision)

    def without(self, product: str, splits: Sequence[int]) -> Part | None:
        """The part without some splits; None where nothing is left."""
        kept = {name: tuple(set(of) - set(splits)) if name == product else of for name, of in self.splits.items()}
        kept = {name: tuple(sorted(of)) for name, of in kept.items() if of}
        return replace(self, splits=kept) if kept else None


#: What takes long is done on fewer splits and in what this processor is fastest in; the tables say so.
PARTS = (
    Part(model=DINO, size=224, layers=LAYERS, splits={"poly": SPLITS}, keep=True),
    Part(model=DINO_AUTO, size=224, layers=LAYERS, splits={"mono": SPLITS}, precision="auto", keep=True),
    Part(model=DINO_AUTO, size=224, layers=LAYERS, splits={"poly": CHOOSING["poly"]}, precision="auto", rate=10),
    Part(model=RANDOM, size=224, layers=LAST_AND_THREE, splits=FEWER, precision="auto", rate=10),
    Part(model=LITE, size=224, layers={"levels 3+4": LITE.layers}, splits=FEWER, precision="auto", rate=10),
    Part(model=DINO_AUTO, size=_LARGE, layers=LAST_AND_THREE, splits={"poly": SPLITS}, precision="auto", rate=10),
    Part(model=DINO_AUTO, size=_LARGE, layers=THREE, splits={"mono": SPLITS[:1]}, precision="auto", rate=10),
    Part(model=DINO_AUTO, size=_LARGE, layers=THREE, splits={"poly": CHOOSING["poly"][:1]}, precision="auto", rate=10),
)

Reduction = Callable[[Part], Part | None]


def _large_last(part: Part) -> Part:
    return replace(part, layers=THREE) if part.size == _LARGE else part


def _large_choosing(part: Part) -> Part | None:
    return part.without("poly", CHOOSING["poly"]) if part.size == _LARGE else part


def _baselines(part: Part) -> Part | None:
    return part.without("poly", SPLITS[1:]) if part.model.label in (RANDOM.label, LITE.label) else part


def _choosing(part: Part) -> Part | None:
    return part.without("poly", CHOOSING["poly"])


def _large_splits(part: Part) -> Part | None:
    return part.without("poly", SPLITS[1:]) if part.size == _LARGE else part


def _large(part: Part) -> Part | None:
    return None if part.size == _LARGE else part


#: What is left out for time, the first thing first: the figures that the fewest statements rest on.
REDUCTIONS: tuple[tuple[str, Reduction], ...] = (
    (f"the last layer at {_LARGE} px", _large_last),
    (f"the other poly cells at {_LARGE} px", _large_choosing),
    ("poly splits 1 and 2 of random weights and of the CNN", _baselines),
    ("the other poly cells at 224 px", _choosing),
    (f"poly splits 1 and 2 at {_LARGE} px", _large_splits),
    (f"{_LARGE} px", _large),
)


def fitted(
    parts: Sequence[Part], minutes: float, seconds: Callable[[Part], float] | None = None
) -> tuple[list[Part], list[str]]:
    """Apply `REDUCTIONS`, one after the other, until what is left is estimated to end in time.

    Args:
        parts: settled.
        minutes: the limit.
        seconds: of one part; default: `seconds_of`.

    Returns:
        The parts to run, and what was left out, in words.
    """
    kept, left_out = list(parts), []
    for what, reduce in REDUCTIONS:
        if sum(map(seconds or seconds_of, kept)) <= 60 * minutes:
            break
        reduced = [less for part in kept if (less := reduce(part)) is not None]
        if reduced != kept:
            left_out.append(what)
        kept = reduced
    return kept, left_out


def seconds_of(part: Part) -> float:
    """Estimate how long a part takes with all threads: embedding, and the distances of every pair of images.

    Both are counted in what this processor did of the same in a moment; ordering the distances comes on top.
    """
    threads, spec = torch.get_num_threads(), part.model.spec(part.size)
    n, splits = GOOD + RATES[part.rate], sum(map(len, part.splits.values()))
    shapes = [describe(replace(spec, layers=layers)) for layers in part.layers.values()]
    work = sum(n**2 * shape.n_patches**2 * shape.dim for shape in shapes)
    values = sum(n**2 * shape.n_patches for shape in shapes)
    cores = n * embedding_seconds(part.model, part.size) + work * scoring_seconds(part.precision) + values * _ORDERING
    return splits * cores / threads


_ORDERING = 4e-8  # seconds of a core per distance: sorted for each rate of defects, and averaged for each rule


@lru_cache(maxsize=8)
def embedding_seconds(model: Model, size: int) -> float:
    """Seconds of one core for an image, of a settled model."""
    encoder = replace(model, weights="random").build(size)
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    return _on_one_core(partial(encoder.embed, image))


@lru_cache(maxsize=8)
def scoring_seconds(precision: str) -> float:
    """Seconds of one core per pair of patches and dimension, both directions of a pair of images at once."""
    if precision != "fp32":
        return scoring_seconds("fp32") / probe(candidates=(precision,))[precision]
    n, patches, dim = 12, 256, 1152
    return _on_one_core(partial(strip, unit_vectors(n, patches, dim))) / (n**2 * patches**2 * dim)


def _on_one_core(run: Callable[[], object]) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return race({"": run}, 2)[""]
    finally:
        torch.set_num_threads(threads)

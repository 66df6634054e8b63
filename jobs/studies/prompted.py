"""Draws of prompts and of other photos: few-shot scores by the first k prompts, and the prompts' own, leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from patchead.scoring.aggregate import image_scores
from studies.cells import PRODUCTS
from studies.lots import GOOD, LOTS, SIZE, embedded
from studies.strips import strip, strip_to

MOST = 16
DRAWS = 10
#: Photos of a draw that are scored: good ones, and at most as many defective ones.
ASKED = 50
#: Two products, and a texture as a third.
NAMES = (*PRODUCTS, "grass")
_TOP = 0.01


@dataclass(frozen=True)
class Draw:
    """Distances of n photos to 16 prompts, float32 (n, 16, P), and among the prompts, (16, 16, P); truth, bool (n,)."""

    to_prompts: np.ndarray
    among: np.ndarray
    truth: np.ndarray

    def scores(self, k: int) -> np.ndarray:
        """Image scores of the n photos by the first k prompts, float64 (n,): the nearest prompt patch of all."""
        return image_scores(self.to_prompts[:, :k].min(axis=1), _TOP)

    def null_scores(self, k: int) -> np.ndarray:
        """Image scores of the first k prompts, each by the k - 1 others: float64 (k,)."""
        among = self.among[:k, :k].copy()
        among[np.arange(k), np.arange(k)] = np.inf
        return image_scores(among.min(axis=1), _TOP)


Places = list[tuple[int, int]]
#: Where the good photos of a draw come from: prompts and others from one lot, from all lots, or from different ones.
ONE, ALL, APART = "one block", "all blocks", "prompts of other blocks"


def places(name: str, draw: int, source: str, px: int = SIZE) -> tuple[Places, Places, Places]:
    """(lot, position) of the 16 prompts, of the good and of the defective photos of a draw.

    Prompts and good photos are drawn from ``ONE`` lot, the lots taking turns, or from ``ALL``. ``APART``: the good ones
    are neighbours in one lot, the prompts are of the others. Defective photos are of any lot.
    """
    rng = np.random.default_rng([draw, *source.encode(), *name.encode()])
    own, count = draw % LOTS[name], GOOD[name]
    good = [(lot, at) for lot in range(LOTS[name]) for at in range(count)]
    bad = [(lot, at) for lot in range(LOTS[name]) for at in range(count, len(embedded(name, lot, px)))]
    good, bad = ([of[i] for i in rng.permutation(len(of))] for of in (good, bad))
    if source == APART:
        first = int(rng.integers(count - ASKED))
        prompts = [place for place in good if place[0] != own]
        return prompts[:MOST], [(own, first + i) for i in range(ASKED)], bad[:ASKED]
    if source == ONE:
        good = [place for place in good if place[0] == own]
    return good[:MOST], good[MOST : MOST + ASKED], bad[:ASKED]


@lru_cache(maxsize=3 * len(NAMES) * DRAWS)
def draw_of(name: str, draw: int, precision: str, source: str = ALL, px: int = SIZE) -> Draw:
    """The ``draw``-th of a product or texture; the same for every study that asks."""
    prompts, good, defective = places(name, draw, source, px)
    references, queries = (
        np.stack([embedded(name, lot, px)[at] for lot, at in chosen]) for chosen in (prompts, good + defective)
    )
    truth = np.arange(len(queries)) >= len(good)
    return Draw(strip_to(queries, references, precision), strip(references, precision), truth)

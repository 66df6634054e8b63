"""Draws of prompts and of other photos: few-shot scores by the first k prompts, and the prompts' own, leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from patchead.scoring.aggregate import image_scores
from studies.cells import PRODUCTS
from studies.lots import GOOD, LOTS, embedded
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


def places(name: str, draw: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]:
    """(lot, position) of the 16 prompts, of the good and of the defective photos of a draw.

    The good ones are neighbours in one lot, the lots taking turns; prompts are good photos of the other lots, and the
    defective ones are of any.
    """
    rng = np.random.default_rng([draw, *name.encode()])
    own, good = draw % LOTS[name], GOOD[name]
    others = [(lot, at) for lot in range(LOTS[name]) if lot != own for at in range(good)]
    defective = [(lot, at) for lot in range(LOTS[name]) for at in range(good, len(embedded(name, lot)))]
    first = int(rng.integers(good - ASKED))
    return (
        [others[i] for i in rng.permutation(len(others))[:MOST]],
        [(own, first + i) for i in range(ASKED)],
        [defective[i] for i in rng.permutation(len(defective))[:ASKED]],
    )


@lru_cache(maxsize=len(NAMES) * DRAWS)
def draw_of(name: str, draw: int, precision: str) -> Draw:
    """The ``draw``-th of a product or texture; the same for every study that asks."""
    prompts, good, defective = places(name, draw)
    references, queries = (
        np.stack([embedded(name, lot)[at] for lot, at in chosen]) for chosen in (prompts, good + defective)
    )
    truth = np.arange(len(queries)) >= len(good)
    return Draw(strip_to(queries, references, precision), strip(references, precision), truth)

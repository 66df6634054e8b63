"""Names by example: the types whose named regions are near enough to a region, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from patchead.errors import SettingsError
from patchead.naming.families import cosine_distances
from patchead.naming.named import UNKNOWN, Named
from patchead.scoring.conformal import conformal_p_values, scores_needed

NEAREST = 3
"""Examples of a type whose mean distance counts; fewer where it has fewer."""
_TEMPERATURES = np.geomspace(0.01, 1, 21)
_LEAST_DEVIATION = 0.03
"""Of distances taken for normal: examples of one night may be nearer to each other than to those of the next."""
_USUAL = 0.1  # temperature where the examples cannot tell


@dataclass(frozen=True)
class Examples:
    """Hold regions that people have named."""

    vectors: np.ndarray
    """float32 (n, D), of length 1."""
    types: Sequence[str]
    """(n,), the type of each."""
    encoder_id: str
    """Of the vectors: those of another encoder mean something else."""

    @cached_property
    def names(self) -> list[str]:
        """List the types, each once, by name."""
        return sorted(set(self.types))

    @cached_property
    def number(self) -> np.ndarray:
        """Give the type of each example, as a place in `names`: int64 (n,)."""
        return np.array([self.names.index(name) for name in self.types], np.int64)

    @cached_property
    def own_distances(self) -> np.ndarray:
        """Give the distance of each example to each type without itself: float64 (n, T), NaN to a type of its own."""
        apart = cosine_distances(self.vectors, self.vectors)
        np.fill_diagonal(apart, np.nan)
        return _of_types(apart, self.number, len(self.names))


def name_regions(
    vectors: np.ndarray, examples: Examples, *, encoder_id: str, level: float, distance: float
) -> list[Named]:
    """Name regions by the nearest examples (method.md §13).

    A type's distance is the mean over its `NEAREST` nearest examples. It is offered where its p-value is above
    ``level``; of the types on offer the nearest is taken, and where there is none the region is `UNKNOWN`.

    Args:
        vectors: float32 (R, D), from `region_vectors`, any number of regions.
        examples: at least one.
        encoder_id: of the vectors.
        level: share of a type's regions that may be called unknown.
        distance: up to which a region is of a type where there are too few examples to tell (see `p_values`).

    Raises:
        SettingsError: the examples are of another encoder.
    """
    if examples.encoder_id != encoder_id:
        raise SettingsError(
            f"the examples are of encoder {examples.encoder_id}, the regions of {encoder_id}: their vectors cannot be "
            "compared. Name regions of a night of this encoder, or score with the one that the examples are of."
        )
    apart = _of_types(cosine_distances(vectors, examples.vectors), examples.number, len(examples.names))
    found, sure = p_values(apart, examples, level=level, distance=distance), confidences(apart, examples)
    return [_named(examples.names, *of, level) for of in zip(apart, found, sure, strict=True)]


def p_values(apart: np.ndarray, examples: Examples, *, level: float, distance: float) -> np.ndarray:
    """Compute how often a region of each type is as far from it: float64 (R, T) (method.md §13).

    Conformal, against the type's own leave-one-out distances, where it has as many as ``level`` needs. With fewer, at
    least two, they are taken for normal, with their own mean and the standard deviation of all types about their means,
    at least `_LEAST_DEVIATION` (a prediction interval, method.md §7.3); a type with one example takes the mean of the
    others. Where no type has two examples, 1 within ``distance`` and 0 beyond.

    Args:
        apart: float (R, T), distances of regions to types.
        examples: of these types.
        level: the smallest p-value that is asked for.
        distance: cosine distance.
    """
    own = [_known(examples.own_distances[examples.number == t, t]) for t in range(len(examples.names))]
    several = [of for of in own if len(of) >= 2]
    freedom = sum(len(of) - 1 for of in several)
    found = np.where(apart <= distance, 1.0, 0.0)
    squares = sum(float(((of - of.mean()) ** 2).sum()) for of in several)
    for number, of in enumerate(own):
        if len(of) >= scores_needed(level):
            found[:, number] = conformal_p_values(apart[:, number], of)
        elif freedom:
            fitted = of if len(of) >= 2 else np.concatenate(several)
            deviation = max(float(np.sqrt(squares / freedom)), _LEAST_DEVIATION)
            found[:, number] = _beyond(apart[:, number], fitted, deviation, freedom)
    return found


def confidences(apart: np.ndarray, examples: Examples) -> np.ndarray:
    """Compute the share of each type in a region's likelihood: float64 (R, T), summing to 1.

    Softmax of the negative distances; its temperature is the one at which the examples, each left out in turn, are
    most likely of their own types.
    """
    own = examples.own_distances
    complete = ~np.isnan(own).any(axis=1)
    if len(examples.names) < 2 or not complete.any():
        return _softmax(apart, _USUAL)
    rows, truth = own[complete], examples.number[complete]
    losses = [-np.log(_softmax(rows, t)[np.arange(len(rows)), truth] + 1e-12).mean() for t in _TEMPERATURES]
    return _softmax(apart, float(_TEMPERATURES[int(np.argmin(losses))]))


def _named(names: Sequence[str], apart: np.ndarray, p: np.ndarray, sure: np.ndarray, level: float) -> Named:
    order = np.argsort(apart, kind="stable")
    offered = [number for number in order if p[number] > level]
    best = int(offered[0] if offered else order[0])
    second = next((names[number] for number in order if number != best), None)
    return Named(
        defect_type=names[best] if offered else UNKNOWN,
        confidence=float(sure[best]),
        p=float(p[best]),
        runner_up=second if offered else names[best],
        source="example",
    )


def _of_types(apart: np.ndarray, number: np.ndarray, types: int) -> np.ndarray:
    """Mean distance to the nearest examples of each type, float64 (R, T); of those that are NaN none counts."""
    found = np.full((len(apart), types), np.nan)
    for t in range(types):
        ordered = np.sort(apart[:, number == t], axis=1)[:, :NEAREST]  # NaN comes last
        known = ~np.isnan(ordered)
        sums = np.where(known, ordered, 0).sum(axis=1)
        np.divide(sums, known.sum(axis=1), out=found[:, t], where=known.any(axis=1))
    return found


def _beyond(values: np.ndarray, fitted: np.ndarray, deviation: float, freedom: int) -> np.ndarray:
    from scipy.special import stdtr

    t = (values - fitted.mean()) / (deviation * np.sqrt(1 + 1 / len(fitted)))
    return 1 - stdtr(freedom, t)


def _softmax(apart: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp(-(apart - apart.min(axis=1, keepdims=True)) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]

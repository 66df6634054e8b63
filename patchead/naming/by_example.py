"""Names by example: the types whose named regions are near enough to a region, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from patchead.errors import SettingsError
from patchead.naming.families import MOST, cosine_distances
from patchead.naming.joins import Joins, drawn_to_neighbours, join, less_common
from patchead.naming.named import UNKNOWN, Named
from patchead.scoring.conformal import conformal_p_values

NEAREST = 3
"""Examples of a type whose mean distance counts; fewer where it has fewer."""
MOST_EXAMPLES = MOST // 2
REACH = 0.7
"""Mean cosine distance between clusters beyond which a region is not of a type that has one example (see `reaches`)."""
TOLD = 10
"""Examples of a type from which on further ones bring its regions no nearer."""
_TEMPERATURES = np.geomspace(0.01, 1, 21)
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
    """Name a night's regions by the nearest examples, all that are alike at once (method.md §13).

    What all have in common is taken from the vectors, and each is drawn to its neighbours. Regions that are nearer to
    each other than to any example get one name: of the type with the least distance, which is the mean over a type's
    `NEAREST` nearest examples, and over the regions. It is offered where their p-value is above ``level``; where it is
    not, they are `UNKNOWN`.

    Args:
        vectors: float32 (R, D), from `region_vectors`: all regions of a product and night.
        examples: at least one; more than `MOST_EXAMPLES` are thinned out, type by type.
        encoder_id: of the vectors.
        level: share of the named types' regions that may be called unknown.
        distance: up to which regions are of one family (see `less_common`).

    Raises:
        SettingsError: the examples are of another encoder.
    """
    if examples.encoder_id != encoder_id:
        raise SettingsError(
            f"the examples are of encoder {examples.encoder_id}, the regions of {encoder_id}: their vectors cannot be "
            "compared. Name regions of a night of this encoder, or score with the one that the examples are of."
        )
    if not len(vectors):
        return []
    kept = thinned(examples, MOST_EXAMPLES)
    apart = drawn_to_neighbours(less_common(np.concatenate([vectors, kept.vectors]), distance))
    regions, kept = apart[: len(vectors)], Examples(apart[len(vectors) :], kept.types, encoder_id)
    joins = join(regions, kept.vectors)
    distances = _of_types(cosine_distances(regions, kept.vectors), kept.number, len(kept.names))
    distances = _means(distances, joins.group)
    found, sure = p_values(joins, distances.argmin(axis=1), kept), confidences(distances, kept)
    return [_named(kept.names, *of, level) for of in zip(distances, found, sure, strict=True)]


def p_values(joins: Joins, nearest: np.ndarray, examples: Examples) -> np.ndarray:
    """Compute how often a region of a named type is as far from all examples: float64 (R,) (method.md §13).

    Conformal, against the examples of types that have several, each as if it had no name; 1 where none has. 0 beyond
    the reach of the nearest type: regions of two types may be as near as that.

    Args:
        joins: of R regions and the examples.
        nearest: int (R,), the type of each that is nearest, as a place in `names`.
        examples: of these types.
    """
    counts = np.bincount(examples.number)
    own = joins.own[counts[examples.number] >= 2]
    found = conformal_p_values(joins.height, own) if len(own) else np.ones(len(joins.height))
    return np.where(joins.height <= reaches(counts)[nearest], found, 0.0)


def reaches(counts: np.ndarray) -> np.ndarray:
    """Say how far the clusters of a type's regions may be from its examples, by how many it has: float64 (T,).

    The more looks of a type are told, the nearer its regions are to one of them, and the nearer is what is new:
    `REACH` / cube root of the examples, of which at most `TOLD` count. Chosen by new kinds of defects (method.md §13).
    """
    return REACH / np.cbrt(np.clip(counts, 1, TOLD))


def thinned(examples: Examples, most: int) -> Examples:
    """Keep at most ``most`` examples, as many of each type as there is room for, evenly over their vectors' order."""
    counts = np.bincount(examples.number)
    each = next(of for of in range(int(counts.max()), 0, -1) if of == 1 or np.minimum(counts, of).sum() <= most)
    order = np.lexsort((*examples.vectors.T[::-1], examples.number))
    kept = []
    for number, count in enumerate(counts.tolist()):
        own = order[examples.number[order] == number]
        kept.append(own[np.linspace(0, count - 1, min(count, each)).round().astype(np.int64)])
    places = np.concatenate(kept)
    return Examples(examples.vectors[places], [examples.types[place] for place in places], examples.encoder_id)


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


def _named(names: Sequence[str], apart: np.ndarray, p: float, sure: np.ndarray, level: float) -> Named:
    order = np.argsort(apart, kind="stable").tolist()
    best, second = order[0], names[order[1]] if len(order) > 1 else None
    offered = p > level
    return Named(
        defect_type=names[best] if offered else UNKNOWN,
        confidence=float(sure[best]),
        p=float(p),
        runner_up=second if offered else names[best],
        source="example",
    )


def _means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Give each row the mean of its group's: float64 (R, T)."""
    sums = np.zeros((int(group.max()) + 1, values.shape[1]))
    order = np.lexsort((*values.T, group))  # the same sums in whatever order they come
    np.add.at(sums, group[order], values[order])
    return (sums / np.bincount(group)[:, None])[group]


def _of_types(apart: np.ndarray, number: np.ndarray, types: int) -> np.ndarray:
    """Mean distance to the nearest examples of each type, float64 (R, T); of those that are NaN none counts."""
    found = np.full((len(apart), types), np.nan)
    for t in range(types):
        ordered = np.sort(apart[:, number == t], axis=1)[:, :NEAREST]  # NaN comes last
        known = ~np.isnan(ordered)
        sums = np.where(known, ordered, 0).sum(axis=1)
        np.divide(sums, known.sum(axis=1), out=found[:, t], where=known.any(axis=1))
    return found


def _softmax(apart: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp(-(apart - apart.min(axis=1, keepdims=True)) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)

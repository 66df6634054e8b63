"""From distances to scores: which images count as references, the mean over them, image score and rank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np

from patchead.batches import slices
from patchead.errors import SettingsError, bad_argument

AGGREGATES = ("nearest", "farthest")
NO_REFERENCE = "no reference: every image it may be compared with has the same content or shows the same part"
_SMALLEST_FRACTION = 1e-9  # K = max(1, floor(that of the references)) is 1

Index = slice | np.ndarray


@dataclass(frozen=True)
class Aggregation:
    """Say how distances become scores. Raises `SettingsError` for a value that has no meaning.

    Examples:
        >>> Aggregation("farthest", fraction=0.1)
        Aggregation(aggregate='farthest', fraction=0.1, image_top_fraction=0.01, repeats=False, window=None,
                    position_level=False)
    """

    aggregate: Literal["nearest", "farthest"] = "nearest"
    """Mean of the K nearest, or of the K farthest, references."""
    fraction: float = 0.3
    """K as a fraction of the references."""
    image_top_fraction: float = 0.01
    """Image score: mean of this fraction of the largest patch scores; 0 is the single maximum."""
    repeats: bool = False
    """Look for defects that images share, and score those images without each other (method.md §9.2)."""

    window: int | Literal["auto"] | None = None
    """Compare a patch only with those within so many cells of its own place (method.md §11); auto: within 1 where the
    group lies alike. None: with all."""
    position_level: bool = False
    """Score a patch by what it exceeds the level of its place in the group by (method.md §9.1)."""

    def __post_init__(self) -> None:
        if self.window is not None and self.window != "auto" and not self.window >= 0:
            raise SettingsError(bad_argument("window", self.window, "off, auto, or a number of cells from 0"))
        if self.aggregate not in AGGREGATES:
            raise SettingsError(bad_argument("aggregate", self.aggregate, f"one of {', '.join(AGGREGATES)}"))
        if not 0 < self.fraction <= 1:
            raise SettingsError(bad_argument("fraction", self.fraction, "above 0 and at most 1"))
        if not 0 <= self.image_top_fraction <= 1:
            raise SettingsError(bad_argument("image_top_fraction", self.image_top_fraction, "from 0 to 1"))

    def few_shot(self) -> Aggregation:
        """Make the aggregation of few-shot mode: K = 1, the nearest prompt of all (method.md §3)."""
        return replace(self, aggregate="nearest", fraction=_SMALLEST_FRACTION, repeats=False, position_level=False)

    @property
    def finds_repeats(self) -> bool:
        """Tell whether repeats are looked for: not among the farthest references, nor within a window."""
        return self.repeats and self.aggregate == "nearest" and self.window is None

    @property
    def why_every_patch(self) -> str:
        """Say why no patch may be left out of the search; empty where some may."""
        if self.finds_repeats:
            return "repeats need every patch"
        return "the position level needs every patch" if self.position_level else ""


def reference_mask(content: np.ndarray, part: np.ndarray, rows: Index, columns: Index) -> np.ndarray:
    """Tell which images may be references of which: bool (queries, columns) (method.md §3).

    Not the image itself, none with the same content, none of the same part.

    Args:
        content: int64 (N,), equal where the files are equal.
        part: int64 (N,), the physical part; -1 where none is known. Or (N, C): C kinds of parts, see
            `repeats.parts_and_repeats`.
        rows, columns: positions in the group, as a slice or an index array.
    """
    position = np.arange(len(content))
    same = position[rows][:, None] == position[columns]
    same |= content[rows][:, None] == content[columns]
    for label in part.reshape(len(part), -1).T:
        same |= (label[rows][:, None] == label[columns]) & (label[columns] >= 0)
    return ~same


def count_references(content: np.ndarray, part: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """Count the references of each image among ``columns`` (default: the whole group): int32 (N,)."""
    chosen: Index = slice(None) if columns is None else columns
    counts = np.empty(len(content), np.int32)
    for rows in slices(len(content), 256):
        counts[rows] = reference_mask(content, part, rows, chosen).sum(axis=1)
    return counts


def neighbours(n_references: np.ndarray | int, fraction: float) -> np.ndarray:
    """Count K = max(1, floor(fraction · N_ref)) as int64, for each N_ref (method.md §3; MuSc's count without its 0).

    The fraction is taken as the decimal that was written: 0.29 of 100 is 29, which floats make 28.

    Raises:
        SettingsError: the fraction is not in (0, 1].

    Examples:
        >>> neighbours(np.array([2, 100]), 0.29).tolist()
        [1, 29]
    """
    if not 0 < fraction <= 1:
        raise SettingsError(bad_argument("fraction", fraction, "above 0 and at most 1"))
    exact = Fraction(repr(float(fraction)))
    counts = np.atleast_1d(n_references)
    floors = [max(1, int(n) * exact.numerator // exact.denominator) for n in counts]
    return np.array(floors, np.int64).reshape(np.shape(n_references))


def top_count(n_patches: int, top_fraction: float) -> int:
    """Count M = max(1, floor(top_fraction · P)), the patches that an image score is the mean of (method.md §4).

    Raises:
        SettingsError: the fraction is not in [0, 1].
    """
    if not 0 <= top_fraction <= 1:
        raise SettingsError(bad_argument("top_fraction", top_fraction, "from 0 to 1"))
    return int(neighbours(n_patches, top_fraction)) if top_fraction > 0 else 1


def image_scores(patch_scores: np.ndarray, top_fraction: float) -> np.ndarray:
    """Average each row's M = max(1, floor(top_fraction · P)) largest: (N, P) → float64 (N,) (method.md §4).

    0 means the single maximum (PatchEAD §3.1, eq. 4). A row with NaN gives NaN.

    Raises:
        SettingsError: the fraction is not in [0, 1].

    Examples:
        >>> patches = np.array([[0.1, 0.2, 0.3, 0.8]])
        >>> image_scores(patches, 0.0).tolist(), image_scores(patches, 0.5).tolist()
        ([0.8], [0.55])
    """
    n_patches = patch_scores.shape[1]
    m = top_count(n_patches, top_fraction)
    largest = np.partition(patch_scores, n_patches - m, axis=1)[:, n_patches - m :]
    return largest.mean(axis=1, dtype=np.float64)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank scores: int32 (N,), 1 the highest, equal ones in order of position. A NaN has rank 0 and uses none up."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")  # NaN last
    out = np.zeros(len(order), np.int32)
    counted = len(order) - int(np.isnan(scores).sum())
    out[order[:counted]] = np.arange(1, counted + 1)
    return out


def placed(values: np.ndarray, where: np.ndarray, elsewhere: float = 0) -> np.ndarray:
    """Put values (n, …) at the n places of ``where``, bool (N,), and ``elsewhere`` at the others: (N, …).

    Examples:
        >>> placed(np.array([0.5, 0.7]), np.array([True, False, True])).tolist()
        [0.5, 0.0, 0.7]
    """
    out = np.full((len(where), *values.shape[1:]), elsewhere, values.dtype)
    out[where] = values
    return out

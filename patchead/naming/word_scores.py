"""Names by words: how much more a region's patches look like a type's words than the same place of good images does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.naming.text_bank import TextBank

LEAST_PLACES = 64
"""Unflagged images that show how a place scores where nothing is wrong, at least (method.md §14)."""
TOP_SHARE = 0.25
LEVEL = 0.05
LEAST_CONFIDENCE = 0.5
TEMPERATURE = 1.0
_TO_SIGMA = 1.4826  # of a normal distribution: its standard deviation in median absolute deviations
LEAST_DEVIATION = 1e-6
"""Of the scores of a place, in cosines: less is rounding."""


@dataclass(frozen=True)
class PlaceScores:
    """Hold what one place scores for each word, and the patches that it comes from."""

    scores: np.ndarray
    """float64 (K + U,): s_k of types, then of nuisances."""
    top: np.ndarray
    """int (K + U, n): A_k, places of the patches that were counted, the highest contrast first."""
    contrasts: np.ndarray
    """float64 (K + U, n): theirs."""


@dataclass(frozen=True)
class WordNames:
    """Hold what the words say of one region; arrays are in the bank's order of types."""

    name: str | None
    """The type; None: unknown."""
    best: int
    """Place of the type that is highest, whether it is the name or not."""
    confidence: np.ndarray
    """float64 (K,): softmax of the corrected scores."""
    corrected: np.ndarray
    """float64 (K + U,): u_k of types, then of nuisances: robust deviations above the same place of good images."""
    p_value: float
    """Of nothing being there: share of places that score as high, p₀."""
    why_unknown: str = ""
    """In words; empty where there is a name."""


def place_scores(patches: np.ndarray, bank: TextBank, inside: np.ndarray) -> PlaceScores:
    """Score one place for every word (method.md §14; FocusPatch AD, TIP 2026).

    c[k, p] is the cosine of a patch with t_k less that with t_0, and s_k the mean of the top quarter of them, of at
    least one patch; of equal ones the first counts.

    Args:
        patches: float (layers, n, E), unit vectors of the n patches of all crops; the mean over layers counts.
        bank: the words.
        inside: bool (n,), the patches that the region's box touches; one at least.
    """
    places = np.flatnonzero(inside)
    vectors = np.asarray(patches, np.float64)[:, places]
    contrasts = (vectors @ bank.contrast_vectors.T).mean(axis=0).T
    count = max(1, int(TOP_SHARE * len(places)))
    order = np.argsort(-contrasts, axis=1, kind="stable")[:, :count]
    top = np.take_along_axis(contrasts, order, axis=1)
    return PlaceScores(top.mean(axis=1), places[order], top)


def name_by_words(
    scores: np.ndarray,
    of_places: np.ndarray,
    bank: TextBank,
    *,
    level: float = LEVEL,
    temperature: float = TEMPERATURE,
) -> WordNames:
    """Name a region by its words, or say unknown (method.md §14).

    u_k = (s_k − median) / (1.4826 · MAD) over the same box in the M images; p₀ = (1 + #{max_k u_k⁰ ≥ max_k u_k}) /
    (M + 1), where each of the M is corrected by the others and the region, as the region is by them: so p₀ is exact
    where the region is like them. The type with the highest u_k is the name if p₀ is at most ``level``, its share of
    the softmax of u / τ at least a half, and no nuisance is ahead of it.

    Args:
        scores: float (K + U,), s_k of the region.
        of_places: float (M, K + U), s_k⁰ of the same box in M unflagged images.
        bank: the words.
        level: the largest p₀ of a name.
        temperature: τ.

    Raises:
        ValueError: M is less than `LEAST_PLACES`.
    """
    if len(of_places) < LEAST_PLACES:
        raise ValueError(f"of_places must be of at least {LEAST_PLACES} images; got {len(of_places)}")
    count, every = len(bank.types), np.concatenate([[scores], of_places])
    u, *u_of_places = (_corrected(own, np.delete(every, place, axis=0)) for place, own in enumerate(every))
    best = int(np.argmax(u[:count]))
    as_high = sum(of_place[:count].max() >= u[best] for of_place in u_of_places)
    p_value = (1 + as_high) / (len(of_places) + 1)
    confidence = _softmax(u[:count] / temperature)
    why = _why_unknown(u, best, p_value, float(confidence[best]), bank, level)
    return WordNames(None if why else bank.types[best], best, confidence, u, p_value, why)


def nearest_phrases(patches: np.ndarray, bank: TextBank, of_type: int) -> np.ndarray:
    """Find the phrase of a type that is nearest to each patch: int (n,), a place in ``bank.phrases[of_type]``.

    Args:
        patches: float (layers, n, E), unit vectors.
        bank: the words.
        of_type: place of the type.
    """
    return (np.asarray(patches, np.float64) @ bank.phrase_vectors[of_type].T).mean(axis=0).argmax(axis=1)


def _why_unknown(u: np.ndarray, best: int, p_value: float, confidence: float, bank: TextBank, level: float) -> str:
    name = bank.types[best]
    if p_value > level:
        return f"{name} is nearest, but good images look as much like it there: p = {p_value:.3f}"
    if confidence < LEAST_CONFIDENCE:
        return f"{name} is nearest, but not by enough: confidence {confidence:.2f}"
    others = u[len(bank.types) :]
    if len(others) and others.max() >= u[best]:
        return f"it looks more like {bank.nuisances[int(others.argmax())]} than like {name}"
    return ""


def _corrected(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Robust deviations (K + U,) above the median of ``others`` (M, K + U)."""
    middle = np.median(others, axis=0)
    deviation = _TO_SIGMA * np.median(np.abs(others - middle), axis=0)
    return (scores - middle) / np.maximum(deviation, LEAST_DEVIATION)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()

"""Names by words: how much more a region's patches look like a type's words than the same place of good images does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from patchead.naming.control_words import chance_p_value
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
    """float64 (K + U + C,): s_k of types, nuisances, control words."""
    top: np.ndarray
    """int (K + U + C, n): A_k, places of the patches that were counted, the highest contrast first."""
    contrasts: np.ndarray
    """float64 (K + U + C, n): theirs."""


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
    """float64 (K + U + C,): u_k, in robust deviations above the same place of good images."""
    p_value: float
    """Of nothing being there: share of places that score as high, p₀."""
    by_chance: float
    """Of words without meaning: how often they are as far ahead of the control words; 0 where these are not asked."""
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

    p₀ is small wherever something is unusual, whatever the words. Control words ask whether these mean anything there:
    by s_k − median, few enough of them may be ahead of the type that it would be so with a chance of ``level`` at most
    if types and control words came in any order.

    Args:
        scores: float (K + U + C,), s_k of the region.
        of_places: float (M, K + U + C), s_k⁰ of the same box in M unflagged images.
        bank: the words.
        level: the largest p₀ of a name.
        temperature: τ.

    Raises:
        ValueError: M is less than `LEAST_PLACES`.
    """
    if len(of_places) < LEAST_PLACES:
        raise ValueError(f"of_places must be of at least {LEAST_PLACES} images; got {len(of_places)}")
    count, ends = len(bank.types), len(bank.types) + len(bank.nuisances)
    u = _corrected(scores, of_places)
    best = int(np.argmax(u[:count]))
    p_value = (1 + _as_high(scores[:count], of_places[:, :count], u[best])) / (len(of_places) + 1)
    lift = scores - np.median(of_places, axis=0)
    ahead = int((lift[ends:] >= lift[best]).sum())
    by_chance = chance_p_value(ahead, len(bank.control_vectors), count) if len(bank.control_vectors) else 0.0
    confidence = _softmax(u[:count] / temperature)
    found = WordNames(None, best, confidence, u, p_value, by_chance)
    why = _why_unknown(found, bank, level)
    return replace(found, why_unknown=why) if why else replace(found, name=bank.types[best])


def nearest_phrases(patches: np.ndarray, bank: TextBank, of_type: int) -> np.ndarray:
    """Find the phrase of a type that is nearest to each patch: int (n,), a place in ``bank.phrases[of_type]``.

    Args:
        patches: float (layers, n, E), unit vectors.
        bank: the words.
        of_type: place of the type.
    """
    return (np.asarray(patches, np.float64) @ bank.phrase_vectors[of_type].T).mean(axis=0).argmax(axis=1)


def _why_unknown(found: WordNames, bank: TextBank, level: float) -> str:
    name, u = bank.types[found.best], found.corrected
    if found.p_value > level:
        return f"{name} is nearest, but good images look as much like it there: p = {found.p_value:.3f}"
    if found.by_chance > level:
        return f"{name} is nearest, but words that are no defects are as near: p = {found.by_chance:.3f}"
    if (confidence := found.confidence[found.best]) < LEAST_CONFIDENCE:
        return f"{name} is nearest, but not by enough: confidence {confidence:.2f}"
    others = u[len(bank.types) : len(bank.types) + len(bank.nuisances)]
    if len(others) and others.max() >= u[found.best]:
        return f"it looks more like {bank.nuisances[int(others.argmax())]} than like {name}"
    return ""


def _as_high(scores: np.ndarray, of_places: np.ndarray, most: float) -> int:
    """Count the places whose highest type, corrected by the others and the region, is at least ``most``."""
    every = np.concatenate([[scores], of_places])
    rest = (np.delete(every, place, axis=0) for place in range(1, len(every)))
    return sum(_corrected(own, others).max() >= most for own, others in zip(of_places, rest, strict=True))


def _corrected(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Robust deviations (K + U + C,) above the median of ``others`` (M, K + U + C)."""
    middle = np.median(others, axis=0)
    deviation = _TO_SIGMA * np.median(np.abs(others - middle), axis=0)
    return (scores - middle) / np.maximum(deviation, LEAST_DEVIATION)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()

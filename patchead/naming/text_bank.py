"""The words of a defect as unit vectors: one of each type, one of what is normal, one of each nuisance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from patchead.errors import SettingsError, bad_argument
from patchead.naming.named import UNKNOWN

NORMAL = "normal"

TEMPLATES = ("a photo of {}", "a close-up photo of {}", "a cropped photo of {}", "an inspection photo of {}")
"""What phrases are put into."""
NORMAL_PHRASES = ("a flawless surface", "an undamaged part", "a clean surface", "a surface without a defect")
NUISANCES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dust": ("dust", "a speck of dust", "lint"),
        "reflection": ("a reflection", "a glare of light"),
        "shadow": ("a shadow", "a dark shadow"),
        "label": ("a label", "a printed sticker"),
        "edge": ("the edge of a part", "a border"),
    }
)
"""What looks unusual and is no defect."""

Encode = Callable[[Sequence[str]], np.ndarray]
"""n texts to float (n, E), of any length."""


@dataclass(frozen=True)
class TextBank:
    """Hold the vectors that patches are compared with, float64, each of length 1.

    Types and nuisances are in order of their names, whatever order they were given in.
    """

    types: tuple[str, ...]
    type_vectors: np.ndarray
    """(K, E)."""
    normal_vector: np.ndarray
    """(E,)."""
    nuisances: tuple[str, ...]
    nuisance_vectors: np.ndarray
    """(U, E)."""
    control_vectors: np.ndarray
    """(C, E): of words that have nothing to do with defects."""
    phrases: tuple[tuple[str, ...], ...]
    """Of each type, in order."""
    phrase_vectors: tuple[np.ndarray, ...]
    """Of each type (n, E): its phrases alone."""

    @property
    def contrast_vectors(self) -> np.ndarray:
        """Stack the directions from normal to types, nuisances and control words: float64 (K + U + C, E)."""
        vectors = [self.type_vectors, self.nuisance_vectors, self.control_vectors]
        return np.concatenate(vectors) - self.normal_vector


def check_keywords(keywords: Mapping[str, Sequence[str]]) -> None:
    """Refuse keywords that cannot be told apart from each other or from what is no defect.

    Raises:
        SettingsError: no type, a type without a name or without phrases, an empty phrase, or the name of an outcome.
    """
    taken = {UNKNOWN, NORMAL, *NUISANCES}
    allowed = "a mapping from each type of defect to its phrases, e.g. {scratch: [a scratch, a scratched surface]}"
    if not keywords:
        raise SettingsError(bad_argument("keywords", {}, allowed, "Name a type, or leave it out."))
    for name, phrases in keywords.items():
        if not name.strip() or name in taken:
            other = f"a name other than {', '.join(sorted(taken))}, which are no defects"
            raise SettingsError(bad_argument("keywords", name, other, "Name the type in another way."))
        if not phrases or not all(phrase.strip() for phrase in phrases):
            remedy = f"Give {name} at least one phrase, none of them empty."
            raise SettingsError(bad_argument("keywords", {name: list(phrases)}, allowed, remedy))


def make_text_bank(
    keywords: Mapping[str, Sequence[str]],
    encode: Encode,
    *,
    templates: Sequence[str] = TEMPLATES,
    normal: Sequence[str] = NORMAL_PHRASES,
    nuisances: Mapping[str, Sequence[str]] = NUISANCES,
    controls: Sequence[str] = (),
) -> TextBank:
    """Encode the phrases of types, of what is normal and of nuisances (method.md §14; FocusPatch AD, TIP 2026).

    All phrases of a type in all templates become unit vectors; t_k is their mean, of length 1.

    Args:
        keywords: phrases by type. Neither order nor repetition changes anything.
        encode: the text tower.
        templates: with ``{}`` where the phrase goes.
        normal: phrases of what is no defect.
        nuisances: phrases by nuisance.
        controls: phrases that have nothing to do with defects; none: they are not asked.

    Raises:
        SettingsError: see `check_keywords`, or all vectors of a type cancel out.
    """
    check_keywords(keywords)
    named = {name: tuple(sorted(set(phrases))) for name, phrases in sorted(keywords.items())}
    others = {name: tuple(sorted(set(phrases))) for name, phrases in sorted(nuisances.items())}
    every = [*named.values(), *others.values(), *((phrase,) for phrase in controls), tuple(sorted(set(normal)))]
    texts = sorted({_put(template, phrase) for phrases in every for phrase in phrases for template in templates})
    known = dict(zip(texts, unit(np.asarray(encode(texts), np.float64)), strict=True))

    def of(phrases: Sequence[str]) -> np.ndarray:
        vectors = [known[_put(template, phrase)] for phrase in phrases for template in templates]
        mean = np.mean(vectors, axis=0)
        if not np.linalg.norm(mean) > 1e-9:
            raise SettingsError(bad_argument("keywords", list(phrases), "phrases whose vectors do not cancel out"))
        return unit(mean)

    width = len(next(iter(known.values())))
    return TextBank(
        types=tuple(named),
        type_vectors=np.stack([of(phrases) for phrases in named.values()]),
        normal_vector=of(every[-1]),
        nuisances=tuple(others),
        nuisance_vectors=_stacked([of(phrases) for phrases in others.values()], width),
        control_vectors=_stacked([of([phrase]) for phrase in controls], width),
        phrases=tuple(named.values()),
        phrase_vectors=tuple(np.stack([of([phrase]) for phrase in phrases]) for phrases in named.values()),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Divide vectors (..., E) by their lengths."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _stacked(vectors: list[np.ndarray], width: int) -> np.ndarray:
    return np.array(vectors).reshape(-1, width)


def _put(template: str, phrase: str) -> str:
    return template.replace("{}", phrase)

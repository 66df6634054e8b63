"""Names by words against plain float64 loops of method.md §14."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from patchead.errors import SettingsError
from patchead.naming.text_bank import TextBank, check_keywords, make_text_bank
from patchead.naming.word_scores import name_by_words, nearest_phrases, place_scores
from tests.reference import words

KEYWORDS = {"scratch": ["a scratch", "a scratched surface"], "hole": ["a hole"], "stain": ["a stain", "an oil stain"]}
NUISANCES = {"dust": ["dust"], "shadow": ["a shadow", "shade"]}
NORMAL = ["a flawless surface", "a clean surface"]
TEMPLATES = ["a photo of {}", "a picture of {}"]
WIDTH = 12


def encode(texts: Sequence[str]) -> np.ndarray:
    """A vector of each text that depends on nothing but the text."""
    return np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH) for text in texts])


def bank(keywords: dict[str, list[str]] = KEYWORDS) -> TextBank:
    return make_text_bank(keywords, encode, templates=TEMPLATES, normal=NORMAL, nuisances=NUISANCES)


def unit_patches(seed: int, *shape: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(*shape, WIDTH))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def of(phrases: Sequence[str]) -> list[float]:
    texts = [template.format(phrase) for phrase in phrases for template in TEMPLATES]
    return words.mean_vector(encode(texts).tolist())


def test_the_bank_is_unit_mean_unit() -> None:
    found = bank()
    assert (found.types, found.nuisances) == (("hole", "scratch", "stain"), ("dust", "shadow"))
    for name, vector in zip(found.types, found.type_vectors, strict=True):
        np.testing.assert_allclose(vector, of(KEYWORDS[name]), atol=1e-12)
    for name, vector in zip(found.nuisances, found.nuisance_vectors, strict=True):
        np.testing.assert_allclose(vector, of(NUISANCES[name]), atol=1e-12)
    np.testing.assert_allclose(found.normal_vector, of(NORMAL), atol=1e-12)
    assert found.phrases[1] == ("a scratch", "a scratched surface")
    np.testing.assert_allclose(found.phrase_vectors[1][0], of(["a scratch"]), atol=1e-12)


def test_neither_order_nor_repetition_of_keywords_changes_a_bit() -> None:
    other = {name: [*reversed(phrases), phrases[0]] for name, phrases in reversed(KEYWORDS.items())}
    first, second = bank(), bank(other)
    assert first.types == second.types
    assert first.phrases == second.phrases
    assert np.array_equal(first.contrast_vectors, second.contrast_vectors)


@pytest.mark.parametrize("seed", range(4))
def test_scores_and_evidence_are_those_of_plain_loops(seed: int) -> None:
    known, patches = bank(), unit_patches(seed, 2, 48)
    inside = np.random.default_rng(seed).random(48) < 0.6
    found = place_scores(patches, known, inside)
    places = np.flatnonzero(inside)
    targets = [of(KEYWORDS[name]) for name in known.types] + [of(NUISANCES[name]) for name in known.nuisances]
    layers = [words.contrasts(layer[places].tolist(), targets, of(NORMAL)) for layer in patches]
    for k in range(5):
        values = [(a + b) / 2 for a, b in zip(layers[0][k], layers[1][k], strict=True)]
        assert found.scores[k] == pytest.approx(words.score(values), abs=1e-12)
        assert found.top[k].tolist() == [places[p] for p in words.top_quarter(values)]
        np.testing.assert_allclose(found.contrasts[k], [values[p] for p in words.top_quarter(values)], atol=1e-12)


@pytest.mark.parametrize("level", [0.05, 0.5])
def test_names_are_those_of_plain_loops(level: float) -> None:
    known, rng = bank(), np.random.default_rng(7)
    outcomes = set()
    for trial in range(25):
        of_places = rng.normal(size=(64, 5)) * [1, 2, 0.5, 1, 1]
        scores = rng.normal(size=5) + rng.uniform(-1, 4, 5) * (rng.random(5) < 0.6)
        found = name_by_words(scores, of_places, known, level=level, temperature=1.5)
        best, p_value = words.name(scores.tolist(), of_places.tolist(), 3, level, 1.5)
        assert found.name == (None if best is None else known.types[best]), trial
        assert found.p_value == pytest.approx(p_value)
        np.testing.assert_allclose(found.corrected, words.corrected(scores.tolist(), of_places.tolist()))
        assert (found.why_unknown == "") == (found.name is not None)
        outcomes.add(found.name or found.why_unknown.split(" ")[-2])
    assert len(outcomes) > 3


def test_each_reason_for_unknown_is_told() -> None:
    known = bank()
    of_places = np.random.default_rng(0).normal(size=(64, 5))
    high, low = np.array([0, 30, 0, 0, 0.0]), np.zeros(5)
    assert name_by_words(high, of_places, known).name == "scratch"
    assert "good images look as much like it" in name_by_words(low, of_places, known).why_unknown
    alike = np.array([30, 30, 30, 0, 0.0])
    twice = name_by_words(alike, of_places, known, temperature=30)
    assert "not by enough" in twice.why_unknown
    dusty = name_by_words(np.array([0, 30, 0, 60, 0.0]), of_places, known)
    assert dusty.why_unknown == "it looks more like dust than like scratch"
    with pytest.raises(ValueError, match="at least 64 images; got 63"):
        name_by_words(high, of_places[1:], known)


def test_places_that_score_alike_to_the_last_bit_name_nothing_by_rounding() -> None:
    known = bank()
    of_places = np.full((64, 5), 0.1)
    assert name_by_words(of_places[0] + 1e-9, of_places, known).corrected.max() < 0.01


def test_a_place_without_a_defect_is_named_by_chance_alone() -> None:
    """At 0.05 with 64 places a region that looks as good images do has p0 <= 0.05 in 3 of 65 cases."""
    known, rng = bank(), np.random.default_rng(3)
    drawn = rng.normal(size=(200, 65, 5))
    found = [name_by_words(values[0], values[1:], known) for values in drawn]
    assert sum(one.name is not None for one in found) <= sum(one.p_value <= 0.05 for one in found)
    assert sum(one.p_value <= 0.05 for one in found) / 200 == pytest.approx(3 / 65, abs=0.03)


def test_phrases_are_linked_to_the_patches_nearest_to_them() -> None:
    known = bank()
    kind = known.types.index("scratch")
    patches = known.phrase_vectors[kind][[1, 0, 1]][None]
    assert nearest_phrases(patches, known, kind).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("keywords", "why"),
    [
        ({}, "must be a mapping from each type"),
        ({"dust": ["dust"]}, "a name other than .*dust.* got 'dust'"),
        ({"unknown": ["x"]}, "a name other than"),
        ({"scratch": []}, "Give scratch at least one phrase"),
        ({"scratch": ["a", " "]}, "none of them empty"),
    ],
)
def test_keywords_that_say_nothing_are_refused(keywords: dict[str, list[str]], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        check_keywords(keywords)

"""Untuned prompts are encode_text; deep tokens begin as what they replace; gradients are those of differences."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import normalize

from patchead.encoders.clip_towers import ClipTowers
from patchead.errors import SettingsError
from patchead.naming.text_bank import NORMAL_PHRASES
from patchead.tuning.prompts import HybridPrompts
from tests.helpers.tiny_clip import tiny_towers

KEYWORDS = {"scratch": ["scratch"], "hole": ["hole"]}


@pytest.fixture(scope="module")
def towers() -> ClipTowers:
    return tiny_towers()


def encoded(towers: ClipTowers, *texts: str) -> torch.Tensor:
    with torch.inference_mode():
        return towers.clip.encode_text(towers.tokens(texts), normalize=True)


def test_an_untuned_prompt_is_encode_text(towers: ClipTowers) -> None:
    prompts = HybridPrompts(towers, KEYWORDS, ["part"], start="a photo of a")
    with torch.no_grad():
        found = prompts()
    assert prompts.types == ("hole", "scratch")
    torch.testing.assert_close(
        found.types, encoded(towers, "a photo of a hole", "a photo of a scratch"), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(found.normal, encoded(towers, "a photo of a part")[0], atol=1e-6, rtol=0)


def test_a_type_is_the_mean_over_contexts_and_phrases(towers: ClipTowers) -> None:
    phrases = ["a long thin scratch of metal", "scratch"]  # their end tokens are at different places
    prompts = HybridPrompts(towers, {"scratch": phrases}, ["part"], contexts=3, start="a photo of a")
    alone = HybridPrompts(towers, {"scratch": [phrases[0]], "other": [phrases[1]]}, ["part"], start="a photo of a")
    each = []
    with torch.no_grad():
        for context in range(3):
            alone.context.copy_(prompts.context[[context, 3 + context]])
            each.append(alone().types)
        expected = normalize(torch.cat(each).mean(dim=0), dim=-1)
        torch.testing.assert_close(prompts().types[0], expected, atol=1e-6, rtol=0)


def test_the_tower_stays_causal_and_pools_at_the_true_end(towers: ClipTowers) -> None:
    """What stands behind the end token, where other texts have words, changes nothing."""
    prompts = HybridPrompts(towers, KEYWORDS, ["part"])
    with torch.no_grad():
        before = prompts()
        prompts._anchors[:, 12:] += 3
        after = prompts()
    assert torch.equal(before.types, after.types)


def test_deep_tokens_begin_as_what_they_replace(towers: ClipTowers) -> None:
    prompts = HybridPrompts(towers, KEYWORDS, NORMAL_PHRASES, contexts=2)
    with torch.no_grad():
        before = prompts()
        prompts.add_deep_tokens()
        after = prompts()
        torch.testing.assert_close(after.types, before.types, atol=1e-6, rtol=0)
        torch.testing.assert_close(after.normal, before.normal, atol=1e-6, rtol=0)
        assert prompts.deep is not None
        assert prompts.deep.shape == (1, 4, 3, 32)
        prompts.deep.normal_(generator=torch.Generator().manual_seed(0))  # a multiple would be no other token
        assert (prompts().types - before.types).abs().max() > 1e-3


def test_gradients_are_those_of_differences(towers: ClipTowers) -> None:
    double = copy.copy(towers)
    double.clip = copy.deepcopy(towers.clip).double()
    prompts = HybridPrompts(double, {"scratch": ["scratch"]}, ["part"], contexts=2, start="a photo").double()
    prompts.add_deep_tokens()
    assert prompts.deep is not None
    assert prompts.gate is not None
    rng = torch.Generator().manual_seed(0)

    def along(weights: torch.Tensor) -> torch.Tensor:
        found = prompts()
        return (found.types[0] * weights[0] + found.normal * weights[1]).sum()

    weights = torch.randn(2, 24, generator=rng, dtype=torch.float64)
    along(weights).backward()
    for parameter in (prompts.context, prompts.deep, prompts.gate):
        assert parameter.grad is not None
        for _ in range(4):
            step = torch.randn(parameter.shape, generator=rng, dtype=torch.float64) * 1e-6
            with torch.no_grad():
                parameter.add_(step)
                above = along(weights)
                parameter.sub_(2 * step)
                below = along(weights)
                parameter.add_(step)
            slope = float((parameter.grad * step).sum())
            assert float(above - below) / 2 == pytest.approx(slope, rel=1e-4, abs=1e-12)
    assert all(weight.grad is None for weight in double.clip.parameters())


def test_what_is_too_long_or_empty_is_refused(towers: ClipTowers) -> None:
    with pytest.raises(SettingsError, match="at most 20 tokens"):
        HybridPrompts(towers, {"scratch": ["scratch " * 17]}, ["part"])
    with pytest.raises(SettingsError, match="`contexts` must be at least 1"):
        HybridPrompts(towers, KEYWORDS, ["part"], contexts=0)

"""Training in stages, each kept only if it helps types that it has not seen (method.md §15; DAPO)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from patchead.encoders.clip_towers import ClipTowers
from patchead.errors import SettingsError, bad_argument
from patchead.naming.text_bank import NORMAL_PHRASES
from patchead.tuning.examples import Examples
from patchead.tuning.losses import total
from patchead.tuning.prompts import START, HybridPrompts, WordVectors

STAGES = ("context tokens", "deep tokens", "adapters")


@dataclass(frozen=True)
class TuneSettings:
    """Say how long and how fast each stage learns."""

    contexts: int = 4
    steps: int = 200
    batch: int = 16
    rate: float = 2e-3
    adapter_rate: float = 2e-4
    seed: int = 0
    start: str = START


@dataclass(frozen=True)
class Tuned:
    """Hold what training ended with, and what each stage came to."""

    prompts: HybridPrompts
    adapters: Tensor | None
    """(taps, E, E): what patches of each tap are multiplied by; None where that stage did not help."""
    precision: list[tuple[str, float]] = field(default_factory=list)
    """Mean average precision on held-out types: untuned, then of each stage that was tried."""
    kept: tuple[str, ...] = ()
    """The stages that helped."""


class Adapters(nn.Module):
    """Multiply the patches of each tap by a matrix that begins as the identity."""

    def __init__(self, taps: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width).repeat(taps, 1, 1))

    def forward(self, patches: Tensor) -> Tensor:
        """Adapt (n, taps, P, E); vectors of length 1 again."""
        return normalize(patches @ self.weight, dim=-1)


def tune(
    towers: ClipTowers,
    keywords: Mapping[str, Sequence[str]],
    held_out: Sequence[str],
    examples: Examples,
    settings: TuneSettings = TuneSettings(),
    *,
    tell: Callable[[str], None] = print,
) -> Tuned:
    """Train hybrid prompts on all types but those held out, as long as the held-out ones gain by it.

    Args:
        towers: frozen.
        keywords: phrases of every type; names in any order.
        held_out: types that are never trained on; the average precision of their patches decides on each stage.
        examples: crops of all types and good ones.
        settings: of training.
        tell: is told a line per stage.

    Raises:
        SettingsError: nothing is held out, or everything is, or a type, or the good, have no example.
    """
    check_split(keywords, held_out, examples)
    trained = [name for name in sorted(keywords) if name not in held_out]
    good = np.flatnonzero(examples.of_type == 0)
    learn_good, judge_good = good[::2], good[1::2]
    is_held = np.isin(examples.of_type, [examples.types.index(name) + 1 for name in held_out])
    learned = examples.of(np.concatenate([np.flatnonzero(~is_held & (examples.of_type > 0)), learn_good]), trained)
    judged = examples.of(np.concatenate([np.flatnonzero(is_held), judge_good]), sorted(held_out))

    def prompts_of(names: Sequence[str]) -> HybridPrompts:
        chosen = {name: keywords[name] for name in names}
        prompts = HybridPrompts(
            towers,
            chosen,
            NORMAL_PHRASES,
            contexts=settings.contexts,
            start=settings.start,
            seed=settings.seed,
        )
        return prompts.to(towers.device)

    return _in_stages(towers, prompts_of, trained, sorted(keywords), learned, judged, settings, tell)


def check_split(keywords: Mapping[str, Sequence[str]], held_out: Sequence[str], examples: Examples) -> None:
    """Refuse a split that nothing can be learned from, or judged by. Raises as `tune`."""
    allowed = f"some of {', '.join(sorted(keywords))}, and not all of them"
    if not held_out or not set(held_out) < set(keywords):
        raise SettingsError(bad_argument("held_out", list(held_out), allowed))
    if missing := [name for name in sorted(keywords) if name not in examples.types]:
        raise SettingsError(bad_argument("keywords", missing, f"types of the examples: {', '.join(examples.types)}"))
    counts = np.bincount(examples.of_type, minlength=len(examples.types) + 1)
    if counts[0] < 2:
        raise SettingsError(bad_argument("examples", int(counts[0]), "at least 2 good crops"))
    for name in sorted(keywords):
        if not counts[examples.types.index(name) + 1]:
            raise SettingsError(bad_argument("examples", 0, f"at least one crop of {name}"))


def _in_stages(
    towers: ClipTowers,
    prompts_of: Callable[[Sequence[str]], HybridPrompts],
    trained: Sequence[str],
    every: Sequence[str],
    learned: Examples,
    judged: Examples,
    settings: TuneSettings,
    tell: Callable[[str], None],
) -> Tuned:
    prompts, adapters = prompts_of(trained), None
    anchors = prompts().types.detach()
    best = held_out_precision(_as(prompts, prompts_of(judged.types))(), None, judged, towers.device)
    told, kept = [("untuned", best)], list[str]()
    tell(f"untuned: average precision {best:.4f} on held-out {', '.join(judged.types)}")
    state = _state(prompts)
    for stage in STAGES:
        if stage == "deep tokens":
            prompts.add_deep_tokens()
        new = (
            Adapters(learned.patches.shape[1], learned.whole.shape[1]).to(towers.device)
            if stage == "adapters"
            else None
        )
        _learn(prompts, new, learned, anchors, settings, towers.device)
        found = held_out_precision(_as(prompts, prompts_of(judged.types))(), new, judged, towers.device)
        told.append((stage, found))
        if not found > best:
            tell(f"+ {stage}: {found:.4f}, no more than before: training ends, the stage is undone")
            break
        tell(f"+ {stage}: {found:.4f}")
        best, state, adapters = found, _state(prompts), new
        kept.append(stage)
    final = _with(prompts_of(every), state)
    return Tuned(final, None if adapters is None else adapters.weight.detach(), told, tuple(kept))


def _learn(
    prompts: HybridPrompts,
    adapters: Adapters | None,
    learned: Examples,
    anchors: Tensor,
    settings: TuneSettings,
    device: torch.device,
) -> None:
    """One stage: all that was added so far learns; with adapters, these as well."""
    groups: list[dict[str, Any]] = [{"params": list(prompts.parameters()), "lr": settings.rate}]
    if adapters is not None:
        groups.append({"params": list(adapters.parameters()), "lr": settings.adapter_rate})
    optimizer = torch.optim.Adam(groups)
    rng = np.random.default_rng(settings.seed)
    count = len(learned.of_type)
    for _ in range(settings.steps):
        chosen = rng.choice(count, min(settings.batch, count), replace=False)
        patches = torch.from_numpy(learned.patches[chosen]).float().to(device)
        optimizer.zero_grad()
        loss = total(
            prompts(),
            anchors,
            torch.from_numpy(learned.whole[chosen]).to(device),
            torch.from_numpy(learned.of_type[chosen] > 0).to(device),
            patches if adapters is None else adapters(patches),
            torch.from_numpy(learned.labels[chosen]).to(device),
        )
        loss.backward()
        optimizer.step()


def held_out_precision(words: WordVectors, adapters: Adapters | None, judged: Examples, device: torch.device) -> float:
    """Compute the mean, over types, of the average precision with which their words find their patches.

    Patches are those of the type's crops and of good ones; their score is that of naming: the cosine with t_k less that
    with t_0, mean over taps.
    """
    with torch.no_grad():
        directions = words.types - words.normal
        parts = []
        for each in judged.patches:
            patches = torch.from_numpy(each).float().to(device)[None]
            adapted = patches if adapters is None else adapters(patches)
            parts.append((adapted @ directions.T).mean(dim=1)[0].cpu().numpy())
    scores = np.stack(parts)
    found = []
    for number in range(len(judged.types)):
        own = (judged.of_type == number + 1) | (judged.of_type == 0)
        found.append(average_precision(scores[own, :, number].ravel(), judged.labels[own].ravel() > 0))
    return float(np.mean(found))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute the mean precision at each positive, equal scores together; 0 without a positive."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(positive[order])[ends]
    if not len(hits) or not hits[-1]:
        return 0.0
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def _state(prompts: HybridPrompts) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in prompts.named_parameters()}


def _as(prompts: HybridPrompts, other: HybridPrompts) -> HybridPrompts:
    """The same learnable tokens before other words."""
    return _with(other, _state(prompts))


def _with(prompts: HybridPrompts, state: Mapping[str, Tensor]) -> HybridPrompts:
    if "deep" in state:
        prompts.add_deep_tokens()
    with torch.no_grad():
        for name, value in prompts.named_parameters():
            value.copy_(state[name])
    return prompts

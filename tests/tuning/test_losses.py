"""Each loss against plain float64 loops of method.md §15, and its gradient against differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from patchead.tuning import losses
from patchead.tuning.prompts import WordVectors
from patchead.tuning.train import Adapters, average_precision

N, TAPS, P, K, E = 3, 2, 5, 3, 6


def case(seed: int) -> tuple[WordVectors, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> torch.Tensor:
        return normalize(torch.randn(*shape, generator=rng, dtype=torch.float64), dim=-1)

    labels = torch.randint(0, K + 1, (N, P), generator=rng)
    labels[0] = 0
    return WordVectors(unit(E), unit(K, E)), unit(K, E), unit(N, E), labels.amax(dim=1) > 0, unit(N, TAPS, P, E), labels


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def by_loops(
    words: WordVectors,
    anchors: torch.Tensor,
    whole: torch.Tensor,
    anomalous: torch.Tensor,
    patches: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    vectors = [words.normal.numpy(), *words.types.numpy()]
    mean = sum(vectors[1:]) / K
    mean = mean / math.sqrt(mean @ mean)
    loss = 0.0
    for i in range(N):
        shares = softmax([float(whole[i].numpy() @ v) / 0.07 for v in (vectors[0], mean)])
        loss -= math.log(shares[int(anomalous[i])]) / N
    local = 0.0
    for tap in range(TAPS):
        for i in range(N):
            maps = [softmax([float(patches[i, tap, p].numpy() @ v) / 0.07 for v in vectors]) for p in range(P)]
            for p in range(P):
                right = maps[p][int(labels[i, p])]
                local -= (1 - right) ** 2 * math.log(right) / (N * P)
            for share, wanted in (
                ([m[0] for m in maps], [float(y == 0) for y in labels[i]]),
                ([sum(m[1:]) for m in maps], [float(y > 0) for y in labels[i]]),
            ):
                overlap = 2 * sum(s * w for s, w in zip(share, wanted, strict=True)) + 1
                local += (1 - overlap / (sum(share) + sum(wanted) + 1)) / N
    pairs = [(a, b) for a in range(K) for b in range(a + 1, K)]
    apart = sum(max(0.0, float(vectors[1 + a] @ vectors[1 + b])) for a, b in pairs) / len(pairs)
    near = sum(1 - float(vectors[1 + k] @ anchors[k].numpy()) for k in range(K)) / K
    return loss + 4 * local + 0.1 * apart + 0.1 * near


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_plain_loops(seed: int) -> None:
    values = case(seed)
    assert float(losses.total(*values)) == pytest.approx(by_loops(*values), rel=1e-9)


def test_gradients_of_words_and_adapters_are_those_of_differences() -> None:
    words, anchors, whole, anomalous, patches, labels = case(1)
    adapters = Adapters(TAPS, E).double()

    def loss(normal: torch.Tensor, types: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        adapted = normalize(patches @ weight, dim=-1)
        return losses.total(WordVectors(normal, types), anchors, whole, anomalous, adapted, labels)

    torch.testing.assert_close(adapters(patches), patches)
    inputs = words.normal.requires_grad_(), words.types.requires_grad_(), adapters.weight
    assert torch.autograd.gradcheck(loss, inputs)


def test_one_type_is_apart_from_nothing() -> None:
    assert float(losses.kept_apart(torch.ones(1, 3))) == 0


def test_average_precision_is_the_mean_precision_at_positives() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, positive = rng.integers(0, 9, 40).astype(float), rng.random(40) < 0.3
        positive[0] = True
        precisions = [positive[scores >= own].mean() for own in scores[positive]]
        assert average_precision(scores, positive) == pytest.approx(np.mean(precisions))
    assert average_precision(np.ones(3), np.zeros(3, bool)) == 0

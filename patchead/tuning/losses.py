"""What tuning makes small: how far the words are from telling labelled patches apart (method.md §15; DAPO)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from patchead.tuning.prompts import WordVectors

TEMPERATURE = 0.07
LOCAL, APART, NEAR_ANCHORS = 4.0, 0.1, 0.1
"""Weights of the maps, of types that are alike, and of types that have left their words."""
_GAMMA = 2.0
_SMOOTH = 1.0  # of Dice: an image without a defect has a defined one


def local_maps(patches: Tensor, words: WordVectors) -> Tensor:
    """Compute S_ℓ, the softmax over normal and the types of patches (n, taps, P, E): (n, taps, P, 1 + K)."""
    vectors = torch.cat([words.normal[None], words.types])
    return (patches @ vectors.T / TEMPERATURE).softmax(dim=-1)


def focal(maps: Tensor, labels: Tensor) -> Tensor:
    """Compute the focal loss of maps (n, taps, P, 1 + K): mean over patches, summed over taps.

    ``labels`` are int64 (n, P), 0 where normal. Patches that are told apart already count little: by (1 − S)², γ = 2.
    """
    right = maps.gather(-1, labels[:, None, :, None].expand(-1, maps.shape[1], -1, 1))[..., 0]
    each = -((1 - right) ** _GAMMA) * right.clamp_min(1e-12).log()
    return each.mean(dim=(0, 2)).sum()


def dice(share: Tensor, wanted: Tensor) -> Tensor:
    """Compute Dice's loss of shares (n, taps, P) for what is wanted, (n, P): mean over images, summed over taps."""
    target = wanted[:, None].to(share)
    overlap = 2 * (share * target).sum(dim=2) + _SMOOTH
    return (1 - overlap / (share.sum(dim=2) + target.sum(dim=2) + _SMOOTH)).mean(dim=0).sum()


def whole_image(whole: Tensor, anomalous: Tensor, words: WordVectors) -> Tensor:
    """Compute the cross-entropy of images' own vectors (n, E) on [t_0; mean of types], for bool (n,)."""
    vectors = torch.stack([words.normal, normalize(words.types.mean(dim=0), dim=-1)])
    return cross_entropy(whole @ vectors.T / TEMPERATURE, anomalous.long())


def kept_apart(types: Tensor) -> Tensor:
    """Compute the mean cosine, where it is above 0, of pairs of types (K, E); 0 of one type."""
    first, second = torch.triu_indices(len(types), len(types), 1)
    if not len(first):
        return types.new_zeros(())
    return (types[first] * types[second]).sum(dim=-1).clamp_min(0).mean()


def near_anchors(types: Tensor, anchors: Tensor) -> Tensor:
    """Compute the mean of 1 − cosine of types (K, E) and of their fixed words'."""
    return (1 - (types * anchors).sum(dim=-1)).mean()


def total(
    words: WordVectors, anchors: Tensor, whole: Tensor, anomalous: Tensor, patches: Tensor, labels: Tensor
) -> Tensor:
    """Compute the loss: CE + 4 · Σ_ℓ (focal + Dice of normal + Dice of types) + 0.1 · apart + 0.1 · near their words.

    Args:
        words: t_0 and t_k.
        anchors: (K, E), the vectors of the untuned words.
        whole: (n, E), of length 1, and ``anomalous`` bool (n,).
        patches: (n, taps, P, E), of length 1.
        labels: int64 (n, P): 0 where normal, else the type's place + 1.
    """
    maps = local_maps(patches, words)
    local = focal(maps, labels) + dice(maps[..., 0], labels == 0) + dice(maps[..., 1:].sum(dim=-1), labels > 0)
    loss = whole_image(whole, anomalous, words) + LOCAL * local
    return loss + APART * kept_apart(words.types) + NEAR_ANCHORS * near_anchors(words.types, anchors)

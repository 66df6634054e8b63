"""Patch tokens that can be compared with words: value-value attention in the last block, norm, projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize, scaled_dot_product_attention


class WordPatches(NamedTuple):
    """Hold what an image tower gives for B images."""

    patches: Tensor
    """(B, taps, P, E), of length 1."""
    whole: Tensor | None
    """(B, E), of length 1: the image's own vector; None where it was not asked for."""


def value_value_block(block: Any, tokens: Tensor) -> Tensor:
    """Run one block of open_clip with its values in the place of queries and keys (CLIP Surgery; FocusPatch AD).

    A token then gathers what tokens with values like its own hold, and stays about its own place. The rest of the block
    (output projection, residuals, MLP) is as it was trained.

    Args:
        block: open_clip's `ResidualAttentionBlock`, with torch's attention.
        tokens: (B, L, W), as they enter the block.
    """
    attention, (count, length, width) = block.attn, tokens.shape
    normed = block.ln_1(tokens)
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[2 * width :]
    values = linear(normed, attention.in_proj_weight[2 * width :], bias)
    heads = values.view(count, length, attention.num_heads, -1).transpose(1, 2)
    gathered = scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).reshape(count, length, width)
    tokens = tokens + block.ls_1(attention.out_proj(gathered))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def word_patches(tower: Any, images: Tensor, taps: Sequence[int], *, whole: bool = False) -> WordPatches:
    """Compute the patch tokens of some blocks in the space of words (method.md §14; FocusPatch AD, TIP 2026).

    Those of the last block are of value-value attention; those of earlier ones as they leave the block. All get the
    final norm and the projection.

    Args:
        tower: open_clip's `VisionTransformer`, of two blocks at least.
        images: (B, 3, S, S), normalised.
        taps: numbers of blocks, from 1, ascending.
        whole: whether the image's own vector is wanted as well.
    """
    depth = len(tower.transformer.resblocks)
    before_last = depth - 2
    indices = sorted({tap - 1 for tap in taps if tap < depth} | {before_last})
    output = tower.forward_intermediates(
        images,
        indices=indices,
        stop_early=not whole,
        intermediates_only=not whole,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    found = dict(zip(indices, output["image_intermediates"], strict=True))
    if taps[-1] == depth:
        entering = torch.cat([output["image_intermediates_prefix"][-1], found[before_last]], dim=1)
        found[depth - 1] = value_value_block(tower.transformer.resblocks[-1], entering)[:, 1:]
    layers = [normalize(tower.ln_post(found[tap - 1]) @ tower.proj, dim=-1) for tap in taps]
    return WordPatches(torch.stack(layers, dim=1), normalize(output["image_features"], dim=-1) if whole else None)

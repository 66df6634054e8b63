"""The class token's attention to the patches in a transformer's last block, caught while the block runs.

The mask is made of it (method.md §5). The libraries compute attention with a fused kernel that never holds the
weights; of the last block alone that is turned off, so the other blocks run as they always do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from timm.layers import Attention, AttentionRope
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

#: timm's attentions whose dropout is given the softmax's output (B, heads, N, N) when they are not fused.
_SOFTMAX = (Attention, AttentionRope, BeitAttention, EvaAttention, RelPosAttention)
_MAP_BYTES = 1 << 29  # of (B, heads, N, N) weights at a time: a ViT-L/14 at 672 px has 0.3 GB of them per image


class ClassAttention:
    """Catch what one block's attention gives while it runs, one place per thread, empty again when the code is left.

    An encoder runs shares of a batch on several threads through one module (see `patchead.threads`).
    """

    def __init__(self, prefix: int, heads: int) -> None:
        """``prefix``: the number of tokens before the first patch: the class token, then registers."""
        self._prefix, self._heads = prefix, heads
        self._here = threading.local()

    def images_at_once(self, n_patches: int) -> int:
        """Count the images whose whole maps stay below `_MAP_BYTES`; at least one."""
        return max(1, _MAP_BYTES // (4 * self._heads * (n_patches + self._prefix) ** 2))

    def see(self, weights: Tensor) -> None:
        """Keep the class token's row of softmax weights (B, heads, N, N), if this thread has asked for it.

        Kept is a new (B, P) float32 tensor, the mean over the heads: the whole map goes when its block is done.
        """
        if getattr(self._here, "asked", False):
            self._here.row = weights[:, :, 0, self._prefix :].float().mean(dim=1)

    @contextmanager
    def asked(self) -> Iterator[list[Tensor]]:
        """Catch what this thread runs inside the block; the list holds the one row (B, P) afterwards."""
        caught: list[Tensor] = []
        self._here.asked, self._here.row = True, None
        try:
            yield caught
            caught.append(self._here.row)
        finally:
            del self._here.asked, self._here.row


def why_none_in_timm(model: Any) -> str:
    """Say why a timm transformer has no class attention to catch, as a sentence; empty where it has."""
    if getattr(model, "cls_token", None) is None:
        return "It has no class token."
    block = model.blocks[-1]
    if type(getattr(block, "attn", None)) in _SOFTMAX:
        return ""
    return f"Its last block, a {type(block).__name__}, has no single softmax attention that can be read."


def catch_in_timm(model: Any) -> ClassAttention:
    """Turn fused attention off in the last block of ``model`` and catch its weights where they are dropped out."""
    attention = model.blocks[-1].attn
    caught = ClassAttention(model.num_prefix_tokens, attention.num_heads)
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda module, inputs, output: caught.see(output))
    return caught


def why_none_in_open_clip(tower: Any) -> str:
    """Say the same of open_clip's own vision transformer, which always has a class token."""
    attention = type(tower.transformer.resblocks[-1].attn)
    return (
        ""
        if attention is nn.MultiheadAttention
        else f"Its last block's attention ({attention.__name__}) cannot be read."
    )


def catch_in_open_clip(tower: Any) -> ClassAttention:
    """Ask the last block's attention for its weights, which open_clip's block does not, and catch them."""
    attention = tower.transformer.resblocks[-1].attn
    caught = ClassAttention(1, attention.num_heads)
    attention.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "need_weights": True, "average_attn_weights": False}),
        with_kwargs=True,
    )
    attention.register_forward_hook(lambda module, inputs, output: caught.see(output[1]))
    return caught

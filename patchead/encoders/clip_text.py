"""The text tower of open_clip from its token embeddings on: prompts may hold tokens that no text has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn.functional import linear

from patchead.errors import SettingsError, bad_argument


class ReplaceTokens(Protocol):
    """Put other tokens in the place of some before a block runs."""

    def __call__(self, block: int, tokens: Tensor) -> Tensor:
        """Take the block's number, from 0, and its tokens (B, L, W); give tokens of the same shape."""


def why_no_words(text: Any) -> str:
    """Say why a text tower cannot be used for words, as a sentence; empty where it can."""
    if not isinstance(text, TextTransformer):
        return f"Its text tower is a {type(text).__name__}."
    if text.cls_emb is not None or text.attn_mask is None or text.pool_type not in ("argmax", "eos"):
        return "Its text tower has no causal mask, or does not pool at the end token."
    return ""


def tokenized(tokenizer: SimpleTokenizer, texts: Sequence[str], length: int) -> Tensor:
    """Turn texts into tokens int64 (n, length), each with its start and its end token, zeros behind.

    Raises:
        SettingsError: a text is longer than the tower reads.
    """
    found = torch.zeros(len(texts), length, dtype=torch.long)
    for tokens, text in zip(found, texts, strict=True):
        words = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        if len(words) > length:
            allowed = f"texts of at most {length} tokens, start and end included"
            raise SettingsError(bad_argument("keywords", text, allowed, f"It has {len(words)}: shorten it."))
        tokens[: len(words)] = torch.tensor(words)
    return found


def text_features(text: Any, embeddings: Tensor, ends: Tensor, replace: ReplaceTokens | None = None) -> Tensor:
    """Run the text tower on token embeddings, with its causal mask, and pool at each text's own end token.

    Where the embeddings are those of a text's tokens, and nothing is replaced, this is ``encode_text``.

    Args:
        text: open_clip's `TextTransformer`.
        embeddings: (B, L, W), without position embeddings; L is the tower's context length.
        ends: int64 (B,), the place of the end token.
        replace: what is put in the place of tokens before each block but the first.

    Returns:
        (B, E), not of length 1.
    """
    tokens = embeddings + text.positional_embedding[: embeddings.shape[1]]
    for number, block in enumerate(text.transformer.resblocks):
        if replace is not None and number:
            tokens = replace(number, tokens)
        tokens = block(tokens, attn_mask=text.attn_mask)
    # The norm is of each token alone: that of the end token is all that is needed.
    pooled = text.ln_final(tokens[torch.arange(len(tokens)), ends])
    projection = text.text_projection
    if projection is None:
        return pooled
    if isinstance(projection, nn.Linear):
        return linear(pooled, projection.weight, projection.bias)
    return pooled @ projection

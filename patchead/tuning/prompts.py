"""Hybrid prompts: learnable context tokens before fixed words, with learnable tokens in deeper blocks, if asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from patchead.encoders.clip_text import text_features
from patchead.encoders.clip_towers import ClipTowers
from patchead.errors import SettingsError, bad_argument

START = "a photo of"
"""Words whose tokens the context begins as; phrases bring their own article."""
_NOISE = 0.02  # of the contexts behind the first, which is exactly the start's: that of CLIP's own token embeddings
_CARRIED = (0.9, 0.5)  # share of the carried token in the second block and in the last


class WordVectors(NamedTuple):
    """Hold what prompts come to: vectors of length 1."""

    normal: Tensor
    """(E,): t_0."""
    types: Tensor
    """(K, E): t_k."""


class HybridPrompts(nn.Module):
    """Make the vectors of types and of what is normal from learnable context and fixed words (method.md §15; DAPO).

    A prompt is the start token, l context tokens, the tokens of a phrase, which stay as they are, and the end token.
    Each of the contexts stands before every phrase of every type; others, as many, before the phrases of what is
    normal. A type's vector is the mean over contexts and phrases, each of length 1, and again of length 1.

    Attributes:
        types: names, in order.
        context: (2 · contexts, l, W): those of types, then those of what is normal.
        deep: (blocks − 1, 2 · contexts, l, W) once `add_deep_tokens` was called.
        gate: (blocks − 1,): logits of α, the share of the token that a block was handed.
    """

    _anchors: Tensor
    _ends: Tensor
    _of: Tensor

    def __init__(
        self,
        towers: ClipTowers,
        keywords: Mapping[str, Sequence[str]],
        normal: Sequence[str],
        *,
        contexts: int = 1,
        start: str = START,
        seed: int = 0,
    ) -> None:
        """Begin as the untuned prompts ``start`` + phrase.

        Raises:
            SettingsError: there is no context or no start, or a phrase is too long behind it.
        """
        super().__init__()
        length = int((towers.tokens([start])[0] != 0).sum()) - 2
        if contexts < 1 or length < 1:
            raise SettingsError(bad_argument("contexts", contexts, "at least 1, with a `start` of at least one word"))
        self._towers, self.types = (towers,), tuple(sorted(keywords))  # a tuple: the tower is no part of this module
        phrases = [(k, phrase) for k, name in enumerate(self.types) for phrase in sorted(set(keywords[name]))]
        phrases += [(len(self.types), phrase) for phrase in sorted(set(normal))]
        tokens = towers.tokens([f"{start} {phrase}" for _, phrase in phrases])
        embeddings = towers.clip.text.token_embedding(tokens).detach()
        self._length, self._contexts = length, contexts
        self.register_buffer("_anchors", embeddings)
        self.register_buffer("_ends", tokens.argmax(dim=1))
        self.register_buffer("_of", torch.tensor([of for of, _ in phrases], device=tokens.device))
        own = embeddings[0, 1 : 1 + length]
        noise = torch.randn(2, contexts, *own.shape, generator=torch.Generator().manual_seed(seed)) * _NOISE
        noise[:, 0] = 0
        self.context = nn.Parameter((own + noise.to(own)).flatten(0, 1))
        self.deep: nn.Parameter | None = None
        self.gate: nn.Parameter | None = None

    def add_deep_tokens(self) -> None:
        """Add learnable tokens to every block but the first; the vectors are as before until they are trained.

        They begin as what the block is handed: as the tower is causal, that depends on the context alone.
        """
        handed: list[Tensor] = []

        def listen(block: int, tokens: Tensor) -> Tensor:
            handed.append(tokens[:, 1 : 1 + self._length])
            return tokens

        text = self._text
        with torch.no_grad():
            rows = self._anchors[:1].expand(len(self.context), -1, -1)
            text_features(text, self._with_context(rows, self.context), self._ends[:1].expand(len(rows)), listen)
        self.deep = nn.Parameter(torch.stack(handed))
        share = torch.linspace(*_CARRIED, len(handed)).to(self.deep)
        self.gate = nn.Parameter(torch.logit(share))

    def forward(self) -> WordVectors:
        """Compute the vectors of all types, in order, and of what is normal."""
        count, contexts = len(self._anchors), self._contexts
        is_normal = self._of == len(self.types)
        own = torch.arange(contexts, device=self._of.device) + contexts * is_normal[:, None]  # (phrases, contexts)
        rows = self._anchors.repeat_interleave(contexts, dim=0)
        embeddings = self._with_context(rows, self.context[own.flatten()])

        def replace(block: int, tokens: Tensor) -> Tensor:
            assert self.deep is not None
            assert self.gate is not None
            carried = torch.sigmoid(self.gate[block - 1])
            inside = tokens[:, 1 : 1 + self._length]
            mixed = carried * inside + (1 - carried) * self.deep[block - 1][own.flatten()]
            return torch.cat([tokens[:, :1], mixed, tokens[:, 1 + self._length :]], dim=1)

        found = text_features(
            self._text,
            embeddings,
            self._ends.repeat_interleave(contexts),
            None if self.deep is None else replace,
        )
        each = normalize(found, dim=-1).view(count, contexts, -1).mean(dim=1)
        means = [each[self._of == of].mean(dim=0) for of in range(len(self.types) + 1)]
        vectors = normalize(torch.stack(means), dim=-1)
        return WordVectors(vectors[-1], vectors[:-1])

    @property
    def _text(self) -> Any:
        return self._towers[0].clip.text

    def _with_context(self, rows: Tensor, context: Tensor) -> Tensor:
        return torch.cat([rows[:, :1], context, rows[:, 1 + self._length :]], dim=1)

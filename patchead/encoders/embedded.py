"""What an encoder gives for a batch, and which of its images can be compared at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from patchead.errors import PatcheadError

NO_DIRECTION = "a vector that is zero, infinite or NaN, which has no direction"
NO_ATTENTION = "attention that is infinite or NaN"
_LENGTH_TOLERANCE = 1e-2  # of a unit vector and of its square; rounding to float16 changes them by 0.001 at most


@dataclass(frozen=True)
class EmbeddedImages:
    """Hold the embeddings of B images as they were computed, usable or not."""

    encoder_name: str
    vectors: np.ndarray
    """float16 (B, P, D); every vector of a usable image has length 1."""
    usable: np.ndarray
    """bool (B,): False where one of the image's vectors has no direction, or its attention is no number."""
    attention: np.ndarray | None = None
    """float16 (B, P), from 0 to 1; NaN where it is no number. None where the encoder was built without it."""

    def why_unusable(self, index: int) -> str:
        """Say what is wrong with the image at ``index``; the empty string where it is usable."""
        if self.usable[index]:
            return ""
        lengths = np.linalg.norm(self.vectors[index].astype(np.float32), axis=-1)
        # NaN is no number near 1.
        return NO_ATTENTION if (np.abs(lengths - 1) < _LENGTH_TOLERANCE).all() else NO_DIRECTION

    def all_vectors(self) -> np.ndarray:
        """Return `vectors`, where every image is usable.

        Raises:
            PatcheadError: one is not; the text says which.
        """
        if not self.usable.all():
            index = int(np.argmin(self.usable))
            raise PatcheadError(
                f"image {index} cannot be compared: {self.encoder_name} gives {self.why_unusable(index)}."
            )
        return self.vectors


def unit_vectors(layers: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Normalise the tokens of each layer (B, P, width), put them side by side and normalise again (method.md §1).

    Returns:
        float16 (B, P, D), normalised in float32; bool (B,): whether all vectors of an image, as float16, have length 1.
    """
    each = [normalize(tokens.float(), dim=-1) for tokens in layers]
    vectors = normalize(torch.cat(each, dim=-1), dim=-1).half()
    # Squares are summed in float16's own arithmetic, ten times as fast on a CPU as a cast to float32.
    squares = (vectors * vectors).sum(dim=-1)
    return vectors, ((squares - 1).abs() < _LENGTH_TOLERANCE).all(dim=1)  # False for NaN


def stretched(attention: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch attention (B, P) to 0 … 1 per image; a constant map is 1 everywhere (method.md §5).

    Returns:
        float16 (B, P), NaN for an image whose attention is not finite; bool (B,): whether it is.
    """
    known = attention.isfinite().all(dim=1)
    low, high = attention.aminmax(dim=1, keepdim=True)
    maps = torch.where(high > low, (attention - low) / (high - low), 1.0)
    return torch.where(known[:, None], maps, torch.nan).half(), known

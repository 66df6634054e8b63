"""Embed the views of samples, and tell a bad image from a broken encoder (method.md §1, §5).

The nightly job and `patchead.local` share it; no Ray, no storage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from patchead.batches import slices
from patchead.encoders import EmbeddedImages, Encoder
from patchead.hashing import content_hash
from patchead.samples.finish import own_distances
from patchead.samples.recipe import SampleRecipe
from patchead.samples.side_arrays import SideArrays
from patchead.samples.twins import look
from patchead.samples.views import over_all_views

_BATCHES_TO_JUDGE_BY = 2
_LEAST_TO_JUDGE_BY = 16  # views, where batches are smaller: two bad photos say nothing of an encoder
_REMEDY = "look at the image or, where many fail, at `dtype` and `layers`"


@dataclass(frozen=True)
class EmbeddedSamples:
    """Hold what became of n samples; the m of them without a fault are embedded."""

    embeddings: np.ndarray
    """float16 (m, V · P, D); in few-shot mode (m, P, D), as the warped prompts are used up: see `SideArrays.own`."""
    side_arrays: SideArrays
    """Of the same m samples."""
    faults: list[str]
    """Why each of the n samples cannot be compared; empty where it can."""

    @property
    def usable(self) -> np.ndarray:
        """Tell which samples the m are: bool (n,)."""
        return np.array([not fault for fault in self.faults], bool)


class SampleEmbedder:
    """Embed samples portion by portion; one image that cannot be compared is a fault of its own.

    If none of the images of the first two batches, and of 16, can, it is no image's fault but the encoder's or its
    dtype's.
    """

    def __init__(self, encoder: Encoder, recipe: SampleRecipe, *, batch_size: int, proven: bool = False) -> None:
        """
        Args:
            encoder: its attention is kept where it gives any.
            recipe: what the views are.
            batch_size: views per forward pass.
            proven: whether the encoder is known to work, by other images.
        """
        self._encoder, self._recipe, self._batch_size = encoder, recipe, batch_size
        self._proven = proven  # one usable image is proof that the encoder works
        self._unusable = dict[str, str]()  # different images before that: a camera that is off gives one image only

    def embed(
        self, pixels: np.ndarray, valid: np.ndarray, motions: np.ndarray, blocks: np.ndarray | None = None
    ) -> EmbeddedSamples:
        """Embed n samples.

        Args:
            pixels: uint8 (M, S, S, 3), the views that exist of all samples, one sample after the other.
            valid: bool (n, V, P).
            motions: float32 (n, V, 2, 3).
            blocks: int16 (n, B), kept as they are.

        Raises:
            PatcheadError: no image of the first two batches, and of 16, can be compared.
        """
        vectors, looks, view_faults = self._forward(pixels)
        exists = np.any(valid, axis=2)
        counts = exists.sum(axis=1)
        owner, own = np.repeat(np.arange(len(valid)), counts), np.cumsum(counts) - counts
        faults = [""] * len(valid)
        for view, fault in view_faults.items():
            faults[owner[view]] = f"the encoder gives {fault}; {_REMEDY}"
        usable = np.array([not fault for fault in faults], bool)
        if not usable.all():
            kept = usable[owner]
            vectors, looks = vectors[kept], None if looks is None else looks[kept]
            valid, motions, blocks = valid[usable], motions[usable], None if blocks is None else blocks[usable]
        kept_pixels = look(pixels[own[usable]]) if usable.any() else None
        if self._recipe.align is not None and len(valid):
            joined, side_arrays = self._joined(vectors, looks, valid, motions)
            return EmbeddedSamples(joined, replace(side_arrays, look=kept_pixels, blocks=blocks), faults)
        return EmbeddedSamples(vectors, SideArrays(attention=looks, look=kept_pixels, blocks=blocks), faults)

    def require_one(self) -> None:
        """Refuse to go on without a single usable image, once all there are have been seen.

        Raises:
            PatcheadError: naming the encoder, its dtype and the remedy.
        """
        if self._unusable and not self._proven:
            raise self._encoder.broken(next(iter(self._unusable.values())))

    def _forward(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, dict[int, str]]:
        """Vectors float16 (M, P, D) and attention float16 (M, P) of the views, and what is wrong with which view."""
        parts, faults = list[EmbeddedImages](), dict[int, str]()
        for cut in slices(len(pixels), self._batch_size):
            part = self._encoder.embed(pixels[cut])
            parts.append(part)
            faults |= {cut.start + i: part.why_unusable(i) for i in np.flatnonzero(~part.usable).tolist()}
            self._judge(pixels[cut], part)
        attention = [part.attention for part in parts if part.attention is not None]
        return (
            np.concatenate([part.vectors for part in parts]),
            np.concatenate(attention) if attention else None,
            faults,
        )

    def _judge(self, batch: np.ndarray, part: EmbeddedImages) -> None:
        if self._proven or part.usable.any():
            self._proven = True
            return
        self._unusable |= {content_hash(image.tobytes()): part.why_unusable(i) for i, image in enumerate(batch)}
        if len(self._unusable) >= max(_BATCHES_TO_JUDGE_BY * self._batch_size, _LEAST_TO_JUDGE_BY):
            self.require_one()

    def _joined(
        self, vectors: np.ndarray, looks: np.ndarray | None, valid: np.ndarray, motions: np.ndarray
    ) -> tuple[np.ndarray, SideArrays]:
        """From the views that exist to one row per sample, with the arrays that scoring needs of its alignment."""
        exists = np.any(valid, axis=2)
        counts = exists.sum(axis=1)
        starts = np.cumsum(counts) - counts
        aligned = np.any(exists[:, 1:], axis=1)
        samples = list(zip(np.split(vectors, starts[1:]), valid, strict=True))
        if self._recipe.few_shot:
            own = np.stack([own_distances(views, v, device=self._encoder.device) for views, v in samples])
            looks = None if looks is None else looks[starts]
            return vectors[starts], SideArrays(attention=looks, own=own, aligned=aligned)
        if looks is not None:
            parts = zip(np.split(looks, starts[1:]), valid, strict=True)
            looks = np.stack([over_all_views(part[..., None], v)[..., 0] for part, v in parts])
        every = np.stack([over_all_views(views, v) for views, v in samples])
        return every, SideArrays(attention=looks, valid=valid, motions=motions, aligned=aligned)

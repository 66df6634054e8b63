"""Samples of images in this process: their embeddings, and why some cannot be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from patchead.archive.given import Given
from patchead.batches import stream_batches
from patchead.errors import DecodeError
from patchead.samples.embed import EmbeddedSamples, SampleEmbedder
from patchead.samples.recipe import SampleRecipe, stacked
from patchead.samples.side_arrays import SideArrays
from patchead.samples.views import Guide


@dataclass(frozen=True)
class Samples:
    """Hold N images, in their order, and the embeddings of the m of them that can be compared.

    ``embeddings`` float16 (m, V · P, D), V = 3 views with alignment to a template, else 1; ``side_arrays`` of the same
    m; ``content`` a hash of each of the N; ``sizes`` their (width, height); ``grid`` (h, w), P = h · w; ``faults`` why
    an image cannot be compared, empty where it can; one that cannot be decoded has the size (0, 0).
    """

    embeddings: np.ndarray
    content: list[str]
    sizes: list[tuple[int, int]]
    grid: tuple[int, int]
    side_arrays: SideArrays
    faults: list[str]

    @property
    def usable(self) -> np.ndarray:
        """Tell which images the m are: bool (N,)."""
        return np.array([not fault for fault in self.faults], bool)


Guides = Sequence[tuple[str, Guide]]
"""Images to align with, each with the hash of its content."""


def prompt_guides(content: Sequence[str], images: Sequence[np.ndarray]) -> Guides:
    """Make the guides of few-shot alignment: each prompt, with its content hash."""
    return [(digest, Guide.of(image)) for digest, image in zip(content, images, strict=False)]


def embedded(
    decoded: Iterable[Given | str],
    embedder: SampleEmbedder,
    recipe: SampleRecipe,
    guides: Guides,
    batch_size: int,
    same_as: Mapping[str, str] = MappingProxyType({}),
) -> Samples:
    """Embed images, or keep the text that says why one cannot be read; none is compared with a guide of its content.

    ``same_as`` gives contents the one that they count as.
    """
    content, sizes, parts, faults = list[str](), list[tuple[int, int]](), list[EmbeddedSamples](), list[str]()
    for batch in stream_batches(decoded, batch_size):
        views = []
        for given in batch:
            if isinstance(given, str):
                content.append("")
                sizes.append((0, 0))
                continue
            image, digest, blocks = given
            digest = same_as.get(digest, digest)
            content.append(digest)
            sizes.append((image.shape[1], image.shape[0]))
            # A prompt that is the query itself would hide the query's own defect.
            usable = [guide if other != digest else None for other, guide in guides]
            views.append(replace(recipe.views(image, usable), blocks=blocks))
        parts += [embedder.embed(*stacked(views))] if views else []
        told = iter(parts[-1].faults if views else ())
        faults += [given if isinstance(given, str) else next(told) for given in batch]
    if not parts:
        if faults:
            raise DecodeError(f"none of {len(faults)} images can be decoded: {faults[0]}")
        raise ValueError("no image to embed")
    some = [part for part in parts if len(part.embeddings)] or parts[:1]
    return Samples(
        np.concatenate([part.embeddings for part in some]),
        content,
        sizes,
        recipe.grid,
        SideArrays.joined([part.side_arrays for part in some]),
        faults,
    )

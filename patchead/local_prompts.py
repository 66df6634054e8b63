"""Few-shot mode's normal images in this process: embedded as references, and as the queries of their own null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from patchead.archive.given import DEFAULT_READING, Given, ImageLike, Reading, name_of, read_given, settled_reading
from patchead.encoders import Encoder
from patchead.errors import PatcheadError
from patchead.local import Prompts, codes
from patchead.local_samples import Samples, embedded, prompt_guides
from patchead.samples.align import Alignment
from patchead.samples.embed import SampleEmbedder
from patchead.samples.recipe import SampleRecipe, turned
from patchead.samples.stand_ins import STAND_INS, NullChoice, stand_in
from patchead.samples.twins import renamed_prompts


def embed_prompts(
    images: Sequence[ImageLike],
    encoder: Encoder,
    *,
    align: Alignment | None = None,
    rotations: Sequence[int] = (),
    batch_size: int = 32,
    reading: Reading = DEFAULT_READING,
) -> Prompts:
    """Embed the k normal images of few-shot mode, upright and turned by each of ``rotations`` (90, 180 or 270°).

    ``align`` is that of the images that will be compared with them: what normal images score is found out in the same
    way (method.md §7.3).

    Raises:
        As `local.embed_images`; PatcheadError for a prompt that cannot be decoded or compared, ValueError for another
            rotation.

    Examples:
        >>> from patchead.encoders import EncoderSpec, build
        >>> encoder = build(EncoderSpec("timm/test_vit", "random", image_size=64))
        >>> normal = list(np.random.default_rng(1).integers(90, 110, (3, 64, 64, 3), dtype=np.uint8))
        >>> prompts = embed_prompts(normal, encoder, rotations=(180,))
        >>> prompts.embeddings.shape, len(prompts.nulls.content), prompts.views_of
        ((6, 16, 64), 3, 0)
    """
    if len(set(rotations)) < len(rotations) or set(rotations) - {90, 180, 270}:
        raise ValueError(f"rotations must be 90, 180 or 270, each once; got {list(rotations)}")
    reading = settled_reading(images, reading)
    found = [read_given(image, index, reading, "prompt") for index, image in enumerate(images)]
    turns = [given._replace(pixels=turned(given.pixels, angle)) for angle in (0, *rotations) for given in found]
    recipe = SampleRecipe(encoder.image_size, encoder.fit, encoder.grid)
    embedder = SampleEmbedder(encoder, recipe, batch_size=batch_size)
    samples = embedded(turns, embedder, recipe, [], batch_size)
    if faults := [(index, fault) for index, fault in enumerate(samples.faults) if fault]:
        index, fault = faults[0]
        turn, prompt = divmod(index, len(found))
        name = name_of(images[prompt], prompt, "prompt") + (f", turned by {rotations[turn - 1]}°," if turn else "")
        raise PatcheadError(f"{name} cannot be used: {fault}. Mend or remove it.")
    same_as = _photos(samples, len(found))
    samples = replace(samples, content=[same_as[digest] for digest in samples.content])
    found = [given._replace(content=same_as[given.content]) for given in found]
    choice = NullChoice.of(codes(samples.content[: len(found)]), np.full(len(found), -1))
    if align is None and not choice.views_of:
        nulls = _some(samples, choice.places.tolist())
    else:
        nulls = _embedded_nulls(found, choice, encoder, align, batch_size)
    pixels, looks = [given.pixels for given in found], _upright(samples, len(found))
    return Prompts(samples.embeddings, samples.content, pixels, nulls, choice.views_of, align, looks, same_as)


def _embedded_nulls(
    found: list[Given],
    choice: NullChoice,
    encoder: Encoder,
    align: Alignment | None,
    batch_size: int,
) -> Samples:
    """The prompts, or the views that stand in for more of them, embedded as images of the night are."""
    recipe = SampleRecipe(encoder.image_size, encoder.fit, encoder.grid, align, few_shot=True)
    embedder = SampleEmbedder(encoder, recipe, batch_size=batch_size, proven=True)
    decoded = [found[i] for i in choice.places]
    if choice.views_of:
        decoded = [given._replace(pixels=stand_in(given.pixels, n)) for given in decoded for n in range(STAND_INS)]
    guides = [] if align is None else prompt_guides([one.content for one in found], [one.pixels for one in found])
    nulls = embedded(decoded, embedder, recipe, guides, batch_size)
    if faults := [fault for fault in nulls.faults if fault]:
        raise PatcheadError(f"a prompt cannot be compared with the others: {faults[0]}. Mend or remove it.")
    # Of a single prompt, views are compared with itself.
    return replace(nulls, content=[f"view {i}" for i in range(len(decoded))]) if choice.views_of == 1 else nulls


def _photos(samples: Samples, k: int) -> dict[str, str]:
    """By the content of each of the first k: its own, or that of the prompt whose photo it shows."""
    content, looks, blocks = samples.content[:k], samples.side_arrays.look, samples.side_arrays.blocks
    if looks is None:
        return dict(zip(content, content, strict=True))
    return dict(zip(content, renamed_prompts(content, looks[:k], None if blocks is None else blocks[:k]), strict=True))


def _upright(samples: Samples, k: int) -> np.ndarray | None:
    """The looks of the k prompts as they are: a query that is a prompt turned is another picture."""
    return None if samples.side_arrays.look is None else samples.side_arrays.look[:k]


def _some(samples: Samples, places: list[int]) -> Samples:
    """The samples of some images, all of which are usable."""
    side_arrays = samples.side_arrays
    kept = {name: getattr(side_arrays, name)[places] for name in side_arrays.columns()}
    return replace(
        samples,
        embeddings=samples.embeddings[places],
        content=[samples.content[i] for i in places],
        sizes=[samples.sizes[i] for i in places],
        side_arrays=replace(side_arrays, **kept),
        faults=[""] * len(places),
    )

"""Scores of a list of images in this process: no cluster, no storage. `patchead.score` is for a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from patchead.archive.given import (
    DEFAULT_READING,
    ImageLike,
    Reading,
    first_of,
    read_given,
    read_or_fault,
    settled_reading,
)
from patchead.encoders import Encoder
from patchead.errors import SettingsError
from patchead.local_samples import Guides, Samples, embedded, prompt_guides
from patchead.samples.align import Alignment
from patchead.samples.embed import SampleEmbedder
from patchead.samples.finish import finish_samples
from patchead.samples.mask import ForegroundMask
from patchead.samples.recipe import SampleRecipe
from patchead.samples.searched import MapSearch
from patchead.samples.side_arrays import SideArrays
from patchead.samples.stand_ins import TOO_FEW, refuse_window
from patchead.samples.twins import named_as_references, renamed
from patchead.samples.views import Guide
from patchead.samples.wanted import FinishedImages
from patchead.scoring.aggregate import Aggregation, placed
from patchead.scoring.memory_budget import GIGABYTE
from patchead.scoring.repeats import repeat_groups
from patchead.scoring.rescore import Compared
from patchead.search.alike import night_sample
from patchead.search.bound_choice import FULL
from patchead.search.score import score_group


@dataclass(frozen=True)
class Prompts:
    """Hold few-shot mode's normal images: ``embeddings`` float16 (R, P, D) of R views, each with its image's hash.

    ``images`` are the k upright ones, which alignment warps onto a query; theirs are the first k of ``content``.
    `local_prompts.embed_prompts` makes it.
    """

    embeddings: np.ndarray
    content: list[str]
    images: list[np.ndarray]
    nulls: Samples
    """What is scored to know how normal images score (method.md §7.3): each prompt once more, or views of few."""
    views_of: int
    """0, or of how many prompts ``nulls`` are views; see `NullChoice`."""
    align: Alignment | None = None
    """That of the images that are compared with them."""
    looks: np.ndarray | None = None
    """uint8 (k, K), of `samples.twins.look`, of the upright ones."""
    same_as: Mapping[str, str] = field(default_factory=dict)
    """Content of each prompt as its pixels have it → in ``content``, where prompts of one photo have one."""

    @property
    def copies(self) -> int:
        """Count the prompts that are another one's photo."""
        return len(self.images) - len(set(self.content[: len(self.images)]))


@dataclass(frozen=True)
class SampleScores:
    """Hold the scores of N samples, in their order; NaN where an image has no reference or cannot be compared."""

    patch_scores: np.ndarray
    """float32 (N, h, w), in [0, 1]; upper bounds in part of the images that are not ``exact``."""
    image_scores: np.ndarray
    """float64 (N,), in [0, 1]."""
    n_references: np.ndarray
    """int32 (N,)."""
    aligned: np.ndarray | None
    """bool (N,), False where an image cannot be compared; None without alignment."""
    repeat_group: np.ndarray
    """int32 (N,): equal for images that share a region no other shows (`Aggregation.repeats`); 0 for none."""
    null_scores: np.ndarray | None = None
    """float64 (m,): of `Prompts.nulls`; None without prompts."""
    exact: np.ndarray | None = None
    """bool (N,), images of which no patch score is an upper bound (method.md §10); None: all."""
    searched_by: str = "full"
    """How, and why so: as `verdicts.search` has it."""
    search: Callable[[np.ndarray], np.ndarray] | None = None
    """Gives float32 (n, h, w), no bound among them, of n images by their places; None where all are exact."""

    def searched(self, wanted: np.ndarray) -> np.ndarray:
        """Give the patch scores, no bound among those of the images ``wanted``, bool (N,): float32 (N, h, w)."""
        if self.exact is None or self.search is None or not (missing := wanted & ~self.exact).any():
            return self.patch_scores
        found = self.patch_scores.copy()
        found[missing] = self.search(np.flatnonzero(missing))
        return found


def embed_images(
    images: Sequence[ImageLike],
    encoder: Encoder,
    *,
    align: Alignment | None = None,
    prompts: Prompts | None = None,
    batch_size: int = 32,
    reading: Reading = DEFAULT_READING,
    keep_unread: bool = False,
) -> Samples:
    """Embed a batch; attention is kept where the encoder gives it.

    ``align`` moves the images onto the first one (batch) or, with ``prompts``, each prompt onto every image (few-shot).
    An image that cannot be compared (for some encoders a flat photo) has its reason in `Samples.faults`; with
    ``keep_unread`` one that cannot be decoded has, too.

    Raises:
        DecodeError: an image cannot be decoded, with ``keep_unread`` none can; the text says which.
        OSError: a path cannot be read.
        PatcheadError: no image can be compared, nor is there a prompt that can, so that it is the encoder or its dtype.
        ValueError: no image, pixels of another form, or another ``align`` than that of the prompts.

    Examples:
        >>> from patchead.encoders import EncoderSpec, build
        >>> encoder = build(EncoderSpec("timm/test_vit", "random", image_size=64))
        >>> photos = list(np.random.default_rng(0).integers(90, 110, (5, 64, 64, 3), dtype=np.uint8))
        >>> samples = embed_images(photos, encoder)
        >>> samples.embeddings.shape, samples.grid
        ((5, 16, 64), (4, 4))
    """
    if prompts is not None and align != prompts.align:
        raise ValueError(f"align must be that of embed_prompts, {prompts.align}; got {align}")
    if prompts is not None and align is not None:
        batch_size = max(1, batch_size // (1 + 2 * len(prompts.images)))  # each image brings its warped prompts along
    recipe = SampleRecipe(encoder.image_size, encoder.fit, encoder.grid, align, few_shot=prompts is not None)
    reading = settled_reading(images, reading)
    embedder = SampleEmbedder(encoder, recipe, batch_size=batch_size, proven=prompts is not None)
    guides = [] if align is None else _guides(images, prompts, reading)
    same_as = {} if prompts is None else prompts.same_as
    read = read_or_fault if keep_unread else read_given
    decoded = (read(image, index, reading) for index, image in enumerate(images))
    samples = embedded(decoded, embedder, recipe, guides, batch_size, same_as)
    embedder.require_one()
    return samples


def score_samples(
    samples: Samples,
    *,
    aggregation: Aggregation,
    mask: ForegroundMask | None = None,
    prompts: Prompts | None = None,
    part: Sequence[str | None] | None = None,
    precision: str = "fp32",
    device: str = "cpu",
    schedule: str = "auto",
    memory_bytes: int = 4 * GIGABYTE,
    panel: np.ndarray | None = None,
    shown: float | None = None,
) -> SampleScores:
    """Score a batch leave-one-out, or with ``prompts`` few-shot (K = 1).

    Args:
        samples: N images; those that cannot be compared get no score, and are nobody's reference.
        aggregation: how distances become scores (method.md §3 and §4).
        mask: weight the patch scores by attention.
        prompts: the only references, instead of the batch.
        part: the physical part of each image, None where unknown: images of one part are never references of each
            other.
        precision, device, schedule, memory_bytes, panel, shown: see `search.score.score_group`; with ``shown``, patch
            scores may be upper bounds of images that are not `SampleScores.exact`.

    Raises:
        As `leave_one_out.score_group`; ValueError: a mask without attention, parts and prompts (which have none),
            or another number of them than images; SettingsError: a window, and aligned prompts or fewer than three.

    Examples:
        >>> from patchead.encoders import EncoderSpec, build
        >>> encoder = build(EncoderSpec("timm/test_vit", "random", image_size=64))
        >>> photos = list(np.random.default_rng(0).integers(90, 110, (5, 64, 64, 3), dtype=np.uint8))
        >>> photos[3][20:36, 20:36] = 255
        >>> scores = score_samples(embed_images(photos, encoder), aggregation=Aggregation())
        >>> scores.patch_scores.shape, int(scores.image_scores.argmax()), scores.n_references.tolist()
        ((5, 4, 4), 3, [4, 4, 4, 4, 4])
    """
    if part is not None and (prompts is not None or len(part) != len(samples.content)):
        raise ValueError(f"part must name the part of each of {len(samples.content)} images, and goes with no prompts")
    if prompts is not None and prompts.align is not None and aggregation.window is not None:
        raise SettingsError(
            f"`window` {aggregation.window} and `align` cannot be combined with prompts: those that were moved onto a "
            "photo are searched as a whole. Give one of the two up."
        )
    few = 0 if prompts is None else prompts.views_of
    too_few = TOO_FEW if few and aggregation.window is not None else ""
    if too_few:
        refuse_window(aggregation.window, few)
        aggregation, schedule, shown = replace(aggregation, window=None), "auto", None
    kept, embeddings, side_arrays = np.flatnonzero(samples.usable).tolist(), samples.embeddings, samples.side_arrays
    if prompts is None and aggregation.position_level and side_arrays.motions is not None:
        raise SettingsError(
            "`position_level` and `align` cannot be combined: places of parts that were moved lie elsewhere in each "
            "photo. Give one of the two up."
        )
    queries = None
    content = [samples.content[i] for i in kept]
    parts = [None if part is None else part[i] for i in kept]
    if panel is not None:
        panel = np.flatnonzero(np.isin(kept, panel))
    if side_arrays.look is not None:  # twins are no references of each other
        looks, of = side_arrays.look, prompts
        if of is None:
            content = renamed(content, looks, side_arrays.blocks)
        elif of.looks is not None:
            content = named_as_references(content, looks, of.content[: len(of.looks)], of.looks)
    if prompts is not None:
        queries = len(kept) + len(prompts.nulls.content)
        panel = np.arange(queries, queries + len(prompts.content))
        embeddings = np.concatenate([embeddings, prompts.nulls.embeddings, prompts.embeddings])
        content = [*content, *prompts.nulls.content, *prompts.content]
        parts = [*parts, *[None] * (len(content) - len(kept))]
        side_arrays = SideArrays.joined([side_arrays, prompts.nulls.side_arrays])
    compared = Compared(
        content=codes(content),
        part=codes(parts),
        references=np.arange(len(content)) if panel is None else panel,
        aggregation=aggregation if prompts is None else aggregation.few_shot(),
        device=device,
        precision=precision,
        memory_bytes=memory_bytes,
        grid=samples.grid,
    )
    found = score_group(
        embeddings,
        compared.content,
        compared.part,
        aggregation=compared.aggregation,
        device=device,
        precision=precision,
        schedule=schedule,
        memory_bytes=memory_bytes,
        panel=panel,
        queries=queries,
        grid=samples.grid,
        goal=FinishedImages(samples.grid, side_arrays, mask, aggregation.image_top_fraction),
        shown=shown,
        measured=None if prompts is None else night_sample(len(kept)),
    )
    done = finish_samples(
        found.patch_scores,
        samples.grid,
        side_arrays,
        mask=mask,
        top_fraction=aggregation.image_top_fraction,
        position_level=compared.aggregation.position_level,
    )
    n, aligned = len(kept), samples.side_arrays.aligned
    search, exact = MapSearch(embeddings, found.n_references, compared, side_arrays, mask), found.exact_images
    return SampleScores(
        placed(done.patch_scores[:n], samples.usable, np.nan),
        placed(done.image_scores[:n], samples.usable, np.nan),
        placed(found.n_references[:n], samples.usable, 0),
        None if aligned is None else placed(aligned, samples.usable, False),
        placed(repeat_groups(found.repeats, n), samples.usable, 0),
        None if prompts is None else done.image_scores[n:],
        None if exact is None else placed(exact[:n], samples.usable, True),
        f"{FULL}: {too_few}" if too_few else found.search.get("generator", FULL),
        None if exact is None else lambda places: search(np.searchsorted(kept, places)),
    )


def unscored(samples: Samples) -> SampleScores:
    """Stand in for `score_samples` where nothing may be scored: NaN throughout, no references."""
    n, aligned = len(samples.content), samples.side_arrays.aligned
    return SampleScores(
        np.full((n, *samples.grid), np.nan, np.float32),
        np.full(n, np.nan),
        np.zeros(n, np.int32),
        None if aligned is None else placed(aligned, samples.usable, False),
        np.zeros(n, np.int32),
    )


def _guides(images: Sequence[ImageLike], prompts: Prompts | None, reading: Reading) -> Guides:
    """What images are aligned with: the prompts, or the first image, that all are aligned with."""
    if prompts is not None:
        return prompt_guides(prompts.content, prompts.images)
    return [("", Guide.of(first_of(images, reading)))] if len(images) else []


def codes(values: Sequence[str | None]) -> np.ndarray:
    """Turn equal values into equal int64 codes (n,), None into -1."""
    known: dict[str, int] = {}
    return np.array([-1 if v is None else known.setdefault(v, len(known)) for v in values], np.int64)

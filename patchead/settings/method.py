"""Settings of how images become embeddings, scores, and then heatmaps and regions (method.md §1 to §7)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from patchead.settings.section import Fraction, Positive, Section, Share

LayerWord = Literal["auto", "last", "quarters"]
Z = Annotated[float, Field(gt=0, le=1e6)]  # a score is at most 1, and a scale at least 1e-6
Level = Annotated[float, Field(ge=1e-9, lt=0.5)]  # a p-value as low takes a billion accepted scores


class EncoderConfig(Section):
    """The frozen vision encoder."""

    name: str = "timm/vit_small_patch14_dinov2"
    """A name of `patchead encoders`, e.g. dinov2-base, or library and model, e.g. open_clip/ViT-B-16."""
    weights: str = "hub"
    """hub (the default tag), hub:TAG, random, package:NAME, or a path or URL to .safetensors or .pt."""
    image_size: Positive | Literal["auto"] = "auto"
    """Side in pixels to which images are resized, a multiple of the patch size; auto is 448 or what comes nearest."""
    layers: tuple[Positive, ...] | LayerWord = "auto"
    """Blocks from 1, e.g. [6, 12]; auto: 6, 9, 12 of 12, of a CNN strides 8 and 16; quarters: 3, 6, 9, 12; or last."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """How an image that is not square becomes square."""
    batch_size: Positive = 32
    """Images per forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes a GPU when the cluster has one."""
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Arithmetic of the forward pass; auto is fp16 on a GPU and fp32 on a CPU."""

    @field_validator("image_size", mode="before")
    @classmethod
    def _size_or_auto(cls, size: Any) -> Any:
        if size != "auto" and not _counts([size]):
            raise ValueError("must be auto or a whole number of pixels, at least 1")
        return size

    @field_validator("layers", mode="before")
    @classmethod
    def _blocks_or_word(cls, layers: Any) -> Any:
        words = get_args(LayerWord)
        if layers not in words and not (isinstance(layers, list | tuple) and _counts(layers)):
            raise ValueError(f"must be {', '.join(words)}, or blocks counted from 1, e.g. [6, 12]")
        return layers


class AlignConfig(Section):
    """PatchEAD+'s alignment: photos are moved onto the first of their group, or prompts onto each photo."""

    enabled: bool = False
    """Align; three views per image, so nine times the scoring."""
    ratio: Fraction = 0.75
    """Ratio test of the feature matches: nearest over second nearest descriptor."""
    min_inliers: Annotated[int, Field(ge=3)] = 12
    """Matches that must agree on one rotation and translation; with fewer a photo stays as it is."""
    max_scale: Annotated[float, Field(ge=1, le=100)] = 1.1
    """Matches that agree on a scale outside of 1/max_scale to max_scale are refused."""


class MaskConfig(Section):
    """PatchEAD+'s foreground mask, from the attention of the encoder's last block."""

    enabled: bool = False
    """Weight patch scores by attention; the encoder needs a CLS token."""
    threshold: Share = 0.05
    """Attention, from 0 to 1 in each image, above which a patch is foreground."""
    background: Share = 0.5
    """Weight of the other patches."""


class ProductThreshold(Section):
    """The threshold of one product."""

    z: Z
    """As scoring.threshold_z, of this product's groups alone."""


class ScoringConfig(Section):
    """How patches become scores: method.md §2 to §4, §7 and §9.3 are these fields."""

    mode: Literal["batch", "few_shot"] = "batch"
    """batch compares each image with the others of its group; few_shot with the normal images of prompts.uri."""
    aggregate: Literal["nearest", "farthest"] = "nearest"
    """Mean of the K nearest reference images (default) or of the K farthest."""
    fraction: Fraction = 0.3
    """K as a fraction of the references: K = max(1, floor(fraction * references))."""
    image_top_fraction: Share = 0.01
    """Image score = mean of this fraction of the largest patch scores; 0 means the single maximum."""
    window: Annotated[int, Field(ge=0)] | Literal["off", "auto"] = "off"
    """Compare a patch only with those within so many cells of its own place: another score, for parts that lie alike;
    a group that does not is refused, and one or two prompts are. auto: 1 where it does, else the whole image."""
    repeats: bool = False
    """Find defects that images share, score those images without each other; neither with a window nor with bounded."""
    position_level: bool = False
    """Score a patch by what it exceeds the 75 % quantile of its place over the group by; for parts that lie alike. Not
    with alignment, accepted references, bounded, or window auto."""
    subspace: bool = False
    """Also fill score_subspace: distance from the directions in which the group varies; it asks no neighbours."""
    min_batch: Annotated[int, Field(ge=2)] = 5
    """Groups with fewer images get status too_few_images and no score."""
    verdict: Literal["auto", "upper_fit", "mad", "reference", "top"] = "auto"
    """Rule of is_anomalous: auto is upper_fit, mad below 60 images, with prompts theirs; reference: an accepted run."""
    threshold_z: Z | None = None
    """An image is anomalous when its z is above this; default: the rule's own, 3 of upper_fit and 3.5 of mad."""
    alpha: Level = 0.01
    """Level of the rules that have p-values: the share of good images that may be flagged."""
    flag_top: Annotated[float, Field(gt=0, le=1e9)] = 0.01
    """What the rule top flags of each group: a share below 1, at least one image of it, or a count from 1."""
    thresholds: dict[str, ProductThreshold] = Field(default={})
    """Thresholds of products that have their own, e.g. {screw: {z: 2.6}}: z takes the place of threshold_z there."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    """Arithmetic of the similarities; auto is fp16 on a GPU, on a CPU int8 where a probe finds it faster."""
    schedule: Literal["auto", "symmetric", "row_stationary", "bounded"] = "auto"
    """symmetric halves the work and holds N x N x P distances, row_stationary a query block; auto goes by memory_gb.
    bounded: the same scores and maps for a fraction of the work; on a CPU auto takes it where a sample says it pays.
    Both search fully where what will be shown (explain.heatmaps, explain.top) makes that cheaper."""
    memory_gb: Annotated[float, Field(gt=0, le=100_000)] = 4.0
    """Memory in GB that scoring may use per actor, above the embeddings it holds."""
    max_group_size: Positive = 20_000
    """A larger group is refused before anything is embedded, unless max_references is set."""
    max_references: Positive | None = None
    """Compare with a panel of this many images instead of the whole group; off by default."""
    seed: int = 0
    """Seed of the panel."""
    references: Literal["night", "accepted"] = "night"
    """In batch mode: compare images with the others of their night, or with the accepted run's (verdict: reference)."""
    accepted: str | None = None
    """Name that `patchead accept` gave; default: the newest accepted run of the same group, encoder and settings
    that has enough scores for the level."""
    false_discovery: Annotated[float, Field(ge=1e-9, lt=1)] | None = None
    """In place of alpha with an accepted run: the share of the night's flagged images that may be good."""

    @property
    def by_accepted(self) -> bool:
        """Tell whether verdicts are made by an accepted run.

        Scores against its images have its scores as their null, however few there are tonight.
        """
        return self.verdict == "reference" or (self.references == "accepted" and self.verdict == "auto")

    @field_validator("window", mode="before")
    @classmethod
    def _off_is_a_word(cls, window: Any) -> Any:
        if window is True:
            raise ValueError("must be off, auto, or a number of cells from 0")
        return "off" if window is False else window  # YAML's off

    @field_validator("flag_top")
    @classmethod
    def _share_or_whole_count(cls, top: float) -> float:
        if top > 1 and top != int(top):
            raise ValueError("must be a share below 1 or a whole number from 1")
        return top


class ExplainConfig(Section):
    """Heatmaps and regions."""

    heatmaps: Literal["flagged", "all", "none"] = "flagged"
    """Which images get a heatmap file: the anomalous ones and those of explain.top, every one, or none."""
    top: Annotated[int, Field(ge=0)] = 20
    """At least so many of the highest scores of every group are explained, flagged or not; 0: the flagged alone."""
    format: Literal["png", "webp"] = "png"
    """File format of the heatmaps."""
    max_side: Annotated[int, Field(ge=32)] = 1024
    """Longer side of a heatmap in pixels; larger images are drawn scaled down, regions stay in original pixels."""
    patch_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Value of a map above which a region reaches; default: what 1 % of the group's unflagged images exceed."""


def _counts(values: Iterable[Any]) -> bool:
    """Whether all are whole numbers of at least 1."""
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values)

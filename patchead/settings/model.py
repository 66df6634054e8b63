"""Every setting, its default and its check. One YAML file is one `Config`; unknown keys are refused by name.

The classes are frozen and read by jobs, cli and pipeline only; everything below takes plain arguments.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    # A field's docstring is its description: the help text and the README's table are made from it.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)


class ArchiveConfig(_Section):
    """Where the images are and which of them to score."""

    uri: str = Field(min_length=1)
    """Folder or fsspec URL of the archive, e.g. /data/archive or s3://bucket/archive."""
    format: Literal["auto", "files", "tar", "parquet"] = "auto"
    """Shard format; auto takes images, .tar and .parquet files as they come."""
    template: str | None = None
    """Path template that names keys, e.g. {product}/{station}/{night}/{filename}; default: hive-style key=value."""
    group_by: tuple[str, ...] = Field(default=("night", "product"), min_length=1)
    """Keys whose values together name a group: the images that may be compared with each other."""
    assume: dict[str, Annotated[str, BeforeValidator(str)]] = Field(default={})
    """Key values for images whose path and columns do not give them, e.g. {night: 2026-11-21, product: screw}."""
    image_column: str = "image"
    """Parquet column with the encoded image: binary, or a struct with a field bytes."""
    id_column: str | None = None
    """Parquet column with the row key; default: the first of image_id, id, key, filename, path that exists."""
    part_id_column: str | None = None
    """Key, column or JSON field with the physical part's id: images of one part are never each other's reference."""
    night: dt.date | None = None
    """Score this night only (YYYY-MM-DD)."""
    products: tuple[str, ...] = ()
    """Score these products only; empty means all."""
    limit: Positive | None = None
    """Score the first images only, in order of image id; for trials, in a lake of their own."""
    max_pixels: Positive = 100_000_000
    """An image whose header announces more pixels than this fails without being decoded."""
    bit_depth: Literal["auto", 8, 10, 12, 14, 16] = "auto"
    """Bits in use in 16-bit images; auto reads sBIT, else the smallest of 8, 10, 12, 14, 16 that holds the maximum."""

    @field_validator("group_by")
    @classmethod
    def _night_and_product_are_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if missing := [key for key in ("night", "product") if key not in keys]:
            raise ValueError(f"must contain night and product, the partitions of the tables; missing {missing}")
        return keys


class EncoderConfig(_Section):
    """The frozen vision encoder."""

    name: str = "timm/vit_small_patch14_dinov2"
    """A name of `patchead encoders`, e.g. dinov2-base, or library and model, e.g. open_clip/ViT-B-16."""
    weights: str = "hub"
    """hub (the default tag), hub:TAG, random, package:NAME, or a path or URL to .safetensors or .pt."""
    image_size: Positive = 448
    """Side in pixels to which images are resized; a multiple of the patch size."""
    layers: tuple[Positive, ...] = ()
    """Blocks (of a CNN: levels) to take, counted from 1, e.g. [6, 12]; empty means the last one."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """How an image that is not square becomes square."""
    batch_size: Positive = 32
    """Images per forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes a GPU when the cluster has one."""
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Arithmetic of the forward pass; auto is fp16 on a GPU and fp32 on a CPU."""


class PromptsConfig(_Section):
    """The normal images of few-shot mode (scoring.mode: few_shot): which, and what is made of them."""

    uri: str | None = None
    """Folder or fsspec URL of normal images, keyed as the archive's but for the night, which is ignored."""
    template: str | None = None
    """Path template of the prompts, e.g. {product}/{filename}; default: archive.template."""
    manifest: str | None = None
    """Text file (path or URL) of the image ids to use, one per line, relative to prompts.uri; default: all."""
    k: Positive | None = None
    """Draw this many per group of prompts; default: all of them."""
    seed: int = 0
    """Seed of the draw."""
    rotations: tuple[Literal[90, 180, 270], ...] = ()
    """Turns of every prompt, in degrees, that are prompts too, e.g. [90, 180, 270]."""

    @field_validator("rotations")
    @classmethod
    def _each_once(cls, turns: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(turns)) != len(turns):
            raise ValueError("must be different turns")
        return turns


class AlignConfig(_Section):
    """PatchEAD+'s alignment: photos are moved onto the first of their group, or prompts onto each photo."""

    enabled: bool = False
    """Align; three views per image, so nine times the scoring."""
    ratio: Fraction = 0.75
    """Ratio test of the feature matches: nearest over second nearest descriptor."""
    min_inliers: Annotated[int, Field(ge=3)] = 12
    """Matches that must agree on one rotation and translation; with fewer a photo stays as it is."""
    max_scale: Annotated[float, Field(ge=1)] = 1.1
    """Matches that agree on a scale outside of 1/max_scale to max_scale are refused."""


class MaskConfig(_Section):
    """PatchEAD+'s foreground mask, from the attention of the encoder's last block."""

    enabled: bool = False
    """Weight patch scores by attention; the encoder needs a CLS token."""
    threshold: Share = 0.05
    """Attention, from 0 to 1 in each image, above which a patch is foreground."""
    background: Share = 0.5
    """Weight of the other patches."""


class ScoringConfig(_Section):
    """How patches become scores: method.md §2 to §4, §7 and §9.3 are these fields."""

    mode: Literal["batch", "few_shot"] = "batch"
    """batch compares each image with the others of its group; few_shot with the normal images of prompts.uri."""
    aggregate: Literal["nearest", "farthest"] = "nearest"
    """Mean of the K nearest reference images (default) or of the K farthest."""
    fraction: Fraction = 0.3
    """K as a fraction of the references: K = max(1, floor(fraction * references))."""
    image_top_fraction: Share = 0.01
    """Image score = mean of this fraction of the largest patch scores; 0 means the single maximum."""
    min_batch: Annotated[int, Field(ge=2)] = 5
    """Groups with fewer images get status too_few_images and no score."""
    threshold_z: Annotated[float, Field(gt=0)] = 3.5
    """An image is anomalous when its robust z is above this."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    """Arithmetic of the similarity products; auto is fp32 on a CPU and fp16 on a GPU. int8 is the fastest on a CPU."""
    schedule: Literal["auto", "symmetric", "row_stationary"] = "auto"
    """symmetric halves the work but holds the N x N x P strip; row_stationary holds a row block; auto by memory_gb."""
    memory_gb: Annotated[float, Field(gt=0)] = 4.0
    """Memory in GB that scoring may use per actor, above the embeddings it holds."""
    max_group_size: Positive = 20_000
    """A larger group is refused before anything is embedded, unless max_references is set."""
    max_references: Positive | None = None
    """Compare with a panel of this many images instead of the whole group; off by default."""
    seed: int = 0
    """Seed of the panel."""


class ExplainConfig(_Section):
    """Heatmaps and regions."""

    heatmaps: Literal["flagged", "all", "none"] = "flagged"
    """Which images get a heatmap file: the anomalous ones, every one, or none."""
    format: Literal["png", "webp"] = "png"
    """File format of the heatmaps."""
    max_side: Annotated[int, Field(ge=32)] = 1024
    """Longer side of a heatmap in pixels; larger images are drawn scaled down, regions stay in original pixels."""
    patch_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Patch score above which a pixel belongs to a region; default: where an image score would reach threshold_z."""


class LakeConfig(_Section):
    """Where embeddings, tables and heatmaps go."""

    uri: str = Field(min_length=1)
    """Folder or fsspec URL, e.g. ./lake or s3://bucket/lake."""
    images_per_file: Positive = 64
    """Images per embedding file, which is also the unit of resumption."""


class StorageConfig(_Section):
    """Object storage. Keys come from the environment or an instance role, never from here: this is recorded."""

    endpoint_url: str | None = None
    """S3 endpoint other than AWS, e.g. http://seaweedfs:8333; default: AWS_ENDPOINT_URL, then AWS."""
    region: str | None = None
    """S3 region; default: AWS_REGION, then us-east-1."""
    anonymous: bool = False
    """Use no keys: a public bucket as archive, with the lake on this machine or elsewhere without keys."""


class ResourcesConfig(_Section):
    """What to take from the cluster."""

    expect_gpus: Positive | None = None
    """GPUs that the cluster will have: the run waits for them, and fails rather than start on CPUs without them."""
    wait_minutes: Annotated[float, Field(ge=0)] = 20.0
    """How long to wait for expect_gpus."""
    gpus_per_actor: Annotated[float, Field(ge=0)] | None = None
    """GPUs per actor, a fraction or a whole number; default: 1 when the cluster has GPUs, else 0."""
    cpus_per_actor: Positive | None = None
    """CPUs, and threads, of an actor on a cluster without GPUs; default: 4, or what the largest node has."""
    embed_actors: Positive | None = None
    """Embedding actors; default: as many as fit."""
    score_actors: Positive | None = None
    """Scoring actors; default: as many as fit."""

    @field_validator("gpus_per_actor")
    @classmethod
    def _whole_above_one(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError("must be a fraction below 1 or a whole number")
        return gpus

    local_cpus: Positive | None = None
    """CPUs of the Ray that is started here when no cluster is given (RAY_ADDRESS); default: all of this machine."""


class RunConfig(_Section):
    """This run."""

    run_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name of the run; the same name published again is a no-op. Default: time and a random suffix."""
    max_failed_fraction: Share = 0.01
    """Publish only if at most this fraction of the images failed."""


class Config(_Section):
    """One night's job: every setting of every stage."""

    archive: ArchiveConfig
    encoder: EncoderConfig = EncoderConfig()
    prompts: PromptsConfig = PromptsConfig()
    align: AlignConfig = AlignConfig()
    mask: MaskConfig = MaskConfig()
    scoring: ScoringConfig = ScoringConfig()
    explain: ExplainConfig = ExplainConfig()
    lake: LakeConfig
    storage: StorageConfig = StorageConfig()
    resources: ResourcesConfig = ResourcesConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _lake_outside_archive(self) -> Config:
        archive, lake = (_comparable(uri) + "/" for uri in (self.archive.uri, self.lake.uri))
        if lake.startswith(archive):
            raise ValueError(f"lake.uri {self.lake.uri!r} lies inside archive.uri; heatmaps would be scored as images")
        prompts = _comparable(self.prompts.uri) + "/" if self.prompts.uri else None
        if prompts and (lake.startswith(prompts) or prompts.startswith(lake)):
            raise ValueError(f"prompts.uri {self.prompts.uri!r} and lake.uri overlap; heatmaps would be prompts")
        return self

    @model_validator(mode="after")
    def _prompts_for_few_shot(self) -> Config:
        few_shot = self.scoring.mode == "few_shot"
        if few_shot and self.prompts.uri is None:
            raise ValueError("scoring.mode few_shot needs prompts.uri, a folder or URL of normal images")
        if few_shot and self.scoring.max_references is not None:
            raise ValueError("scoring.max_references is a panel of the batch; in few_shot mode set prompts.k")
        if not few_shot and self.prompts.uri is not None:
            raise ValueError("prompts.uri is given, but scoring.mode is batch; set it to few_shot or remove prompts")
        return self

    @model_validator(mode="after")
    def _no_secrets(self) -> Config:
        addresses = {
            "archive.uri": self.archive.uri,
            "lake.uri": self.lake.uri,
            "encoder.weights": self.encoder.weights,
            "prompts.uri": self.prompts.uri or "",
            "prompts.manifest": self.prompts.manifest or "",
            "storage.endpoint_url": self.storage.endpoint_url or "",
        }
        for key, address in addresses.items():
            if "@" in urlsplit(address).netloc:
                raise ValueError(
                    f"{key} must not hold a user name or password: settings are recorded; use the environment"
                )
        return self


def _comparable(uri: str) -> str:
    """An address in the one form in which two of them can be compared."""
    uri = uri.removeprefix("file://").replace("s3a://", "s3://", 1)
    return (uri if "://" in uri else os.path.abspath(uri)).rstrip("/")  # noqa: PTH100 - no symlink is resolved

"""Settings of what is read: the archive's images, and the normal images of few-shot mode."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from patchead.settings.section import Positive, Section


class ArchiveConfig(Section):
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
    keys: tuple[str, ...] = ()
    """Columns or JSON fields to keep with every image, e.g. [station, line]; keys of the path are kept anyway."""
    folder_is_product: bool = False
    """The name of an image's folder is its product, where neither path nor column nor assume gives one."""
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
    max_bytes: Positive = 1_000_000_000
    """An image whose file, member or value has more bytes than this fails without being decoded."""
    bytes_in_flight: Positive = 256_000_000
    """Bytes of encoded images that one decoding task fetches and holds at a time; a larger image is fetched alone."""
    bit_depth: Literal["auto", 8, 10, 12, 14, 16] = "auto"
    """Bits in use in 16-bit images; auto settles one answer per group: sBIT, or the maximum of up to 32 images."""

    @field_validator("group_by")
    @classmethod
    def _night_and_product_are_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if missing := [key for key in ("night", "product") if key not in keys]:
            raise ValueError(f"must contain night and product, the partitions of the tables; missing {missing}")
        return keys


class PromptsConfig(Section):
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

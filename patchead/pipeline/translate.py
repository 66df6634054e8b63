"""From the checked `Config` to the plain arguments that archive, encoders, lake, numerics and workers take."""

from __future__ import annotations

import os
from hashlib import blake2b

from patchead.archive.catalog import CatalogRequest
from patchead.config import Config
from patchead.encoders import EncoderSpec
from patchead.numerics.leave_one_out import Rule
from patchead.pipeline.decode import DecodeSettings
from patchead.pipeline.draw import DrawSettings
from patchead.pipeline.embed import EncoderFacts
from patchead.pipeline.explain import ExplainSettings
from patchead.pipeline.plan import GIGABYTE, Limits
from patchead.pipeline.scorer import ScoreSettings
from patchead.storage import Storage


def absolute(config: Config) -> Config:
    """Local folders as absolute paths: workers have another working directory."""

    def full(uri: str) -> str:
        return uri if "://" in uri else os.path.abspath(uri)  # noqa: PTH100 - no symlink is resolved

    archive = config.archive.model_copy(update={"uri": full(config.archive.uri)})
    lake = config.lake.model_copy(update={"uri": full(config.lake.uri)})
    return config.model_copy(update={"archive": archive, "lake": lake})


def storage(config: Config) -> Storage:
    return Storage(**config.storage.model_dump())


def catalog_request(config: Config) -> CatalogRequest:
    wanted = config.archive.model_dump(exclude={"max_pixels", "bit_depth"})
    return CatalogRequest(**wanted, storage=storage(config))


def encoder_spec(config: Config, device: str) -> EncoderSpec:
    """``device`` is where the actors run, which settles the two ``auto`` values."""
    encoder = config.encoder
    dtype = ("fp16" if device == "cuda" else "fp32") if encoder.dtype == "auto" else encoder.dtype
    return EncoderSpec(
        name=encoder.name,
        weights=encoder.weights,
        image_size=encoder.image_size,
        layers=encoder.layers,
        fit=encoder.fit,
        bit_depth=config.archive.bit_depth,
        storage=storage(config),
        dtype=dtype,
        device=device,
    )


def decode_settings(config: Config) -> DecodeSettings:
    archive = config.archive
    return DecodeSettings(
        storage=storage(config),
        image_column=archive.image_column,
        id_column=archive.id_column,
        max_pixels=archive.max_pixels,
        bit_depth=archive.bit_depth,
        image_size=config.encoder.image_size,
        fit=config.encoder.fit,
    )


def limits(config: Config, actors: int, device: str) -> Limits:
    scoring = config.scoring
    return Limits(
        memory_bytes=memory_bytes(config),
        schedule=scoring.schedule,
        precision=precision(config, device),
        fraction=scoring.fraction,
        min_batch=scoring.min_batch,
        max_group_size=scoring.max_group_size,
        max_references=scoring.max_references,
        actors=actors,
    )


def memory_bytes(config: Config) -> int:
    return int(config.scoring.memory_gb * GIGABYTE)


def precision(config: Config, device: str) -> str:
    if config.scoring.precision != "auto":
        return config.scoring.precision
    return "fp16" if device == "cuda" else "fp32"


def score_settings(config: Config, encoder: EncoderFacts, device: str, images: str) -> ScoreSettings:
    """``images`` is a digest of the images to score: scores that were staged for others are not taken for theirs."""
    scoring = config.scoring
    used = f"{images} {encoder.encoder_id} {precision(config, device)} " + scoring.model_dump_json(
        include={"aggregate", "fraction", "image_top_fraction", "max_references", "seed"}
    )
    return ScoreSettings(
        rule=Rule(scoring.aggregate, scoring.fraction, scoring.image_top_fraction),
        precision=precision(config, device),
        memory_bytes=memory_bytes(config),
        grid=encoder.grid,
        max_references=scoring.max_references,
        seed=scoring.seed,
        digest=blake2b(used.encode(), digest_size=16).hexdigest(),
    )


def explain_settings(config: Config, run_id: str, encoder_id: str, decoding: DecodeSettings) -> ExplainSettings:
    explain = config.explain
    return ExplainSettings(
        encoder_id=encoder_id,
        threshold_z=config.scoring.threshold_z,
        min_batch=config.scoring.min_batch,
        heatmaps=explain.heatmaps,
        patch_threshold=explain.patch_threshold,
        drawing=DrawSettings(
            run_id=run_id,
            lake_uri=config.lake.uri,
            format=explain.format,
            max_side=explain.max_side,
            decode=decoding,
        ),
    )

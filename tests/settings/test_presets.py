"""Presets against the method: what the paper and MuSc set, beneath whatever is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchead.encoders import describe
from patchead.evaluation.variants import Variant
from patchead.scoring.aggregate import image_scores, neighbours
from patchead.settings.load import iter_fields, load_config
from patchead.settings.model import Config
from patchead.settings.presets import PRESETS
from patchead.settings.resolve import aggregation_of, alignment_of, concrete, encoder_spec, foreground_mask_of

PLACES = {"archive.uri": "/data/archive", "lake.uri": "/data/lake"}
FEW_SHOT = {"scoring.mode": "few_shot", "prompts.uri": "/data/normal"}
CONFIGS = Path(__file__).parents[2] / "jobs/configs/evaluate"


def settings(preset: str, **given: Any) -> Config:
    return load_config(None, given=PLACES | {"preset": preset} | given, unused_ok=True)


def test_none_is_the_default_and_gives_nothing() -> None:
    assert load_config(None, given=PLACES) == settings("none")


def test_a_preset_gives_settings_that_exist() -> None:
    known = {key for key, _ in iter_fields()}
    for name, values in PRESETS.items():
        assert set(values) <= known - {"preset"}, name


def test_patchead_is_the_paper() -> None:
    """method.md §1 (last layer, 448 px, squash), §3 (nearest 30 %), §4 (top 1 %), §5 (both off, mask's weights)."""
    config = settings("patchead", **{"encoder.name": "dinov2-base"})
    spec = encoder_spec(config, "cpu")
    assert (spec.layers, spec.image_size, spec.fit) == ((), 448, "squash")  # no layers: the last, after the final norm
    assert (describe(spec).grid, describe(spec).dim) == ((32, 32), 768)
    rule = aggregation_of(config)
    assert rule.aggregate == "nearest"
    assert neighbours(np.array([1, 3, 10, 99, 199]), rule.fraction).tolist() == [1, 1, 3, 29, 59]
    patches = np.arange(1024, dtype=np.float32)[None]
    assert image_scores(patches, rule.image_top_fraction)[0] == np.mean(np.arange(1014, 1024))
    assert (alignment_of(config), foreground_mask_of(config)) == (None, None)
    plus = settings("patchead", **{"mask.enabled": True, "align.enabled": True})
    mask = foreground_mask_of(plus)
    assert mask is not None
    assert (mask.threshold, mask.background) == (0.05, 0.5)
    assert alignment_of(plus) is not None


def test_patchead_few_shot_takes_the_nearest_prompt_patch_of_all() -> None:
    """method.md §3: K = 1 of however many prompts."""
    rule = aggregation_of(settings("patchead", **FEW_SHOT)).few_shot()
    assert rule.aggregate == "nearest"
    assert neighbours(np.array([1, 4, 10_000]), rule.fraction).tolist() == [1, 1, 1]
    assert rule.image_top_fraction == 0.01


def test_musc_is_what_its_authors_set_as_far_as_it_is_here() -> None:
    """arXiv 2401.16753: ViT-L/14-336 at 518 px, blocks 6, 12, 18, 24, nearest 30 %, the largest patch score."""
    config = concrete(settings("musc"))
    assert (config.encoder.layers, config.encoder.image_size) == ((6, 12, 18, 24), 518)
    spec = encoder_spec(config, "cpu")
    assert spec.name == "open_clip/ViT-L-14-336"
    assert (describe(spec).grid, describe(spec).dim) == ((37, 37), 4 * 1024)
    rule = aggregation_of(config)
    assert (rule.aggregate, rule.fraction) == ("nearest", 0.3)
    # MuSc's count, int(0.3 · (N − 1)), where that isn't 0
    assert neighbours(np.arange(4, 300), rule.fraction).tolist() == [int(0.3 * n + 1e-9) or 1 for n in range(4, 300)]
    assert image_scores(np.array([[0.1, 0.7, 0.3]]), rule.image_top_fraction)[0] == 0.7
    assert (alignment_of(config), foreground_mask_of(config)) == (None, None)


def test_the_quarters_of_musc_follow_the_encoder() -> None:
    base = concrete(settings("musc", **{"encoder.name": "dinov2-base"}))
    assert (base.encoder.layers, base.encoder.image_size) == ((3, 6, 9, 12), 518)


@pytest.mark.parametrize("preset", ["patchead", "musc"])
def test_what_is_given_wins_over_a_preset(preset: str, tmp_path: Path) -> None:
    given = {
        "encoder.name": "dinov2-small",
        "encoder.image_size": 224,
        "encoder.layers": [6],
        "encoder.fit": "pad",
        "scoring.aggregate": "farthest",
        "scoring.repeats": True,
        "scoring.fraction": 0.1,
        "scoring.image_top_fraction": 0.02,
        "align.enabled": True,
        "mask.enabled": True,
        "mask.threshold": 0.2,
        "mask.background": 0.1,
    }
    assert set(PRESETS[preset]) <= set(given)
    assert settings(preset, **given) == settings("none", **given).model_copy(update={"preset": preset})
    path = tmp_path / "settings.yaml"
    path.write_text(f"preset: {preset}\nencoder: {{fit: crop}}\nscoring: {{fraction: 0.2}}\nmask:\n")
    config = load_config(path, ["encoder.layers=last"], PLACES)
    assert (config.encoder.fit, config.encoder.layers, config.scoring.fraction) == ("crop", "last", 0.2)
    assert config.encoder.image_size == PRESETS[preset]["encoder.image_size"]


def test_what_was_recorded_is_read_again_as_it_was() -> None:
    config = concrete(settings("musc", **{"scoring.fraction": 0.1}))
    assert Config.model_validate_json(config.model_dump_json()) == config


# What each of these files set before there were presets.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("patchead_batch", {"encoder.layers": [], "encoder.image_size": 448, "scoring.image_top_fraction": 0.01}),
        ("patchead_few_shot", {"encoder.layers": [], "encoder.image_size": 448, "prompts.k": 4}),
        ("patchead_plus", {"encoder.layers": [], "encoder.image_size": 448, "mask.enabled": False}),
        (
            "musc_dinov2_b_518",
            {"encoder.layers": [3, 6, 9, 12], "encoder.image_size": 518, "scoring.image_top_fraction": 0.0},
        ),
    ],
)
def test_the_published_runs_compute_what_they_did(name: str, expected: dict[str, Any]) -> None:
    found = Variant("", load_config(CONFIGS / f"{name}.yaml", given=PLACES)).settings
    same = {"encoder.name": "timm/vit_base_patch14_dinov2.lvd142m", "encoder.weights": "hub", "encoder.fit": "squash"}
    if name != "patchead_few_shot":
        same |= {"scoring.aggregate": "nearest", "scoring.fraction": 0.3, "scoring.min_batch": 5}
    expected = same | {"archive.bit_depth": "auto", "align.enabled": False} | expected
    assert {key: found[key] for key in expected} == expected

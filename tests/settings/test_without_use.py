"""Settings that would change nothing are refused, with what to do; the same settings where they count are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import patchead
from patchead.errors import SettingsError
from patchead.scoring.aggregate import Aggregation
from patchead.settings.load import UNUSED_PLACES, load_config
from patchead.settings.model import Config
from patchead.settings.without_use import thresholds_of_others

FEW_SHOT = ("scoring.mode=few_shot", "prompts.uri=/normal")
ACCEPTED = ("scoring.references=accepted",)


@pytest.mark.parametrize(
    ("given", "others", "told"),
    [
        (
            "threshold_z=3",
            ("scoring.verdict=top",),
            "their z. Remove it, or set its default, null; or take an",
        ),
        ("thresholds={screw: {z: 3}}", ("scoring.verdict=top",), "verdict top flags the highest scores of every group"),
        ("threshold_z=3", ("scoring.verdict=top", *FEW_SHOT), "whatever their z"),
        ("flag_top=5", (), "it is for scoring.verdict top, and that is auto. Remove it, or set its default, 0.01; or"),
        ("flag_top=5", ("scoring.verdict=mad",), "that is mad"),
        ("alpha=0.05", (), "scoring.verdict auto without prompts flags by no p-value"),
        ("alpha=0.05", ("scoring.verdict=upper_fit",), "or set scoring.threshold_z, its limit."),
        ("alpha=0.05", ("scoring.verdict=mad", *FEW_SHOT), "scoring.verdict mad flags by no p-value"),
        ("alpha=0.05", ("scoring.verdict=top", *FEW_SHOT), "verdict top flags scoring.flag_top of every group"),
        ("alpha=0.05", ("scoring.threshold_z=3", *FEW_SHOT), "scoring.threshold_z takes its place"),
        ("alpha=0.05", ("scoring.false_discovery=0.1", *ACCEPTED), "scoring.false_discovery takes its place"),
        ("repeats=true", ("scoring.aggregate=farthest",), "or set scoring.aggregate nearest."),
        ("repeats=true", FEW_SHOT, "compared with prompts alone"),
        ("repeats=true", ACCEPTED, "compared with accepted ones"),
        ("subspace=true", FEW_SHOT, "with prompts the group is not looked at as a whole"),
        ("position_level=true", FEW_SHOT, "with prompts the group is not looked at as a whole"),
    ],
)
def test_what_has_no_effect_is_refused(given: str, others: tuple[str, ...], told: str) -> None:
    key = f"scoring.{given.partition('=')[0]}"
    with pytest.raises(SettingsError) as caught:
        load_config(None, [f"scoring.{given}", *others], UNUSED_PLACES)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{key} has no effect: ") and told in line


@pytest.mark.parametrize(
    "given",
    [
        ("scoring.alpha=0.05", *FEW_SHOT),
        ("scoring.alpha=0.05", "scoring.verdict=reference"),
        ("scoring.alpha=0.05", *ACCEPTED),
        ("scoring.alpha=0.05", *ACCEPTED, "scoring.thresholds={screw: {z: 3}}"),  # of the other products
        ("scoring.alpha=0.01", "scoring.flag_top=0.01", "scoring.repeats=false", "scoring.verdict=mad"),  # defaults
        ("scoring.flag_top=5", "scoring.verdict=top"),
        ("scoring.repeats=true", "scoring.subspace=true", "preset=musc"),
        ("scoring.subspace=true", *ACCEPTED),
    ],
    ids=str,
)
def test_what_counts_is_not_refused_and_settings_written_out_are_read_again(given: tuple[str, ...]) -> None:
    config = load_config(None, given, UNUSED_PLACES)
    plain = config.model_dump(mode="json")
    flat = {
        f"{section}.{key}": value for section, of in plain.items() if section != "preset" for key, value in of.items()
    }
    assert load_config(None, given=flat | {"preset": config.preset}) == config


def test_a_run_that_was_published_with_such_settings_can_be_read() -> None:
    config = load_config(None, ["scoring.alpha=0.05"], UNUSED_PLACES, unused_ok=True)
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_thresholds_of_products_that_a_night_lacks_are_told_of() -> None:
    config = load_config(None, ["scoring.thresholds={screw: {z: 3}, cable: {z: 2}, bolts: {z: 2}}"], UNUSED_PLACES)
    cable, bolts = thresholds_of_others(config, ["bolt", "screw"])
    assert cable == "scoring.thresholds has cable, which is no product of this run."
    assert bolts == "scoring.thresholds has bolts, which is no product of this run. Did you mean 'bolt'?"
    alone = config.model_copy(update={"archive": config.archive.model_copy(update={"products": ("screw",)})})
    assert thresholds_of_others(alone, ["screw"]) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"alpha": 0.05},
            r"^alpha has no effect: verdict auto without prompts flags .* set threshold_z, its limit\.$",
        ),
        ({"flag_top": 3}, r"^flag_top has no effect: it is for verdict top, and that is auto"),
        ({"repeats": True, "prompts": [np.zeros((8, 8, 3), np.uint8)]}, r"^repeats has no effect: images are compared"),
        ({"repeats": True, "aggregation": Aggregation("farthest")}, r"^repeats has no effect with aggregation"),
        (
            {"threshold_z": 38, "prompts": [np.zeros((8, 8, 3), np.uint8)]},
            r"^settings: threshold_z must be at most 37 by prompts",
        ),
        ({"repeats": True, "schedule": "bounded"}, r"^settings: repeats needs .* schedule bounded leaves some out"),
        ({"threshold_z": float("inf")}, r"^threshold_z: must be less than or equal to 1000000; got inf"),
    ],
    ids=str,
)
def test_a_notebook_is_told_by_its_own_names(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        patchead.score([np.zeros((8, 8, 3), np.uint8)] * 5, encoder="timm/test_vit", weights="random", **given)

"""Settings: every refusal names the key, the value, what is allowed and, where it can, the nearest known key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patchead.errors import SettingsError
from patchead.settings.load import UNUSED_PLACES, iter_fields, load_config
from patchead.settings.model import Config
from patchead.settings.resolve import concrete, encoder_spec

MINIMUM = {"archive.uri": "/data/archive", "lake.uri": "/data/lake"}
CONFIGS = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))


def refusal(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_config(path, overrides, MINIMUM)
    return str(caught.value)


def test_defaults_are_those_of_the_method() -> None:
    scoring = load_config(None, given=MINIMUM).scoring
    assert (scoring.aggregate, scoring.fraction, scoring.image_top_fraction) == ("nearest", 0.3, 0.01)
    assert (scoring.min_batch, scoring.threshold_z, scoring.max_references) == (5, None, None)


def test_the_recommendation_is_the_default() -> None:
    config = concrete(load_config(None, given=MINIMUM))
    assert (config.encoder.layers, config.encoder.image_size) == ((6, 9, 12), 448)
    assert config.encoder.name == "timm/vit_small_patch14_dinov2"
    large = concrete(load_config(None, ["encoder.name=dinov2-large"], MINIMUM))
    assert (large.encoder.layers, large.encoder.image_size) == ((12, 18, 24), 448)
    assert concrete(large) == large


def test_no_layers_mean_the_last_as_they_did_in_older_files(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("archive: {uri: a}\nlake: {uri: b}\nencoder: {layers: []}\n")
    old, new = load_config(path), load_config(path, ["encoder.layers=last"])
    assert encoder_spec(old, "cpu") == encoder_spec(new, "cpu")
    assert encoder_spec(old, "cpu").layers == concrete(new).encoder.layers == ()


def test_overrides_win_over_the_file_and_given_values_over_both(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("archive: {uri: a, limit: 3}\nlake: {uri: b}\nscoring: {fraction: 0.5, aggregate: farthest}\n")
    config = load_config(path, ["scoring.fraction=0.1", "archive.limit=4"], {"archive.limit": 5})
    assert config.scoring.fraction == 0.1
    assert config.scoring.aggregate == "farthest"
    assert config.archive.limit == 5


def test_an_empty_section_means_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("archive: {uri: a}\nlake: {uri: b}\nrun:\n")
    assert load_config(path).run.max_failed_fraction == 0.01


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    text = refusal("scoring.fractoin=0.3")
    assert "scoring.fractoin is not a setting" in text
    assert "Did you mean 'scoring.fraction'?" in text
    assert "image_top_fraction" in text  # what is allowed in the section


def test_an_unknown_section_is_refused_with_the_nearest_known_one() -> None:
    text = refusal("scorin.fraction=0.3")
    assert "Did you mean 'scoring'?" in text
    assert "Allowed in the file: preset, archive, encoder" in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("scoring.fraction=2", ["scoring.fraction", "less than or equal to 1", "got 2"]),
        ("scoring.fraction=0", ["scoring.fraction", "greater than 0", "got 0"]),
        ("scoring.aggregate=median", ["scoring.aggregate", "'nearest' or 'farthest'", "got 'median'"]),
        (
            "scoring.verdict=log",
            ["scoring.verdict: must be 'auto', 'upper_fit', 'mad', 'reference' or 'top'", "got 'log'"],
        ),
        ("scoring.threshold_z=0", ["scoring.threshold_z", "greater than 0", "got 0"]),
        ("scoring.alpha=1", ["scoring.alpha", "less than 0.5", "got 1"]),
        ("scoring.flag_top=2.5", ["scoring.flag_top: must be a share below 1 or a whole number from 1", "got 2.5"]),
        ("scoring.thresholds={screw: {z: 0}}", ["scoring.thresholds.screw.z", "greater than 0", "got 0"]),
        ("scoring.thresholds={screw: {}}", ["scoring.thresholds.screw.z is required", "screw: {z: 2.6}"]),
        ("scoring.thresholds={screw: 2.6}", ["scoring.thresholds.screw", "got 2.6", "screw: {z: 2.6}"]),
        ("scoring.thresholds.screw.zz=2", ["scoring.thresholds.screw.zz is not a setting", "screw: {z: 2.6}"]),
        ("explain.top=-1", ["explain.top", "greater than or equal to 0", "got -1"]),
        ("archive.night=yesterday", ["archive.night", "valid date", "got 'yesterday'", "YYYY-MM-DD"]),
        ("archive.limit=0", ["archive.limit", "greater than or equal to 1", "got 0"]),
        ("encoder.layers=[0]", ["encoder.layers: must be auto, last, quarters, or blocks counted from 1", "got [0]"]),
        ("encoder.layers=first", ["encoder.layers: must be auto, last, quarters, or blocks", "got 'first'"]),
        ("encoder.layers=[6.5]", ["encoder.layers: must be auto", "got [6.5]"]),
        ("encoder.layers=null", ["encoder.layers: must be auto", "got None"]),
        ("encoder.image_size=0", ["encoder.image_size: must be auto or a whole number of pixels", "got 0"]),
        ("encoder.image_size=large", ["encoder.image_size: must be auto or a whole number", "got 'large'"]),
        ("preset=paper", ["preset: must be 'none', 'patchead' or 'musc'", "got 'paper'"]),
        ("archive.group_by=[product]", ["archive.group_by", "night and product", "missing ['night']"]),
        ("run.run_id=../x", ["run.run_id", "must match pattern", "got '../x'"]),
        ("resources.gpus_per_actor=1.5", ["resources.gpus_per_actor", "whole number", "got 1.5"]),
        ("run.max_failed_fraction=1.5", ["run.max_failed_fraction", "got 1.5"]),
    ],
)
def test_a_bad_value_is_refused_by_name(override: str, words: list[str]) -> None:
    text = refusal(override)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1.0e+300"])
def test_no_number_is_beyond_all_bounds(value: str) -> None:
    floats = [key for key, field in iter_fields() if "float" in str(field.annotation)]
    assert {"scoring.threshold_z", "resources.gpus_per_actor", "run.grace_seconds"} < set(floats)
    for key in (*floats, "scoring.thresholds.screw.z"):
        assert re.search(rf"^{key}: must be .* -?[\de.-]+; got -?(inf|nan|1e\+300)\. \w", refusal(f"{key}={value}")), (
            key
        )


@pytest.mark.parametrize("given", ["scoring.threshold_z=38", "scoring.thresholds={screw: {z: 38}}"])
def test_a_threshold_that_no_p_value_reaches_is_refused(given: str) -> None:
    prompts = ("scoring.mode=few_shot", "prompts.uri=/n")
    assert "must be at most 37 by prompts, whose p-values end there; got 38. Lower it" in refusal(given, *prompts)
    for accepted in ("scoring.verdict=reference", "scoring.references=accepted"):
        assert "must be at most 6 by an accepted run" in refusal(given.replace("38", "7"), accepted)
    load_config(None, [given, *prompts, "scoring.verdict=mad"], MINIMUM)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scoring.accepted=october"], "set scoring.verdict reference or scoring.references accepted"),
        (["scoring.accepted=october", "scoring.verdict=mad"], "set scoring.verdict reference"),
        (["scoring.false_discovery=0.1"], "needs the p-values of scoring.verdict reference"),
        (["scoring.false_discovery=0.1", "scoring.references=accepted", "scoring.verdict=mad"], "needs the p-values"),
        (["scoring.false_discovery=0.1", "scoring.verdict=reference", "scoring.threshold_z=3"], "takes the place of"),
        (["scoring.false_discovery=1", "scoring.verdict=reference"], "less than 1"),
        (["scoring.references=accepted", "align.enabled=true"], "cannot be aligned"),
        (
            ["scoring.mode=few_shot", "prompts.uri=p", "align.enabled=true", "scoring.window=1"],
            "scoring.window 1 and align.enabled cannot be combined in few_shot mode",
        ),
        (["scoring.references=accepted", "scoring.window=auto"], "scoring.window auto is settled night by night"),
        (["scoring.verdict=reference", "scoring.window=auto"], "scoring.window auto is settled night by night"),
        (["scoring.references=accepted", "scoring.mode=few_shot", "prompts.uri=/n"], "is for scoring.mode batch"),
        (
            ["scoring.mode=few_shot", "prompts.uri=p", "prompts.k=2", "scoring.window=0"],
            "scoring.window 0 needs 3 prompts that differ, and prompts.k is 2",
        ),
    ],
)
def test_settings_of_accepted_runs_that_contradict_others_are_refused(overrides: list[str], words: str) -> None:
    assert words in refusal(*overrides)
    load_config(None, ["scoring.references=accepted", "scoring.false_discovery=0.1", "scoring.accepted=x"], MINIMUM)


@pytest.mark.parametrize("other", ["scoring.window=1", "scoring.window=auto", "scoring.schedule=bounded"])
def test_repeats_go_with_nothing_that_leaves_patches_out(other: str) -> None:
    name = other.partition("=")[0]
    assert f"scoring.repeats needs the distances of every patch, and {name} " in refusal("scoring.repeats=true", other)


@pytest.mark.parametrize(
    "other",
    ["scoring.window=auto", "scoring.schedule=bounded", "scoring.references=accepted", "align.enabled=true"],
)
def test_the_position_level_is_of_all_patches_of_a_night_in_place(other: str) -> None:
    told = (
        f"scoring.position_level needs the scores of a place in all images of the group, and {other.replace('=', ' ')} "
    )
    assert told in refusal("scoring.position_level=true", other)
    assert load_config(None, ["scoring.position_level=true", "scoring.window=1"], MINIMUM).scoring.position_level


def test_a_product_has_its_own_threshold() -> None:
    given = MINIMUM | {"scoring.thresholds": {"a.b": {"z": 4}}}
    thresholds = load_config(None, ["scoring.thresholds.screw.z=2.6"], MINIMUM).scoring.thresholds
    assert {name: own.z for name, own in thresholds.items()} == {"screw": 2.6}
    assert load_config(None, given=given).scoring.thresholds["a.b"].z == 4


def test_all_faults_are_listed_at_once() -> None:
    assert len(refusal("scoring.fraction=2", "archive.limit=0", "lake.nope=1").splitlines()) == 3


def test_required_settings_are_named_with_the_way_to_set_them() -> None:
    with pytest.raises(SettingsError, match=r"archive\.uri is required.*--set archive\.uri="):
        load_config(None)


def test_a_lake_inside_the_archive_is_refused() -> None:
    with pytest.raises(SettingsError, match="inside"):
        load_config(None, given={"archive.uri": "/data", "lake.uri": "/data/lake"})
    with pytest.raises(SettingsError, match="inside"):
        load_config(None, given={"archive.uri": ".", "lake.uri": "lake"})


def test_a_lake_inside_the_archive_is_seen_through_protocols() -> None:
    with pytest.raises(SettingsError, match="inside"):
        load_config(None, given={"archive.uri": "/data", "lake.uri": "file:///data/lake"})
    with pytest.raises(SettingsError, match="inside"):
        load_config(None, given={"archive.uri": "s3://b/a", "lake.uri": "s3a://b/a/lake"})


def test_passwords_in_addresses_are_refused_without_being_repeated() -> None:
    text = refusal("storage.endpoint_url=http://user:geheim@host:8333")
    assert "storage.endpoint_url" in text
    assert "geheim" not in text


@pytest.mark.parametrize("override", ["scoring", "=1", "scoring.fraction=[", ""])
def test_a_malformed_override_is_refused(override: str) -> None:
    assert "--set" in refusal(override)


@pytest.mark.parametrize("content", ["[1, 2]", "a: b: c", "\x00"])
def test_a_malformed_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    assert "settings.yaml" in refusal(path=path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refusal(path=tmp_path / "nowhere.yaml")


def test_off_is_a_word() -> None:
    given = {"archive.uri": "a", "lake.uri": "b"}
    for off in ("off", "'off'"):
        config = load_config(None, [f"run.log_level={off}", f"scoring.window={off}"], given)
        assert (config.run.log_level, config.scoring.window) == ("off", "off")


def test_assumed_keys_and_ids_may_look_like_dates_and_numbers() -> None:
    config = load_config(None, ["archive.assume={night: 2026-11-21, product: 7}", "run.run_id=20261121"], MINIMUM)
    assert config.archive.assume == {"night": "2026-11-21", "product": "7"}
    assert config.run.run_id == "20261121"


def test_every_setting_is_documented() -> None:
    assert [key for key, field in iter_fields() if not (field.description or "").endswith(".")] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_the_configs_in_the_repository_are_valid(path: Path) -> None:
    assert isinstance(load_config(path, given=MINIMUM), Config)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("archive.template={product}/{filename}", "{product}/{filename}"),
        ("archive.template={product}", "{product}"),
        ("archive.template='{product}/{filename}'", "{product}/{filename}"),
        ("archive.template=[{product}]_{filename}", "[{product}]_{filename}"),
        ("archive.template=null", None),
    ],
)
def test_a_template_needs_no_quotes(override: str, value: str | None) -> None:
    assert load_config(None, [override], UNUSED_PLACES).archive.template == value


@pytest.mark.parametrize("name", ["20261121", "2026-11-21", "1e5", "yes", "007"])
def test_text_is_text_whatever_yaml_would_make_of_it(name: str) -> None:
    assert load_config(None, [f"run.run_id={name}"], UNUSED_PLACES).run.run_id == name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("naming.keywords={unknown: [a mark]}", "cannot be a type"),
        ("naming.keywords={scratch: []}", "scratch needs at least one phrase"),
        ("naming.keywords={scratch: ['']}", "scratch needs at least one phrase"),
        ("naming.level=0.5", "naming.level"),
        ("naming.distance=0", "naming.distance"),
    ],
)
def test_names_that_cannot_be_given_are_refused(given: str, told: str) -> None:
    assert told in refusal(given)

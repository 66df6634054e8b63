from __future__ import annotations

import pytest

from patchead.errors import SettingsError
from patchead.evaluation.variants import AS_CONFIGURED, parse_sweep, variants
from tests.helpers.tiny_tree import FEW_SHOT, loader


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("scoring.fraction=0.1,0.3", "scoring.fraction", ["0.1", "0.3"]),
        ("scoring.fraction=0.1", "scoring.fraction", ["0.1"]),
        ("encoder.layers=[6,9,12]", "encoder.layers", ["[6,9,12]"]),
        ("encoder.layers=[12],[6, 9],[]", "encoder.layers", ["[12]", "[6, 9]", "[]"]),
        ("mask.enabled = false , true", "mask.enabled", ["false", "true"]),
        ('encoder.weights="a,b.pt",hub', "encoder.weights", ['"a,b.pt"', "hub"]),
        ("encoder.weights=a=b.pt,hub", "encoder.weights", ["a=b.pt", "hub"]),
    ],
)
def test_a_sweep_is_split_at_commas_outside_of_brackets_and_quotes(text: str, key: str, values: list[str]) -> None:
    assert parse_sweep(text) == (key, values)


@pytest.mark.parametrize("text", ["", "scoring.fraction", "=1,2", "a=", "a=1,,2", "a=1,", "a=[1,2", "a=1]", "a='1,2"])
def test_a_sweep_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--sweep must be section\.key=value"):
        parse_sweep(text)


def test_every_combination_is_a_variant_with_its_settings() -> None:
    found = variants(loader(), ["encoder.layers=[12],[6,9,12]", "scoring.fraction=0.1,0.3"])
    assert [variant.label for variant in found] == [
        "encoder.layers=[12], scoring.fraction=0.1",
        "encoder.layers=[12], scoring.fraction=0.3",
        "encoder.layers=[6,9,12], scoring.fraction=0.1",
        "encoder.layers=[6,9,12], scoring.fraction=0.3",
    ]
    assert [variant.config.encoder.layers for variant in found] == [(12,), (12,), (6, 9, 12), (6, 9, 12)]
    assert [variant.aggregation.fraction for variant in found] == [0.1, 0.3, 0.1, 0.3]
    keys = [variant.encoder_key for variant in found]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_nothing_swept_is_one_variant_and_fixed_overrides_lie_below_the_sweep() -> None:
    (only,) = variants(loader(), [], ["mask.enabled=true"])
    assert (only.label, only.config.mask.enabled) == (AS_CONFIGURED, True)
    both = variants(loader(), ["mask.enabled=false,true"], ["mask.enabled=true", "align.enabled=true"])
    assert [(v.mask is not None, v.align is not None) for v in both] == [(False, True), (True, True)]
    assert both[0].encoder_key == both[1].encoder_key


@pytest.mark.parametrize(
    ("sweeps", "fixed", "why"),
    [
        (["scoring.fractoin=0.1,0.2"], (), "scoring.fractoin is not a setting"),
        (["scoring.fraction=0.1,2"], (), r"scoring\.fraction.*got 2"),
        (["scoring.fraction=0.1", "scoring.fraction=0.2"], (), "scoring.fraction twice"),
        (["scoring.alpha=0.05,0.1"], (), "the same figures"),
        (["explain.top=3,4"], (), "the same figures"),
        (["scoring.seed=0,1"], (), "the same figures"),
        (["scoring.fraction=0.1,0.3"], FEW_SHOT, "the same figures"),
        (["prompts.k=1,2"], (), "the same figures"),
        (["mask.threshold=0.1,0.2"], (), "the same figures"),
        (["scoring.subspace=false,true"], (), "scoring.subspace must be false in an evaluation; got True"),
        ([], ("scoring.mode=few_shot", "prompts.uri=some/folder"), "dataset://train in an evaluation; got 'some/fold"),
        ([], (*FEW_SHOT, "prompts.manifest=list.txt"), "without a manifest"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(sweeps: list[str], fixed: tuple[str, ...], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        variants(loader(*fixed), sweeps)


def test_what_no_variant_uses_is_refused_and_what_one_uses_is_not() -> None:
    with pytest.raises(SettingsError, match=r"^scoring\.flag_top has no effect: it is for scoring\.verdict top"):
        variants(loader("scoring.flag_top=5"), ["scoring.verdict=mad,upper_fit"])
    assert len(variants(loader("scoring.flag_top=5"), ["scoring.verdict=mad,top"])) == 2
    assert len(variants(loader("scoring.repeats=true"), ["scoring.aggregate=nearest,farthest"])) == 2


def test_figures_do_not_depend_on_where_and_how_fast_they_are_computed() -> None:
    (plain,) = variants(loader(), [])
    for same in ("scoring.memory_gb=1", "scoring.schedule=symmetric", "encoder.batch_size=3", "explain.top=9"):
        assert variants(loader(same), [])[0].settings == plain.settings
    for other in ("scoring.precision=int8", "encoder.fit=crop", "scoring.threshold_z=9", "archive.bit_depth=12"):
        assert variants(loader(other), [])[0].settings != plain.settings

"""Verdict rules against plain loops of method.md §7, and what they do where a rule has nothing to hold on to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from patchead.errors import SettingsError
from patchead.scoring.conformal import benjamini_hochberg, conformal_p_values, score_above
from patchead.scoring.prediction import PredictionInterval, z_of_p
from patchead.scoring.upper_fit import FLAT, Null, upper_fit
from patchead.scoring.verdict import FEW, VerdictSettings, judge, mad_null
from tests.reference import oracle

AUTO = VerdictSettings()
scores_in_a_group = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=3, max_size=120)


def night(good: int, defects: int = 0, seed: int = 0) -> np.ndarray:
    """Good scores around 0.1 and defects clearly above."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0.1, 0.01, good), rng.normal(0.25, 0.03, defects)])


@given(scores_in_a_group, st.sampled_from([1.0, 2.0, 3.0]))
@settings(deadline=None)
def test_the_upper_fit_follows_its_steps(values: list[float], t: float) -> None:
    scores = np.array(values)
    m, s, flagged = oracle.upper_fit(values, t)
    null = upper_fit(scores, t)
    if s > FLAT:
        assert (null.centre, null.scale) == pytest.approx((m, s), rel=1e-9, abs=1e-12)
        clear = np.abs(scores - (m + t * s)) > 1e-9
        expected = np.isin(np.arange(len(scores)), list(flagged))
        assert ((null.z(scores) > t) == expected)[clear].all()
    else:
        assert null.scale == 0


@pytest.mark.parametrize("defects", [0, 1, 5, 20])
def test_the_upper_fit_finds_the_normal_that_good_scores_follow(defects: int) -> None:
    null = upper_fit(night(200, defects), 3.0)
    assert null.centre == pytest.approx(0.1, abs=0.003)
    assert null.scale == pytest.approx(0.01, rel=0.25)


def test_near_twins_that_score_very_low_have_no_say() -> None:
    scores = night(200, 10)
    with_twins = np.concatenate([scores, np.full(60, 0.001)])
    assert judge(with_twins, AUTO).flagged[:210].tolist() == judge(scores, AUTO).flagged.tolist()


def test_no_more_than_two_fifths_are_left_out_of_a_fit() -> None:
    scores = np.concatenate([np.linspace(0.1, 0.101, 50), np.linspace(0.4, 0.6, 50)])
    m, s, _ = oracle.upper_fit(scores.tolist(), 3.0)
    assert (upper_fit(scores, 3.0).centre, upper_fit(scores, 3.0).scale) == pytest.approx((m, s))


@given(st.integers(1, 130), st.floats(0, 1), st.floats(0, 5e-7))
def test_a_group_that_is_constant_up_to_rounding_has_scale_and_z_zero(n: int, value: float, rounding: float) -> None:
    scores = value + rounding * np.random.default_rng(n).uniform(-1, 1, n)
    assert upper_fit(scores, 3.0).scale == mad_null(scores).scale == 0
    for verdict in ("auto", "upper_fit", "mad"):
        judged = judge(scores, VerdictSettings(verdict=verdict))
        assert (judged.z == 0).all()
        assert not judged.flagged.any()
        assert judged.threshold_score == math.inf
        assert judged.rule == ("upper_fit" if verdict == "upper_fit" or (verdict == "auto" and n >= FEW) else "mad")


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("verdict", ["auto", "upper_fit", "mad", "top"])
def test_groups_of_hardly_any_image(n: int, verdict: str) -> None:
    scores = np.array([0.1, 0.9])[:n]
    judged = judge(scores, VerdictSettings(verdict=verdict, flag_top=5))
    assert judged.z.shape == judged.flagged.shape == (n,)
    assert np.isfinite(judged.z).all()
    assert judged.flagged.sum() == (n if verdict == "top" else 0)


@given(scores_in_a_group)
def test_mad_is_the_median_of_the_deviations(values: list[float]) -> None:
    null = mad_null(np.array(values))
    centre, scale = oracle.mad_fit(values)
    assert null.centre == pytest.approx(centre)
    assert null.scale == pytest.approx(scale, abs=1e-12)


def test_one_outlier_among_equals_stands_out_finitely() -> None:
    scores = np.array([0.1] * 11 + [0.4])
    judged = judge(scores, AUTO)
    assert judged.z[11] == pytest.approx(12 / 1.2533)
    assert (judged.z[:11] == 0).all()
    assert judged.flagged.tolist() == [False] * 11 + [True]
    assert 0.1 < judged.threshold_score < 0.4


@pytest.mark.parametrize("n", [FEW, 20_000])
def test_a_defect_among_equals_is_flagged_in_a_large_group_too(n: int) -> None:
    judged = judge(np.append(np.full(n, 0.1), 0.11), AUTO)
    assert judged.rule == "mad"  # says that no line could be fitted
    assert np.flatnonzero(judged.flagged).tolist() == [n]


def test_few_images_are_judged_by_their_median() -> None:
    assert judge(night(FEW - 1), AUTO).rule == "mad"
    assert judge(night(FEW), AUTO).rule == "upper_fit"
    assert judge(night(FEW - 1), AUTO).threshold_z == 3.5
    assert judge(night(FEW), AUTO).threshold_z == 3.0
    assert judge(night(10), VerdictSettings(verdict="upper_fit")).rule == "upper_fit"
    assert judge(night(90), VerdictSettings(verdict="mad")).rule == "mad"


@given(scores_in_a_group, st.sampled_from(["auto", "upper_fit", "mad"]), st.sampled_from([None, 1.0, 2.5]))
@settings(deadline=None)
def test_what_is_flagged_is_what_scores_above_the_threshold(
    values: list[float], verdict: str, threshold: float | None
) -> None:
    scores = np.array(values)
    judged = judge(scores, VerdictSettings(verdict=verdict, threshold_z=threshold))
    assert (judged.flagged == (judged.z > judged.threshold_z)).all()
    clear = np.abs(scores - judged.threshold_score) > 1e-9
    assert (judged.flagged == (scores > judged.threshold_score))[clear].all()
    assert threshold is None or judged.threshold_z == threshold
    assert judged.p_values is None


def test_scores_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="2 of 4 scores are not finite: leave them out"):
        judge(np.array([0.1, np.nan, 0.2, np.inf]), AUTO)


@pytest.mark.parametrize(
    ("flag_top", "count"), [(0.01, 1), (0.05, 5), (0.004, 1), (0.996, 100), (100, 100), (3, 3), (1, 1), (500, 100)]
)
def test_top_flags_a_share_or_a_count(flag_top: float, count: int) -> None:
    scores = np.random.default_rng(3).permutation(np.linspace(0.1, 0.3, 100))
    judged = judge(scores, VerdictSettings(verdict="top", flag_top=flag_top))
    assert judged.rule == "top"
    assert judged.flagged.sum() == count
    assert set(np.flatnonzero(judged.flagged)) == set(np.argsort(-scores)[:count])
    assert (judged.flagged == (scores > judged.threshold_score)).all()
    np.testing.assert_array_equal(judged.z, judge(scores, AUTO).z)


def test_top_takes_the_first_of_equals() -> None:
    judged = judge(np.array([0.2, 0.3, 0.3, 0.3, 0.1]), VerdictSettings(verdict="top", flag_top=2))
    assert judged.flagged.tolist() == [False, True, True, False, False]
    assert (judged.threshold_score, judged.threshold_z) == (0.3, judged.z[3])  # the third is as high, and not flagged


@pytest.mark.parametrize("count", [1, 4, 30, 31])
def test_tops_thresholds_are_the_highest_that_are_not_flagged(count: int) -> None:
    scores = night(30)
    judged = judge(scores, VerdictSettings(verdict="top", flag_top=count))
    assert (judged.flagged == (judged.z > judged.threshold_z)).all()
    assert (judged.flagged == (scores > judged.threshold_score)).all()
    assert judged.threshold_score > 0.05 and judged.normal_score == math.inf


def test_a_share_flags_one_of_any_group() -> None:
    assert judge(night(7), VerdictSettings(verdict="top")).flagged.sum() == 1


@given(st.lists(st.integers(0, 100), min_size=2, max_size=16), st.lists(st.integers(0, 300), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_prompts_give_the_p_value_of_one_more_normal_image(null: list[int], values: list[int]) -> None:
    if len(set(null)) == 1:
        return
    null_scores, scores = np.array(null) / 1000, np.array(values) / 1000
    judged = judge(scores, AUTO, null_scores=null_scores)
    assert judged.p_values is not None
    for p, score in zip(judged.p_values, scores, strict=True):
        assert p == pytest.approx(oracle.prompt_p(score, null_scores.tolist()), abs=1e-6)
    np.testing.assert_allclose(stats.norm.sf(judged.z), judged.p_values, rtol=1e-6, atol=1e-15)
    assert (judged.flagged == (judged.p_values < 0.01)).all()
    assert judged.rule == "few_shot"


def test_one_image_alone_has_its_p_value_from_the_prompts() -> None:
    null_scores = np.array([0.050, 0.052, 0.049, 0.051])
    judged = judge(np.array([0.5]), AUTO, null_scores=null_scores)
    assert judged.z[0] > 4
    assert judged.flagged.all()
    assert judge(np.array([0.0505]), AUTO, null_scores=null_scores).z[0] == pytest.approx(0, abs=0.1)
    assert judge(np.array([0.5]), AUTO, null_scores=null_scores, views_of=1).rule == "few_prompts"


def test_good_images_are_flagged_at_the_level() -> None:
    rng = np.random.default_rng(7)
    for k in (3, 8, 16):
        flagged = [
            judge(rng.normal(0.1, 0.01, 20), AUTO, null_scores=rng.normal(0.1, 0.01, k)).flagged.mean()
            for _ in range(2000)
        ]
        assert np.mean(flagged) == pytest.approx(0.01, abs=0.0025)


def test_prompts_that_score_alike_up_to_rounding() -> None:
    null_scores = 0.1 + 1e-9 * np.arange(4)
    judged = judge(np.array([0.1 + 2e-8, 0.1, 0.05, 0.2]), AUTO, null_scores=null_scores)
    assert judged.flagged.tolist() == [False, False, False, True]
    assert np.isfinite(judged.z).all()
    assert judged.threshold_score == pytest.approx(0.1, abs=1e-5)


def test_prompts_without_two_scores_are_refused() -> None:
    for wrong in ([0.1], [0.1, np.nan], []):
        with pytest.raises(ValueError, match="at least two finite scores"):
            PredictionInterval.of(np.array(wrong))


def test_other_rules_take_the_group_in_few_shot_mode_too() -> None:
    scores, null_scores = night(100, 5), np.array([0.1, 0.11, 0.12])
    judged = judge(scores, VerdictSettings(verdict="upper_fit"), null_scores=null_scores)
    np.testing.assert_array_equal(judged.z, judge(scores, AUTO).z)
    top = judge(scores, VerdictSettings(verdict="top", flag_top=2), null_scores=null_scores)
    np.testing.assert_array_equal(top.z, judge(scores, AUTO, null_scores=null_scores).z)
    assert (top.rule, top.flagged.sum()) == ("top", 2)


def test_z_of_p_is_finite_and_keeps_nan() -> None:
    z = z_of_p(np.array([0.0, 1.0, 0.5, np.nan, 1e-20]))
    assert np.isfinite(z[[0, 1, 2, 4]]).all()
    assert np.isnan(z[3])
    assert z[0] > 37 > z[4] == pytest.approx(stats.norm.isf(1e-20))
    assert z[1] < -8
    assert z[2] == 0


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40), st.lists(st.integers(-1, 21), min_size=1, max_size=10))
def test_a_reference_counts_those_that_score_as_high(reference: list[int], values: list[int]) -> None:
    got = conformal_p_values(np.array(values, float), np.array(reference, float))
    assert got.tolist() == [oracle.reference_p(value, reference) for value in values]
    for alpha in (0.05, 0.1, 0.5):
        limit = score_above(np.array(reference, float), alpha)
        assert ((np.array(values) > limit) == (got <= alpha * (1 + 1e-9))).all()


def test_a_reference_is_no_surprise_to_its_likes() -> None:
    rng = np.random.default_rng(11)
    p = np.concatenate([conformal_p_values(rng.random(50), rng.random(199)) for _ in range(400)])
    for level in (0.01, 0.05):
        assert (p <= level).mean() == pytest.approx(level, rel=0.2)


def test_the_rule_reference_needs_one_that_is_large_enough() -> None:
    asked = VerdictSettings(verdict="reference")
    reference = np.linspace(0.1, 0.2, 99)
    judged = judge(np.array([0.15, 0.3]), asked, reference=reference)
    assert judged.flagged.tolist() == [False, True]
    assert judged.threshold_score == reference[-1]
    for short in (None, reference[:-1]):
        with pytest.raises(SettingsError, match=r"at least 99 scores at level 0\.01"):
            judge(np.array([0.15]), asked, reference=short)


@given(st.lists(st.integers(1, 1000).map(lambda n: n / 1000), min_size=1, max_size=30))
def test_false_discoveries_by_steps(p_values: list[float]) -> None:
    ordered, last = sorted(p_values), 0
    for k, p in enumerate(ordered, start=1):
        if p <= 0.1 * k / len(ordered):
            last = k
    limit = ordered[last - 1] if last else -1.0
    assert benjamini_hochberg(np.array(p_values), 0.1).tolist() == [p <= limit for p in p_values]


def test_a_null_keeps_what_is_unknown() -> None:
    assert np.isnan(Null(0.1, 0.0).z(np.array([np.nan, 0.1]))).tolist() == [True, False]
    assert np.isnan(Null(0.1, 0.1).z(np.array([np.nan, 0.1]))).tolist() == [True, False]


def test_other_rules_have_the_p_values_of_a_reference_too() -> None:
    """Where the references are accepted images: also of a night of three."""
    reference = np.linspace(0.1, 0.2, 30)  # too few for the level 0.01, which flags nothing here
    for night in (np.linspace(0.12, 0.3, 80), np.array([0.11, 0.12, 0.4])):
        p = conformal_p_values(night, reference)
        top = judge(night, VerdictSettings(verdict="top", flag_top=1), reference=reference)
        assert top.rule == "top"
        assert top.p_values is not None
        np.testing.assert_array_equal(top.p_values, p)
        np.testing.assert_array_equal(top.z, z_of_p(p))
        assert top.flagged.tolist() == [False] * (len(night) - 1) + [True]
        assert (top.centre, top.scale) == (mad_null(reference).centre, mad_null(reference).scale)
        for rule in ("mad", "upper_fit"):
            own = judge(night, VerdictSettings(verdict=rule))
            beside = judge(night, VerdictSettings(verdict=rule), reference=reference)
            assert own.p_values is None
            assert beside.p_values is not None
            np.testing.assert_array_equal(beside.p_values, p)
            assert (beside.z == own.z).all() and (beside.flagged == own.flagged).all()

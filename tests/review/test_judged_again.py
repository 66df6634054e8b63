"""Groups judged again: rules whose z does not depend on what is flagged keep it, and flag what a run would."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from patchead.errors import SettingsError
from patchead.review.judged_again import Rule, judged_groups, null_of
from patchead.review.labels import DEFECT, GOOD, Labels
from patchead.scoring.verdict import Verdict, VerdictSettings, judge
from patchead.settings.load import load_config

RNG = np.random.default_rng(7)
NORMAL = RNG.normal(0.20, 0.01, 199)
NIGHT = np.concatenate([RNG.normal(0.20, 0.01, 90), RNG.normal(0.23, 0.01, 10), NORMAL[:3]])  # ties with accepted ones


WHEN = dt.datetime(2026, 11, 21, tzinfo=dt.timezone.utc)
SAID = Labels({("001", None): (WHEN, GOOD), ("002", "other"): (WHEN, DEFECT), ("095", "095"): (WHEN, DEFECT)})


def rows_of(verdict: Verdict) -> pa.Table:
    n = len(NIGHT)
    names = [f"{i:03d}" for i in range(n)]
    same = {"group_id": ["g"] * n, "verdict_rule": [verdict.rule] * n, "image_id": names, "content_hash": names}
    flags = {"is_anomalous": verdict.flagged, "p_value": verdict.p_values}
    return pa.table({**same, "score": NIGHT, "z": verdict.z, **flags})


@pytest.mark.parametrize("threshold", [1.0, 1.7, 2.0, 2.4])
@pytest.mark.parametrize("rule", ["reference", "few_shot"])
def test_a_published_p_value_gives_what_a_run_at_the_threshold_flags(rule: str, threshold: float) -> None:
    given = {"reference": NORMAL} if rule == "reference" else {"null_scores": NORMAL[:8]}
    asked = VerdictSettings(verdict="reference" if rule == "reference" else "auto")
    (group,) = judged_groups(rows_of(judge(NIGHT, asked, **given)), SAID)
    assert (group.labelled.tolist(), group.defects.tolist()) == ([1, 95], [False, True])
    at = Rule(asked, null_of(group.rule)).at(threshold)
    assert at.flags(group).tolist() == judge(NIGHT, at.settings, **given).flagged.tolist()


def test_a_threshold_that_a_run_would_refuse_is_not_allowed() -> None:
    """199 accepted scores give no p below 0.005."""
    rule = Rule(VerdictSettings(verdict="reference"), "reference", len(NORMAL))
    for threshold in (2.0, 2.5, 2.6, 3.0):
        try:
            judge(NIGHT, rule.at(threshold).settings, reference=NORMAL)
        except SettingsError:
            assert not rule.allows(threshold)
        else:
            assert rule.allows(threshold)
    assert not rule.allows(3.0)


@pytest.mark.parametrize("scoring", [{"mode": "few_shot"}, {"verdict": "reference"}])
def test_what_is_allowed_is_a_setting(scoring: dict[str, str]) -> None:
    rule = Rule(VerdictSettings(), "reference" if "verdict" in scoring else null_of("few_shot"))
    given = [f"scoring.{key}={value}" for key, value in scoring.items()]
    places = {"archive.uri": "/a", "lake.uri": "/l", "prompts.uri": "/p" if "mode" in scoring else None}
    for z in (5.9, 6.1, 36.9, 37.1):
        try:
            load_config(None, [*given, f"scoring.threshold_z={z}"], {k: v for k, v in places.items() if v})
        except SettingsError:
            assert not rule.allows(z)
        else:
            assert rule.allows(z)

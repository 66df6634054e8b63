"""What is told where accepted scores are too few: the setting that asked for the level, and what it may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from patchead.errors import SettingsError
from patchead.lake.accepted import Accepted
from patchead.review.references import require_scores
from patchead.scoring.conformal import scores_needed
from patchead.settings.load import UNUSED_PLACES, load_config


def told(n: int, **scoring: Any) -> str:
    given = {f"scoring.{name}": value for name, value in scoring.items()}
    config = load_config(None, given=UNUSED_PLACES | {"scoring.verdict": "reference"} | given)
    row = {"name": "october", "run_id": "r1", "product": "screw", "scores": np.linspace(0.1, 0.2, n)}
    with pytest.raises(SettingsError) as caught:
        require_scores({"product=screw": Accepted(row)}, config)
    return str(caught.value)


@pytest.mark.parametrize(
    ("n", "scoring", "needed", "remedy"),
    [
        (50, {}, "level 0.01 needs at least 99", "raise scoring.alpha to 0.0197 or more."),
        (200, {"threshold_z": 3.0}, "level 0.00135 needs at least 740", "lower scoring.threshold_z to 2.57 or less."),
        (
            200,
            {"thresholds": {"screw": {"z": 3.0}}, "threshold_z": 1.0},
            "at least 740",
            "lower scoring.thresholds.screw.z to 2.57 or less.",
        ),
        (9, {"thresholds": {"nut": {"z": 1.0}}}, "level 0.01", "raise scoring.alpha to 0.1 or more."),
        (9, {"false_discovery": 0.05}, "level 0.05 needs at least 19", "raise scoring.false_discovery to 0.1 or more."),
    ],
)
def test_the_remedy_names_the_setting_that_is_the_level(
    n: int, scoring: dict[str, Any], needed: str, remedy: str
) -> None:
    text = told(n, **scoring)
    assert needed in text and text.endswith(f"Accept a night of more images, or {remedy}")
    value = float(remedy.split()[3])
    assert scores_needed(float(ndtr(-value)) if "z" in remedy.split()[1] else value) <= n

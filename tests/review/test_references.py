"""Which of several accepted runs a group is compared with, where the settings name none."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchead.errors import SettingsError
from patchead.lake.accepted import Accepted, write_accepted
from patchead.review.references import choose, counts, require_scores
from patchead.review.same_scores import deciding
from patchead.settings.load import load_config
from patchead.settings.model import Config
from patchead.storage import Storage
from tests.helpers.sample_rows import NEXT_NIGHT

TONIGHT = f"night={NEXT_NIGHT}/product=screw"


def settings(lake: str, **scoring: Any) -> Config:
    given = {f"scoring.{name}": value for name, value in ({"verdict": "reference"} | scoring).items()}
    return load_config(None, given={"archive.uri": "/archive", "lake.uri": lake} | given)


def accept(lake: str, name: str, n: int, day: int, encoder: str = "e1") -> None:
    """Accept ``n`` scores on a day of November."""
    values = {"name": name, "run_id": name, "product": "screw", "keys": "product=screw", "encoder_id": encoder, "n": n}
    values |= {"group_id": f"night=2026-11-{day}/product=screw", "night": dt.date(2026, 11, day)}
    values |= {"accepted_at": dt.datetime(2026, 11, day, tzinfo=dt.timezone.utc), "centre": 0.2, "scale": 0.01}
    values |= {"settings_json": json.dumps(deciding(settings(lake))), "scores": np.linspace(0.1, 0.3, n).tolist()}
    write_accepted(lake, Storage(), [Accepted(values | {"image_ids": [f"{at:04d}" for at in range(n)]})])


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """200 scores were accepted first, then 120, then 30; then 300 of another encoder."""
    lake = str(tmp_path / "lake")
    for name, n, day in (("large", 200, 10), ("enough", 120, 11), ("small", 30, 12)):
        accept(lake, name, n, day)
    accept(lake, "other", 300, 13, encoder="e2")
    return lake


@pytest.mark.parametrize(
    ("scoring", "name"),
    [
        ({}, "enough"),  # 1 % needs 99
        ({"alpha": 0.04}, "small"),
        ({"alpha": 0.005}, "large"),
        ({"threshold_z": 2.5}, "large"),
        ({"thresholds": {"screw": {"z": 2.5}}}, "large"),
        ({"false_discovery": 0.1}, "small"),
        ({"accepted": "small"}, "small"),
    ],
)
def test_the_newest_with_enough_scores_for_the_level_is_taken(lake: str, scoring: dict[str, Any], name: str) -> None:
    found = choose(settings(lake, **scoring), lake, Storage(), [TONIGHT], "e1")
    assert found[TONIGHT].name == name


def test_where_none_is_enough_the_newest_that_fits_is_refused(lake: str) -> None:
    config = settings(lake, alpha=0.001)
    found = choose(config, lake, Storage(), [TONIGHT], "e1")
    with pytest.raises(SettingsError, match=r"30 scores of 'small' .* needs at least 999"):
        require_scores(found, config)


def test_a_plan_counts_one_with_enough_scores(lake: str) -> None:
    accept(lake, "newest", 40, 14)
    assert counts(settings(lake), lake, Storage(), [TONIGHT]) == {TONIGHT: 300}  # which encoder, a plan does not know
    assert counts(settings(lake, alpha=0.03), lake, Storage(), [TONIGHT]) == {TONIGHT: 40}

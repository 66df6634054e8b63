"""Which settings make scores of two runs another thing, and which do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from patchead.lake.accepted import Accepted
from patchead.review.same_scores import deciding, difference
from patchead.settings.load import UNUSED_PLACES, load_config
from patchead.settings.model import Config


def settings(**given: Any) -> Config:
    return load_config(None, given=UNUSED_PLACES | given)


def accepted(**given: Any) -> Accepted:
    return Accepted({"encoder_id": "e", "settings_json": json.dumps(deciding(settings(**given)))})


@pytest.mark.parametrize(
    ("other", "panel"),
    [
        ({"scoring.subspace": True}, {}),
        ({"scoring.repeats": True}, {}),
        ({"scoring.min_batch": 9}, {}),
        ({"scoring.seed": 3}, {"scoring.max_references": 50}),
    ],
    ids=str,
)
def test_what_leaves_a_good_images_score_what_it_is_is_not_compared(
    other: dict[str, Any], panel: dict[str, Any]
) -> None:
    for there, here in ((panel, other | panel), (other | panel, panel)):
        assert difference(settings(**here), "e", accepted(**there)) is None
    ((key, value),) = other.items()
    kept = json.loads(accepted(**panel).values["settings_json"]) | {key: value}  # of a version that compared it
    assert difference(settings(**panel), "e", Accepted({"encoder_id": "e", "settings_json": json.dumps(kept)})) is None


def test_what_makes_it_another_score_is_compared() -> None:
    told = difference(settings(**{"scoring.max_references": 50}), "e", accepted())
    assert told == "scoring.max_references null there, 50 here"
    assert difference(settings(**{"mask.enabled": True}), "e", accepted()) is not None

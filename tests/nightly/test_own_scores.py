"""Which accepted scores are of the night's own images."""

from __future__ import annotations

import pyarrow as pa
import pytest

from patchead.errors import SettingsError
from patchead.lake.accepted import Accepted
from patchead.nightly.own_scores import others_than, require_left

ROW = Accepted({"name": "october", "run_id": "r1", "scores": [0.1, 0.2, 0.3, 0.4], "image_ids": [*"abcd"], "n": 4})
CONTENTS = {name: f"content of {name}" for name in "abcd"}


def images(**contents: str) -> pa.Table:
    return pa.table({"image_id": [*contents], "content_hash": [*contents.values()]})


def test_content_decides_where_it_is_known_and_else_the_id() -> None:
    tonight = images(a="content of a", b="another photo under its name", e="content of d")
    found = others_than(ROW, tonight, CONTENTS)
    assert (found.image_ids, found.scores.tolist(), found.values["n"]) == (["b", "c"], [0.2, 0.3], 2)
    assert others_than(ROW, tonight, {}).image_ids == ["c", "d"]
    assert others_than(ROW, images(e="content of e"), CONTENTS) is ROW


def test_a_level_that_too_few_are_left_for_is_refused_with_what_to_do() -> None:
    others = others_than(ROW, images(a="content of a", b="content of b"), CONTENTS)
    require_left("g", ROW, others, 1 / 3)
    with pytest.raises(
        SettingsError, match=r"2 of the 4 accepted scores are of its own .* 2 are left, and level 0\.25"
    ):
        require_left("g", ROW, others, 0.25)

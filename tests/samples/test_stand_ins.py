"""What is scored to know how normal images score: prompts against each other, or views of those that are too few."""

from __future__ import annotations

import numpy as np
import pytest

from patchead.errors import SettingsError
from patchead.samples.stand_ins import STAND_INS, NullChoice, refuse_window, stand_in

NONE = -1


@pytest.mark.parametrize(
    ("content", "part", "places", "views_of"),
    [
        ([0, 1, 2], [NONE] * 3, [0, 1, 2], 0),
        ([0, 1, 1, 2, 0], [NONE] * 5, [0, 1, 3], 0),
        ([0, 1, 2, 3], [7, 7, 7, 8], [0, 1, 2, 3], 0),
        ([0, 1], [NONE] * 2, [0, 1], 2),
        ([0, 0, 1], [NONE] * 3, [0, 2], 2),
        ([0, 1], [7, 7], [0, 1], 1),  # of one part: no prompt may be compared with another
        ([0], [NONE], [0], 1),
        ([0, 0, 0], [NONE] * 3, [0], 1),
    ],
)
def test_prompts_are_scored_once_each_where_they_can_be_compared(
    content: list[int], part: list[int], places: list[int], views_of: int
) -> None:
    choice = NullChoice.of(np.array(content), np.array(part))
    assert (choice.places.tolist(), choice.views_of) == (places, views_of)


def test_views_are_different_cuts_of_the_prompt() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 40, 3), dtype=np.uint8)
    views = [stand_in(image, number) for number in range(STAND_INS)]
    assert {view.shape for view in views} == {(51, 34, 3), (54, 36, 3)}
    assert len({view.tobytes() for view in views}) == STAND_INS
    for view in views:
        h, w = view.shape[:2]
        corners = [image[top : top + h, left : left + w] for top in (0, 60 - h) for left in (0, 40 - w)]
        assert sum((view == corner).all() for corner in corners) == 1


def test_the_smallest_image_has_views() -> None:
    assert stand_in(np.zeros((1, 1, 3), np.uint8), STAND_INS - 1).shape == (1, 1, 3)


@pytest.mark.parametrize(("window", "prompts"), [(None, 1), ("auto", 2), (1, 0), (0, 3), (2, 9)])
def test_a_window_goes_with_three_prompts_or_none(window: int | str | None, prompts: int) -> None:
    refuse_window(window, prompts)


@pytest.mark.parametrize("window", [0, 1, np.int64(2)])
@pytest.mark.parametrize("prompts", [1, 2])
def test_a_window_is_refused_where_views_stand_in(window: int, prompts: int) -> None:
    with pytest.raises(SettingsError, match=r"^`window` must be off or auto with fewer than 3 prompts that"):
        refuse_window(window, prompts)

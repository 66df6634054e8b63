"""The examples in the docstrings that a notebook user reads do what they say: `python -m pytest --doctest-modules`."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from patchead import local, local_prompts, notebook, scored
from patchead.archive import given
from patchead.maps import heatmap
from patchead.samples import align, mask
from patchead.scoring import aggregate

#: Modules, and what a notebook user calls of each.
CALLED = {
    notebook: ("score",),
    scored: ("Scored",),
    local: ("embed_images", "score_samples"),
    local_prompts: ("embed_prompts",),
    given: ("pixels_of",),
    heatmap: ("heatmap", "colour_range", "overlay"),
    align: ("Alignment",),
    mask: ("ForegroundMask",),
    aggregate: ("Aggregation", "neighbours", "image_scores"),
}
_FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [test for module in CALLED for test in _FINDER.find(module) if test.examples]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example: doctest.DocTest) -> None:
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert runner.run(example, out=printed.append).failed == 0, "".join(printed)


@pytest.mark.parametrize("module", CALLED, ids=lambda module: module.__name__)
def test_what_a_notebook_user_calls_has_an_example(module: ModuleType) -> None:
    shown = {example.name for example in EXAMPLES}
    assert [name for name in CALLED[module] if f"{module.__name__}.{name}" not in shown] == []

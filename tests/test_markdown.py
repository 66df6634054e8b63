from __future__ import annotations

import pytest

from patchead.markdown import markdown_table


def test_names_lean_left_and_figures_right() -> None:
    text = markdown_table(("case", "px", "AUROC"), [("a|b", "224", "0.9"), ("c\nd", "448", "1")], names=1)
    assert text.splitlines() == [
        "| case | px | AUROC |",
        "| --- | ---: | ---: |",
        r"| a\|b | 224 | 0.9 |",
        "| c<br>d | 448 | 1 |",
    ]
    assert markdown_table(("a", "b"), []) == "| a | b |\n| --- | --- |"


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 cells like its header; got 1: \['x'\]"):
        markdown_table(("a", "b"), [("x",)])

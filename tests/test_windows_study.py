"""The study of windows: its ways are those of the product, and its table says whether the target is met."""

from __future__ import annotations

import numpy as np
import pytest
from studies import windows
from studies.windows import FRACTIONS, FULL, PARTS, RADII, TARGET, Rule

from patchead.forecast.calibrate import unit_vectors
from patchead.scoring.position_level import above_position_level
from tests.reference import oracle


def test_every_way_has_the_scores_of_the_oracle() -> None:
    embeddings, each = unit_vectors(9, 16, 8), list(range(9))
    found = dict(windows.ways(embeddings))
    assert len(found) == len(FRACTIONS) * (1 + 2 * len(RADII))
    whole = oracle.patch_scores(embeddings, each, [-1] * 9, "nearest", 30)
    np.testing.assert_allclose(found[Rule(window=FULL, fraction=0.3)], oracle.image_scores(whole), atol=1e-6)
    patches = oracle.window_patch_scores(embeddings, (4, 4), 1, each, [-1] * 9, "nearest", 30)
    np.testing.assert_allclose(found[Rule(window=1, fraction=0.3)], oracle.image_scores(patches), atol=1e-6)
    above = oracle.image_scores(above_position_level(patches))
    np.testing.assert_allclose(found[Rule(window=1, fraction=0.3, level=True)], above, atol=1e-6)


@pytest.mark.parametrize(("low", "told"), [(0.92, f"at least {TARGET}: met"), (0.90, f"at least {TARGET}: not met")])
def test_the_table_says_whether_the_target_is_met(low: float, told: str) -> None:
    rules = [
        Rule(window=window, fraction=fraction, level=level)
        for fraction in FRACTIONS
        for window in (FULL, *RADII)
        for level in (False, True)
        if not (level and window == FULL)
    ]
    values = {rule: [(low, 0.7), (0.96, 0.8), (0.99, 0.9)] for rule in rules}
    findings = [
        finding for product, size in PARTS for finding in windows._findings({"product": product, "px": size}, values)
    ]
    (table,) = windows.sheets(findings)
    assert len(table.rows) == len(PARTS) * len(FRACTIONS) * 2
    mean = (low + 0.96 + 0.99) / 3
    assert table.rows[0][:4] == ("poly", "448", "nearest 5%", f"{mean:.3f} ({low:.2f}-0.99) / 0.800")
    assert table.rows[3][2:4] == ("nearest 5%, position level", "-")
    assert [row[-1] for row in table.rows] == [told] + [""] * (len(table.rows) - 1)

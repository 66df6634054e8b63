"""The foreground mask: weights from attention."""

from __future__ import annotations

import numpy as np
import pytest

from patchead.errors import SettingsError
from patchead.samples.mask import ForegroundMask, mask_weights


def test_attention_above_the_threshold_counts_in_full() -> None:
    attention = np.array([[0.0, 0.05, 0.0501, 1.0]])
    np.testing.assert_array_equal(mask_weights(attention, ForegroundMask()), [[0.5, 0.5, 1.0, 1.0]])
    np.testing.assert_array_equal(mask_weights(attention, ForegroundMask(0.5, 0.0)), [[0.0, 0.0, 0.0, 1.0]])
    assert mask_weights(attention.astype(np.float16), ForegroundMask()).dtype == np.float32


@pytest.mark.parametrize("rule", [{"threshold": -0.1}, {"threshold": 1.1}, {"background": 2.0}])
def test_values_without_meaning_are_refused(rule: dict[str, float]) -> None:
    ((name, value),) = rule.items()
    with pytest.raises(SettingsError, match=rf"`{name}` must be from 0 to 1; got {value}"):
        ForegroundMask(**rule)

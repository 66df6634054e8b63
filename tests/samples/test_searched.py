"""`patchead.score` by bound and refine: regions and heatmaps of any image are those of the full search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import patchead
from patchead.samples.align import Alignment

N, SIZE, BAD = 56, 128, 9


def parts() -> list[np.ndarray]:
    drawing = np.random.default_rng(0).integers(60, 200, (16, 16)).repeat(8, 0).repeat(8, 1)
    rng, found = np.random.default_rng(1), []
    for number in range(N):
        image = drawing + rng.normal(0, 3, drawing.shape)
        image[40:60, 64:96] = 250 if number == BAD else image[40:60, 64:96]
        found.append(np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return found


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"mask": True, "align": Alignment()}, marks=pytest.mark.slow),
        {"prompts": 30},
    ],
)
def test_what_is_looked_at_is_exact(options: dict[str, Any]) -> None:
    images, asked = parts(), dict(options)
    if "prompts" in asked:
        asked["prompts"], images = images[-asked["prompts"] :], images[: -asked["prompts"]]
    asked |= {"encoder": "timm/test_vit", "weights": "random", "image_size": 160, "layers": "last"}
    full, bounded = (
        patchead.score(images, schedule=by, precision="fp32", **asked) for by in ("row_stationary", "bounded")
    )
    assert bounded.exact is not None
    assert not bounded.exact.all()
    assert bounded.table["is_anomalous"].equals(full.table["is_anomalous"])
    for index in (0, BAD, 20):
        assert [vars(region) for region in bounded.regions(index)] == [
            pytest.approx(vars(region), abs=1e-6) for region in full.regions(index)
        ]
        drawn = (scored.heatmap(index).astype(int) for scored in (full, bounded))
        np.testing.assert_allclose(*drawn, atol=1)
        np.testing.assert_allclose(bounded.maps[index], full.maps[index], rtol=0, atol=1e-6)
    assert not bounded.exact.all()
    below = bounded.maps - full.maps
    assert below.min() > -1e-6
    np.testing.assert_allclose(bounded.patch_scores, full.patch_scores, rtol=0, atol=1e-6)
    assert bounded.exact.all()

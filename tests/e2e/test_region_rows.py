"""Regions of whole nights: every flagged image has one, and the notebook gives the same boxes as the job."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import patchead
from patchead.nightly.run_record import RunRecord
from tests.helpers.e2e_tools import SMALL, by_id, good_images, png, rows, spoiled, table, texture, write_group

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"
NOTEBOOK = {
    "encoder": SMALL["encoder.name"],
    "weights": "random",
    "image_size": 64,
    "layers": "last",
    "precision": "fp32",
}


def images() -> dict[str, bytes]:
    """Eleven good ones, one that is spoiled and one that is twice as wide."""
    return {**good_images(11), "bad.png": png(spoiled(100)), "wide.png": png(np.hstack([texture(101), spoiled(102)]))}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    write_group(root, NIGHT, "screw", images())
    return root


@pytest.mark.parametrize(
    ("top", "fit"),
    [
        (0, "squash"),
        (13, "crop"),
        (13, "pad"),
        pytest.param(0, "crop", marks=pytest.mark.slow),
        pytest.param(0, "pad", marks=pytest.mark.slow),
        pytest.param(13, "squash", marks=pytest.mark.slow),
    ],
)
def test_the_notebook_gives_the_boxes_of_the_job(
    archive: Path, tmp_path: Path, score_night: Score, fit: str, top: int
) -> None:
    score_night(archive, tmp_path / "lake", **{"encoder.fit": fit, "explain.top": top, "explain.max_side": 40})
    paths = sorted((archive / f"night={NIGHT}" / "product=screw").iterdir())
    found = patchead.score(paths, fit=fit, **NOTEBOOK)
    scores, regions = by_id(tmp_path / "lake"), rows(tmp_path / "lake", "regions")
    names = ("x", "y", "width", "height", "area_px", "peak", "mean", "threshold")
    flagged = 0
    for index, path in enumerate(paths):
        row = scores[f"night={NIGHT}/product=screw/{path.name}"]
        own = sorted((r for r in regions if r["image_id"] == row["image_id"]), key=lambda r: r["region"])
        expected = [vars(region) for region in found.regions(index)]
        assert row["is_anomalous"] == found.table["is_anomalous"][index].as_py()
        assert len(own) == (len(expected) if row["is_anomalous"] or top else 0)
        for region, box in zip(own, expected, strict=False):
            assert [region[name] for name in names] == pytest.approx([box[name] for name in names], rel=1e-4)
        flagged += row["is_anomalous"]
    assert flagged > 0
    assert {path.name for index, path in enumerate(paths) if found.regions(index)} >= {"bad.png", "wide.png"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scoring.verdict": "top", "scoring.flag_top": 6},
        {"scoring.verdict": "top", "scoring.flag_top": 13},
        {"scoring.threshold_z": 0.5},
        {"explain.patch_threshold": 0.99},
        {"scoring.image_top_fraction": 1.0, "scoring.threshold_z": 0.5},
        {"encoder.fit": "crop", "scoring.threshold_z": 0.5, "explain.heatmaps": "none"},
        {"mask.enabled": True, "align.enabled": True, "scoring.threshold_z": 0.5},
    ],
    ids=str,
)
def test_a_flagged_image_has_a_region(
    archive: Path, tmp_path: Path, score_night: Score, settings: dict[str, Any]
) -> None:
    score_night(archive, tmp_path / "lake", **settings)
    flagged = {row["image_id"] for row in rows(tmp_path / "lake") if row["is_anomalous"]}
    regions = rows(tmp_path / "lake", "regions")
    (verdict,) = table(tmp_path / "lake", "verdicts").to_pylist()
    assert (verdict["region_threshold"] is None) == (settings.get("scoring.flag_top") == len(images()))
    limit = verdict["region_threshold"] or math.inf
    assert len(flagged) == verdict["flagged"] > 0
    assert flagged <= {row["image_id"] for row in regions}
    for row in regions:
        assert row["threshold"] <= limit
        assert row["peak"] > row["threshold"]
        assert 0 <= row["x"] < row["x"] + row["width"] <= (96 if "wide" in row["image_id"] else 48)
        assert 0 <= row["y"] < row["y"] + row["height"] <= 48
    if "explain.patch_threshold" in settings:
        assert limit == 0.99
    shown = {row["image_id"] for row in regions} - flagged  # by explain.top: whatever reaches above the threshold
    assert all(row["threshold"] == limit for row in regions if row["image_id"] in shown)
    assert len(shown) <= 0.01 * len(images())


def test_one_image_alone_with_prompts_has_its_region(tmp_path: Path, score_night: Score) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", {"bad.png": png(spoiled(100))})
    write_group(tmp_path / "normal", "2026-11-01", "screw", good_images(5))
    prompts = {"scoring.mode": "few_shot", "prompts.uri": str(tmp_path / "normal")}
    score_night(tmp_path / "archive", tmp_path / "lake", **prompts, **{"scoring.verdict": "top", "scoring.flag_top": 1})
    (row,) = rows(tmp_path / "lake")
    assert row["is_anomalous"]
    regions = rows(tmp_path / "lake", "regions")
    first = min(regions, key=lambda r: r["region"])
    assert first["x"] < 32 and first["x"] + first["width"] > 16  # it meets the spoiled square
    assert first["y"] < 32 and first["y"] + first["height"] > 16

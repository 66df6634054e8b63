from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchead.errors import LakeError
from patchead.files import Folder
from patchead.lake.heatmaps import heatmap_uri, write_image

NIGHT = dt.date(2026, 11, 20)


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    ramp = np.linspace(0, 255, height * width).reshape(height, width)
    return np.stack([ramp, ramp[::-1], np.full_like(ramp, 128)], axis=2).astype(np.uint8)


def written(uri: str, lake: Any) -> Image.Image:
    folder, _, name = uri.rpartition("/")
    return Image.open(io.BytesIO(Folder(folder, lake.storage).open(name).read()))


def test_png_comes_back_exactly(lake: Any) -> None:
    uri = heatmap_uri(lake.uri, NIGHT, "o'brien 50%/a", "run-1", "a/b.png", "png")
    write_image(uri, lake.storage, picture(), "png")
    found = written(uri, lake)
    assert found.format == "PNG"
    np.testing.assert_array_equal(np.asarray(found), picture())


def test_webp_comes_back_closely(lake: Any) -> None:
    uri = heatmap_uri(lake.uri, NIGHT, "x", "run-1", "a/b.png", "webp")
    write_image(uri, lake.storage, picture(64, 64), "webp")
    found = written(uri, lake)
    assert found.format == "WEBP"
    assert np.abs(np.asarray(found).astype(int) - picture(64, 64)).mean() < 6


def test_the_path_names_night_product_and_run() -> None:
    uri = heatmap_uri("s3://b/lake/", NIGHT, "o'brien 50%/ü", "run-1", "x", "png")
    assert uri.startswith("s3://b/lake/heatmaps/night=2026-11-20/product=o%27brien%2050%25%2F%C3%BC/run-1/")
    assert uri.endswith(".png")
    assert "/night=__HIVE_DEFAULT_PARTITION__/product=__HIVE_DEFAULT_PARTITION__/" in heatmap_uri(
        "lake", None, None, "run-1", "x", "png"
    )


def test_every_image_has_its_own_file() -> None:
    images = ["a", "A", "a/b", "a#b", "../a", "ä"]
    uris = {heatmap_uri("lake", NIGHT, "x", "run-1", image, "png") for image in images}
    assert len(uris) == len(images)
    assert all(".." not in Path(uri).parts for uri in uris)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(local: Any, wrong: np.ndarray) -> None:
    with pytest.raises(LakeError, match="uint8 of shape"):
        write_image(f"{local.uri}/x.png", local.storage, wrong, "png")

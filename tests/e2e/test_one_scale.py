"""12 bits in 16: a hot pixel does not darken a good part, a dim lamp does not hide an odd one."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import patchead
from patchead.nightly.run_record import RunRecord
from tests.helpers.e2e_tools import by_id, write_group

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"


def parts() -> dict[str, np.ndarray]:
    """12 parts of 12 bits: part10 has one hot pixel, part11 a third of the light."""
    found = {}
    for number in range(12):
        rng = np.random.default_rng(number)
        field = cv2.GaussianBlur(rng.normal(0, 1, (64, 64)), (0, 0), 3)
        found[f"part{number:02d}"] = (2400 + 500 * field / field.std() + rng.normal(0, 25, (64, 64))).clip(0, 4000)
    found["part11"] /= 3
    found["part10"][30, 30] = 4200
    return {name: values.astype(np.uint16) for name, values in found.items()}


def eight_bit(values: np.ndarray) -> np.ndarray:
    """As it was before the camera's 12 bits were put into 16: the hot pixel is white."""
    return np.round(values.clip(0, 4095) * (255 / 4095)).astype(np.uint8)


def encoded(values: np.ndarray, format: str) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, format)
    return sink.getvalue()


def write_parts(archive: Path) -> None:
    deep = parts()
    for format, suffix in (("TIFF", "tif"), ("PNG", "png")):
        write_group(archive, NIGHT, f"deep-{suffix}", {f"{n}.{suffix}": encoded(v, format) for n, v in deep.items()})
    eight = {f"{n}.png": encoded(eight_bit(v), "PNG") for n, v in deep.items()}
    write_group(archive, NIGHT, "eight", eight)


def scores(lake: Path, product: str) -> dict[str, Any]:
    rows = by_id(lake).items()
    return {i.rpartition("/")[2].partition(".")[0]: row for i, row in rows if row["product"] == product}


def test_a_group_has_one_scale_and_the_record_says_which(tmp_path: Path, score_night: Score) -> None:
    write_parts(tmp_path / "archive")
    wide = {"encoder.name": "timm/vit_tiny_patch16_224"}  # one that sees that an image is dark
    record = score_night(tmp_path / "archive", tmp_path / "lake", **wide)
    assert (record.images, record.ok) == (36, 36)
    groups = {f"night={NIGHT}/product=deep-{suffix}": 12 for suffix in ("tif", "png")}
    assert record.scoring["bit_depth"] == groups
    eight = {name: row["score"] for name, row in scores(tmp_path / "lake", "eight").items()}
    for product in ("deep-tif", "deep-png"):
        found = scores(tmp_path / "lake", product)
        assert {name: row["score"] for name, row in found.items()} == pytest.approx(eight, abs=1e-6)
        assert min(found.values(), key=lambda row: row["rank"])["image_id"].rpartition("/")[2].startswith("part11")
    again = score_night(tmp_path / "archive", tmp_path / "lake", **wide)
    assert (again.embedded, again.reused) == (0, 36)


@pytest.mark.slow
def test_another_scale_of_the_group_embeds_its_deep_images_anew(tmp_path: Path, score_night: Score) -> None:
    deep = {f"{n}.tif": encoded(v.clip(0, 4000), "TIFF") for n, v in parts().items()}
    folder = write_group(tmp_path / "archive", NIGHT, "screw", deep)
    write_group(
        tmp_path / "archive",
        NIGHT,
        "nut",
        {f"{n}.png": encoded((v // 17).astype(np.uint8), "PNG") for n, v in parts().items()},
    )
    assert score_night(tmp_path / "archive", tmp_path / "lake").scoring["bit_depth"] == {
        f"night={NIGHT}/product=screw": 12
    }
    (folder / "part99.tif").write_bytes(encoded(parts()["part10"] * 8, "TIFF"))
    copied = shutil.copytree(folder, tmp_path / "archive" / f"night={NIGHT}" / "product=copy")
    (copied / "part99.tif").unlink()
    record = score_night(tmp_path / "archive", tmp_path / "lake")
    assert record.scoring["bit_depth"] == {
        f"night={NIGHT}/product={name}": bits for name, bits in (("screw", 16), ("copy", 12))
    }
    assert (record.images, record.ok, record.embedded, record.reused) == (37, 37, 13, 24)


def test_a_later_image_above_the_scale_is_a_failed_row(tmp_path: Path, score_night: Score) -> None:
    """Of 80 images 32 are looked at; one of the others has larger values, or is the only deep one."""
    values = parts()["part00"]
    deep = {f"{number:03d}.png": encoded(np.roll(values, number), "PNG") for number in range(80)}
    deep["001.png"] = encoded(values * 3, "PNG")
    write_group(tmp_path / "archive", NIGHT, "screw", deep)
    plain = {name: encoded((values // 17).astype(np.uint8), "PNG") for name in deep}
    write_group(tmp_path / "archive", NIGHT, "nut", plain | {"001.png": encoded(values, "PNG")})
    record = score_night(tmp_path / "archive", tmp_path / "lake", **{"run.max_failed_fraction": 0.1})
    failed = {i: row["error"] for i, row in by_id(tmp_path / "lake").items() if row["status"] == "failed"}
    assert set(failed) == {f"night={NIGHT}/product={product}/001.png" for product in ("screw", "nut")}
    assert "above the 12 bits" in failed[f"night={NIGHT}/product=screw/001.png"]
    assert "archive.bit_depth" in failed[f"night={NIGHT}/product=screw/001.png"]
    assert "a 16-bit image in a group of others" in failed[f"night={NIGHT}/product=nut/001.png"]
    fixed = score_night(tmp_path / "archive", tmp_path / "other", **{"archive.bit_depth": 12})
    assert (fixed.ok, fixed.scoring["bit_depth"]) == (160, {})
    assert record.failed == 2


def test_prompts_and_queries_have_one_scale(tmp_path: Path, score_night: Score) -> None:
    images = list(parts().items())
    write_group(tmp_path / "archive", NIGHT, "screw", {f"{n}.tif": encoded(v, "TIFF") for n, v in images[6:]})
    folder = tmp_path / "prompts" / "product=screw"
    folder.mkdir(parents=True)
    for name, values in images[:6]:
        (folder / f"{name}.tif").write_bytes(encoded(values // 8, "TIFF"))
    few_shot = {"scoring.mode": "few_shot", "prompts.uri": str(tmp_path / "prompts")}
    record = score_night(tmp_path / "archive", tmp_path / "lake", **few_shot)
    assert set(record.scoring["bit_depth"].values()) == {12}
    assert set(record.scoring["bit_depth"]) == {"product=screw", f"night={NIGHT}/product=screw"}


def test_the_notebook_has_one_scale_too() -> None:
    deep = [encoded(values, "TIFF") for values in parts().values()]
    eight = [eight_bit(values) for values in parts().values()]
    options = {"encoder": "timm/test_vit", "weights": "random", "image_size": 64, "precision": "fp32"}
    found, expected = (patchead.score(images, **options) for images in (deep, eight))
    assert found.table["score"].to_pylist() == pytest.approx(expected.table["score"].to_pylist(), abs=1e-6)
    assert found.reading.bit_depth == 12

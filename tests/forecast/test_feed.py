"""What decoding and drawing take, measured on an archive's own images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.forecast.feed import SAMPLED, DecodingPace, Drawing, decoding_pace, evenly_sampled
from patchead.nightly.decode import DecodeSettings
from patchead.samples.recipe import SampleRecipe
from patchead.storage import Storage

SETTINGS = DecodeSettings(
    storage=Storage(),
    image_column="image",
    id_column=None,
    max_pixels=10**7,
    bit_depth="auto",
    recipe=SampleRecipe(64, "squash", (4, 4)),
)


def jpeg(width: int, height: int, seed: int) -> bytes:
    sink = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue()


def archive(tmp_path: Path, damaged: int = 0) -> str:
    """Nine loose files and a shard of three, of which the first ``damaged`` files are cut off."""
    folder = tmp_path / "night=2026-11-21" / "product=screw"
    folder.mkdir(parents=True)
    for i in range(9):
        data = jpeg(400, 300, i)
        (folder / f"{i}.jpg").write_bytes(data[:80] if i < damaged else data)
    with tarfile.open(folder / "more.tar", "w") as shard:
        for i in range(3):
            data = jpeg(400, 300, 100 + i)
            member = tarfile.TarInfo(f"{i}.jpg")
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return str(tmp_path)


def pace_of(uri: str) -> DecodingPace:
    manifest = catalog(CatalogRequest(uri=uri, storage=Storage())).manifest
    sample = evenly_sampled(manifest)
    assert sample.num_rows == SAMPLED
    return decoding_pace(sample, SETTINGS, 64, Drawing(max_side=128, format="webp"))


def test_the_images_of_files_and_shards_are_decoded_and_timed(tmp_path: Path) -> None:
    pace = pace_of(archive(tmp_path))
    assert pace.images == SAMPLED
    assert pace.megapixels == pytest.approx(0.12)
    assert 0.01 < pace.megabytes < 1
    assert pace.seconds > 0
    assert pace.explained > 0


def test_images_that_cannot_be_decoded_are_left_out(tmp_path: Path) -> None:
    assert 0 < pace_of(archive(tmp_path, damaged=5)).images < SAMPLED

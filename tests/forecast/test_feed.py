"""What reading, decoding and embedding an archive takes: measured on its own images, beside the encoder's pace."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.encoders import EncoderSpec
from patchead.forecast.feed import SAMPLED, DecodingPace, decoding_pace, encoder_key, evenly_sampled, feed_lines
from patchead.nightly.decode import DecodeSettings
from patchead.samples.recipe import SampleRecipe
from patchead.storage import Storage

SPEC = EncoderSpec("timm/vit_small_patch14_dinov2", "random", image_size=448, layers=(6, 9, 12))
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
    return decoding_pace(sample, SETTINGS, 64)


def test_the_images_of_files_and_shards_are_decoded_and_timed(tmp_path: Path) -> None:
    pace = pace_of(archive(tmp_path))
    assert pace.images == SAMPLED
    assert pace.megapixels == pytest.approx(0.12)
    assert 0.01 < pace.megabytes < 1
    assert pace.seconds > 0


def test_images_that_cannot_be_decoded_are_left_out(tmp_path: Path) -> None:
    assert 0 < pace_of(archive(tmp_path, damaged=5)).images < SAMPLED


def test_an_encoder_that_is_faster_than_a_core_decodes_names_the_cores_it_needs() -> None:
    pace = DecodingPace(images=6, seconds=0.1, megapixels=12, megabytes=3)
    decoding, embedding = feed_lines(1_000_000, pace, SPEC, {encoder_key(SPEC): 250.0})
    assert "1e+05 CPU seconds and 3e+03 GB to read: 10 images/s per CPU core, measured here on 6" in decoding
    assert "4e+03 actor seconds: 250 images/s per actor" in embedding
    assert "25 CPU cores keep an actor busy" in embedding


def test_what_was_not_measured_has_no_figure() -> None:
    pace = DecodingPace(images=6, seconds=0.1, megapixels=12, megabytes=3)
    other = encoder_key(EncoderSpec("timm/vit_small_patch14_dinov2", "random", image_size=224))
    _, embedding = feed_lines(10, pace, SPEC, {other: 250.0})
    assert embedding.startswith("embed    no estimate: run `patchead calibrate --embed`")
    assert "448 px" in embedding
    (only,) = feed_lines(10, DecodingPace(images=0), SPEC, {})
    assert "no estimate" in only

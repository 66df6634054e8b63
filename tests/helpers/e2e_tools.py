"""What the end-to-end tests share: small archives, a small encoder, and ways to run the job."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from PIL import Image

ROOT = Path(__file__).parent.parent.parent

# A real architecture with random weights: 16 patches of 64 dimensions, built and embedded in milliseconds.
SMALL = {
    "encoder.name": "timm/test_vit",
    "encoder.weights": "random",
    "encoder.image_size": 64,
    "encoder.layers": "last",
    "explain.heatmaps": "flagged",
    "scoring.precision": "fp32",  # on every processor: scores are compared with those of another way to 1e-6
}
SMALL_OPTIONS = [f"--set={key}={value}" for key, value in SMALL.items()]


def texture(seed: int, size: int = 48) -> np.ndarray:
    """A grey weave with a little noise, uint8 (size, size, 3); equal seeds are equal images."""
    rng = np.random.default_rng(seed)
    x = np.arange(size)
    weave = 120 + 40 * np.sin(x / 3)[:, None] * np.sin(x / 4)[None, :] + rng.normal(0, 6, (size, size))
    return np.repeat(weave.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def png(image: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "PNG")
    return sink.getvalue()


def spoiled(seed: int) -> np.ndarray:
    """A texture with a bright square: the image that must come out on top."""
    image = texture(seed)
    image[16:32, 16:32] = (255, 40, 40)
    return image


def write_group(root: Path, night: str, product: str, images: Mapping[str, bytes]) -> Path:
    folder = root / f"night={night}" / f"product={product}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        (folder / name).write_bytes(data)
    return folder


def good_images(count: int, first_seed: int = 0) -> dict[str, bytes]:
    return {f"good{i:03d}.png": png(texture(first_seed + i)) for i in range(count)}


def rows(lake: Path | str, name: str = "scores", options: dict[str, str] | None = None) -> list[dict[str, Any]]:
    order = {"runs": "run_id", "verdicts": "group_id"}.get(name, "image_id")
    return table(lake, name, options).sort_by(order).to_pylist()


def table(lake: Path | str, name: str = "scores", options: dict[str, str] | None = None) -> pa.Table:
    there = DeltaTable(f"{lake}/tables/{name}", storage_options=options)
    found = pa.table(QueryBuilder().register("there", there).execute("SELECT * FROM there"))
    return found.cast(pa.schema(there.schema()))


def by_id(lake: Path | str) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in rows(lake)}


def job_command(*arguments: str) -> list[str]:
    return [sys.executable, "jobs/nightly.py", *SMALL_OPTIONS, "--set=resources.local_cpus=2", *arguments]


def job_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**kept, "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_worker_niceness": "0", "COLUMNS": "200"}

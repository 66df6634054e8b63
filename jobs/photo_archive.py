"""An archive of photos as cameras give them: JPEG of two megapixels, in groups of 3 to hundreds, some with a defect."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from planted import KINDS, plant
from skimage import data

NIGHT = "2026-11-21"
WIDTH, HEIGHT = 1600, 1250
_JITTER = 12  # pixels by which a part is off its place
_QUALITY = 90
_DEFECTIVE = 0.03
_SURFACES = (data.brick, data.grass, data.gravel)


def group_sizes(groups: int, smallest: int, largest: int) -> dict[str, int]:
    """Sizes from ``smallest`` to ``largest``, each as much larger than the one before."""
    return {f"p{number:04d}": round(size) for number, size in enumerate(np.geomspace(smallest, largest, groups))}


def write_photos(archive: Path, sizes: Mapping[str, int]) -> int:
    """Write a folder of photos for each group, by all cores. Returns how many there are."""
    parts = [(name, range(first, min(first + 32, n))) for name, n in sizes.items() for first in range(0, n, 32)]
    for name in sizes:
        _folder(archive, name).mkdir(parents=True)
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        list(processes.map(partial(_write_part, archive), parts))
    return sum(sizes.values())


def _write_part(archive: Path, part: tuple[str, range]) -> None:
    name, numbers = part
    group = int(name[1:])
    scene, noise = _scene(group), _noise(group)
    for number in numbers:
        photo = photo_of(scene, noise, np.random.default_rng([group, number]))
        encoded = simplejpeg.encode_jpeg(photo, quality=_QUALITY, colorspace="RGB")
        (_folder(archive, name) / f"{number:04d}.jpg").write_bytes(encoded)


def photo_of(scene: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scene a little off its place, with a camera's noise and, of few photos, a planted defect: uint8 (H, W, 3)."""
    top, left = rng.integers(0, 2 * _JITTER, 2)
    part = scene[top : top + HEIGHT, left : left + WIDTH]
    photo = np.clip(part + np.roll(noise, rng.integers(0, HEIGHT), axis=0), 0, 255).astype(np.uint8)
    if rng.random() < _DEFECTIVE:
        photo = plant(photo, str(rng.choice(list(KINDS))), int(rng.integers(0, 2**31))).image
    return photo


def _scene(group: int) -> np.ndarray:
    """A surface of scikit-image, another part of it and in another tint for each group: int16, larger than a photo."""
    rng = np.random.default_rng(group)
    surface = _SURFACES[group % len(_SURFACES)]()
    top, left = rng.integers(0, 128, 2)
    size = WIDTH + 2 * _JITTER, HEIGHT + 2 * _JITTER
    enlarged = cv2.resize(surface[top : top + 300, left : left + 384], size, interpolation=cv2.INTER_CUBIC)
    return (enlarged[..., None] * rng.uniform(0.7, 1.0, 3)).astype(np.int16)


def _noise(group: int) -> np.ndarray:
    noise = np.random.default_rng([group, 1]).standard_normal((HEIGHT, WIDTH, 3), dtype=np.float32)
    return (4 * noise).astype(np.int16)


def _folder(archive: Path, name: str) -> Path:
    return archive / f"night={NIGHT}" / f"product={name}"

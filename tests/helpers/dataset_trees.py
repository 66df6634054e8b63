"""Tiny images and labels on disk, in the formats that the datasets use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from patchead.evaluation.datasets import DatasetClass, Sample

SHAPE = (6, 8)  # of every image and label here
BOX = (slice(1, 3), slice(2, 7))  # rows and columns of the defect in every label


def write(path: Path, image: np.ndarray) -> Path:
    """A file in the format of its suffix; ``image`` uint8 (H, W) or (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix.lower(), image)
    assert done
    path.write_bytes(data.tobytes())
    return path


def photo(path: Path) -> Path:
    return write(path, np.full((*SHAPE, 3), 90, np.uint8))


def label(path: Path, value: int = 255) -> Path:
    """A label whose defect is ``BOX``; value 0: no defect."""
    image = np.zeros(SHAPE, np.uint8)
    image[BOX] = value
    return write(path, image)


def defect() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[BOX] = True
    return mask


def told(samples: Sequence[Sample], root: Path) -> list[tuple[str, str, str | None]]:
    """Path, kind and mask of each sample, relative to the root; checks that ``anomalous`` says the same as ``kind``."""
    assert all(sample.anomalous == (sample.defect != "good") for sample in samples)
    assert not any(sample.mask for sample in samples if not sample.anomalous)
    places = [(sample.path, sample.mask) for sample in samples]
    short = [(p.relative_to(root).as_posix(), m and m.relative_to(root).as_posix()) for p, m in places]
    return [(path, sample.defect, mask) for (path, mask), sample in zip(short, samples, strict=True)]


def only(classes: Sequence[DatasetClass]) -> DatasetClass:
    (one,) = classes
    return one

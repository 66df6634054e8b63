"""Defect masks: published label images as boolean arrays.

The datasets write a defect as 255 (MVTec AD, BTAD), as the number of its kind, 1, 2, … (VisA), or in a colour; what
is not black is defect. VisA's own preparation script does the same (every value but 0 becomes 255).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from patchead.errors import ArchiveError
from patchead.evaluation.datasets.base import Sample


def read_mask(sample: Sample, shape: tuple[int, int]) -> np.ndarray | None:
    """Read the sample's defect at ``shape``: bool (H, W), True where defect; None for an anomalous one without a mask.

    Resized by nearest neighbour between pixel centres; a defect smaller than a pixel of ``shape`` may vanish. A good
    sample is all False, whatever files lie next to it.

    Raises:
        ArchiveError: the mask cannot be read.
    """
    if not sample.anomalous:
        return np.zeros(shape, bool)
    if sample.mask is None:
        return None
    label = read_label(sample.mask)
    return label[_nearest(label.shape[0], shape[0])][:, _nearest(label.shape[1], shape[1])]


def read_label(path: Path) -> np.ndarray:
    """Read a label image as bool (H, W): True where a colour is not 0; alpha is no colour, palettes are looked up.

    In a JPEG, whose black is not exact, the upper half of the range is defect.

    Raises:
        ArchiveError: the file is absent or no image.
    """
    try:
        with Image.open(path) as image:
            lossy = image.format == "JPEG"
            plain = image.convert("RGB") if image.mode in ("P", "PA") else image
            values = np.asarray(plain)
            colours = [index for index, band in enumerate(plain.getbands()) if band != "A"]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ArchiveError(f"the mask {path} cannot be read: {error}") from error
    defect: np.ndarray = values > 127 if lossy else values != 0
    return np.logical_or.reduce(defect[..., colours], axis=2) if defect.ndim == 3 else defect


def _nearest(size: int, wanted: int) -> np.ndarray:
    """For each of ``wanted`` pixels the index of the one of ``size`` that its centre falls into; int64 (wanted,)."""
    return (2 * np.arange(wanted) + 1) * size // (2 * wanted)

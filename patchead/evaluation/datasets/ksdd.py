"""KolektorSDD: ``kosNN/PartN.jpg`` with ``kosNN/PartN_label.bmp``; anomalous where the label is not all black.

One product, "commutator". The publishers give folds for supervised training, no split of good images: every image is
a test image here and ``train`` is empty. Their public training code leaves out ``kos21/Part7``; why could not be
verified, and here it is kept with the label it has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from patchead.errors import ArchiveError
from patchead.evaluation.datasets.base import (
    Adapter,
    DatasetClass,
    Sample,
    absent,
    folders,
    good,
    holdings,
    image_files,
    mask_files,
)
from patchead.evaluation.datasets.masks import read_label


def _read(root: Path, names: Sequence[str]) -> tuple[DatasetClass, ...]:
    parts = [folder for folder in folders(root) if re.fullmatch(r"kos\d+", folder.name, re.IGNORECASE)]
    if not parts:
        raise ArchiveError(f"no folder {root / 'kos01'} or the like exists; {holdings(root)}")
    test = tuple(sample for folder in parts for sample in _samples(folder))
    return tuple(DatasetClass(name, (), test) for name in names)


def _samples(folder: Path) -> list[Sample]:
    images = [path for path in image_files(folder) if not path.stem.lower().endswith("_label")]
    labels = mask_files(folder)
    samples = []
    for path in images:
        label = labels.get(f"{path.stem.lower()}_label")
        if label is None:
            raise absent(folder / f"{path.stem}_label.bmp", f"{path} has no label: ")
        samples.append(Sample(path, True, label, "defect") if read_label(label).any() else good(path))
    return samples


KSDD = Adapter("KolektorSDD", "kos01/Part0.jpg, kos01/Part0_label.bmp", _read, ("commutator",), align=True, mask=True)

"""DAGM 2007: ``ClassN/{Train,Test}/0001.PNG``; anomalous where ``Label/0001_label.PNG`` exists.

A label is black with a white ellipse around the defect. ``Label/Labels.txt`` says the same as the files and is not
read. Both splits hold good and defective images; the defective ones of ``Train`` are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchead.evaluation.datasets.base import Adapter, DatasetClass, Sample, absent, good, image_files, mask_files

_SUFFIX = "_label"


def _read(root: Path, names: Sequence[str]) -> tuple[DatasetClass, ...]:
    return tuple(_class(root / name) for name in names)


def _class(folder: Path) -> DatasetClass:
    train = tuple(sample for sample in _samples(folder / "Train") if not sample.anomalous)
    return DatasetClass(folder.name, train, tuple(_samples(folder / "Test")))


def _samples(folder: Path) -> list[Sample]:
    images = image_files(folder)
    if not (folder / "Label").is_dir():
        raise absent(folder / "Label")
    labels = {stem: path for stem, path in mask_files(folder / "Label").items() if stem.endswith(_SUFFIX)}
    samples = []
    for path in images:
        label = labels.pop(f"{path.stem.lower()}{_SUFFIX}", None)
        samples.append(Sample(path, True, label, "defect") if label else good(path))
    if labels:
        label = min(labels.values())
        raise absent(folder / f"{label.stem[: -len(_SUFFIX)]}{label.suffix}", f"{label} labels no image: ")
    return samples


DAGM = Adapter(
    "DAGM 2007",
    "<class>/{Train,Test}/0001.PNG, <class>/{Train,Test}/Label/0001_label.PNG",
    _read,
    tuple(f"Class{number}" for number in range(1, 11)),
    align=True,
    mask=True,
)

"""ELPV: photos of solar cells with a defect probability per cell; no masks, no split.

``labels.csv`` has no header; a line is path, probability (0, ⅓, ⅔ or 1) and type (mono, poly), separated by blanks.
Probability 0 is good, 1 is anomalous, the two in between are left out. Every cell is a test image and ``train`` is
empty; the order is that of the file names, where neighbours are near-twins, so splits should be contiguous blocks.
PatchEAD publishes nothing on this dataset: alignment and mask are off.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from patchead.errors import ArchiveError, SettingsError
from patchead.evaluation.datasets.base import Adapter, DatasetClass, Sample, existing, good

TYPES = ("mono", "poly")


def installed() -> Path:
    """Find the data folder of the ``elpv-dataset`` package.

    Raises:
        SettingsError: the package is not installed.
    """
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise SettingsError(
            "root must be a folder with labels.csv and images/; got none, and the package elpv-dataset is not "
            "installed. Give a root or install it: pip install elpv-dataset"
        )
    return Path(spec.origin).parent / "data"


def _read(root: Path, names: Sequence[str]) -> tuple[DatasetClass, ...]:
    labels = existing(root / "labels.csv", "ELPV's labels")
    cells: dict[str, list[Sample]] = {name: [] for name in TYPES}
    for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            _add(cells, root, line.split(), f"{labels}, line {number}")
    return tuple(DatasetClass(name, (), tuple(sorted(cells[name], key=lambda cell: cell.path))) for name in names)


def _add(cells: dict[str, list[Sample]], root: Path, fields: list[str], place: str) -> None:
    """Put the cell of one line to its type, unless its probability lies between 0 and 1."""
    try:
        name, text, product = fields
        probability = float(text)
    except ValueError as error:
        raise ArchiveError(f"{place} is no path, probability and type: {' '.join(fields)!r}") from error
    if not 0 <= probability <= 1 or product not in TYPES:
        raise ArchiveError(f"{place}: the probability must lie in 0 … 1 and the type be mono or poly; got {fields}")
    if probability in (0.0, 1.0):
        path = existing(root / name, place)
        cells[product].append(Sample(path, True, None, "defect") if probability else good(path))


ELPV = Adapter("ELPV", "labels.csv, images/; without a root: the package", _read, TYPES, default_root=installed)

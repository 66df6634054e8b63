"""Any dataset that a CSV file describes: image, label and, where known, mask, class and split.

``root`` is the file; its paths are relative to the file's folder. ``label`` is one of good, normal, ok, 0 or of
anomaly, anomalous, bad, defect, ko, ng, 1; ``split`` is train or test (test where empty or absent); ``class`` is the
file's name where empty or absent. Anomalous images of the training split are left out. Other columns are not read.
Nothing is published on such data: alignment and mask are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from patchead.errors import ArchiveError, bad_value
from patchead.evaluation.datasets.base import Adapter, DatasetClass, Sample, existing, good
from patchead.evaluation.datasets.tables import rows

NORMAL = ("good", "normal", "ok", "0")
ANOMALOUS = ("anomaly", "anomalous", "bad", "defect", "ko", "ng", "1")
SPLITS = ("train", "test")


def _names(root: Path) -> tuple[str, ...]:
    names = tuple(sorted({row["class"] for _, row in _rows(root)}))
    if not names:
        raise ArchiveError(f"{root} has a header and no row.")
    return names


def _read(root: Path, names: Sequence[str]) -> tuple[DatasetClass, ...]:
    parts: dict[str, dict[str, list[Sample]]] = {name: {split: [] for split in SPLITS} for name in names}
    for place, row in _rows(root):
        if row["class"] in parts:
            sample = _sample(root.parent, row, place)
            if row["split"] == "test" or not sample.anomalous:
                parts[row["class"]][row["split"]].append(sample)
    classes = []
    for name, part in parts.items():
        train, test = (tuple(sorted(part[split], key=lambda sample: sample.path)) for split in SPLITS)
        classes.append(DatasetClass(name, train, test))
    return tuple(classes)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows with class, split and label as they are meant."""
    for place, row in rows(path, ("image", "label"), "the dataset's CSV file"):
        meant = {
            "class": row.get("class") or path.stem,
            "split": row.get("split", "").lower() or "test",
            "label": row["label"].lower(),
        }
        for column, allowed in (("split", SPLITS), ("label", (*NORMAL, *ANOMALOUS))):
            if meant[column] not in allowed:
                raise ArchiveError(f"{place}: " + bad_value(column, row[column], f"one of {', '.join(allowed)}"))
        yield place, row | meant


def _sample(folder: Path, row: dict[str, str], place: str) -> Sample:
    path = existing(folder / row["image"], place)
    if row["label"] in NORMAL:
        return good(path)
    mask = row.get("mask")
    return Sample(path, True, existing(folder / mask, f"{place}, mask") if mask else None, "anomaly")


CSV = Adapter("a CSV file", "columns image, label [, mask, class, split]", _read, names=_names)

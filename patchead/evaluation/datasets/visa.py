"""VisA: ``split_csv/1cls.csv`` over ``<class>/Data/Images/{Normal,Anomaly}`` and ``<class>/Data/Masks/Anomaly``.

The CSV comes with the images and has the columns object, split (train, test), label (normal, anomaly), image and mask,
with paths from the root; images end in .JPG, masks in .png, and a mask's values are small numbers above 0, one per
kind of defect. The tree that VisA's ``prepare_data.py`` writes is read by the dataset ``folder`` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchead.errors import ArchiveError, bad_value
from patchead.evaluation.datasets.base import Adapter, DatasetClass, Sample, existing, good
from patchead.evaluation.datasets.tables import rows

SPLIT = "split_csv/1cls.csv"


def _read(root: Path, names: Sequence[str]) -> tuple[DatasetClass, ...]:
    parts: dict[str, dict[str, list[Sample]]] = {name: {"train": [], "test": []} for name in names}
    columns = ("object", "split", "label", "image", "mask")
    for place, row in rows(root / SPLIT, columns, "the one-class split"):
        if row["object"] not in parts:
            continue
        for column, allowed in (("split", ("train", "test")), ("label", ("normal", "anomaly"))):
            if row[column] not in allowed:
                raise ArchiveError(f"{place}: {bad_value(column, row[column], ' or '.join(allowed))}")
        sample = _sample(root, row, place)
        if row["split"] == "test" or not sample.anomalous:
            parts[row["object"]][row["split"]].append(sample)
    return tuple(_class(root, name, part) for name, part in parts.items())


def _class(root: Path, name: str, part: dict[str, list[Sample]]) -> DatasetClass:
    if not part["test"]:
        raise ArchiveError(f"{root / SPLIT} has no test row of the object {name!r}.")
    train, test = (tuple(sorted(part[split], key=lambda sample: sample.path)) for split in ("train", "test"))
    return DatasetClass(name, train, test)


def _sample(root: Path, row: dict[str, str], place: str) -> Sample:
    path = existing(root / row["image"], place)
    if row["label"] == "normal":
        return good(path)
    if not row["mask"]:
        raise ArchiveError(f"{place}: the anomalous image {path} has no mask.")
    return Sample(path, True, existing(root / row["mask"], f"{place}, mask"), "anomaly")


_OBJECTS = "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"

VISA = Adapter(
    "VisA",
    f"{SPLIT}, <class>/Data/Images/{{Normal,Anomaly}}, <class>/Data/Masks/Anomaly",
    _read,
    tuple(_OBJECTS.split()),
    align=True,
    mask=True,
)

"""Real-IAD: ``realiad_jsons/<class>.json`` over ``realiad_1024/<class>/{OK,NG}/…``.

A JSON file has ``meta`` (``normal_class`` "OK", ``prefix``), ``train`` and ``test``; an entry has ``category``,
``anomaly_class`` ("OK" or AK, BX, CH, HS, PS, QS, YW, ZW), ``image_path`` and ``mask_path`` (null for OK), the paths
relative to the class's folder. The archive unpacks either to ``realiad_jsons/`` or to ``realiad_jsons/realiad_jsons/``.
An object is seen from five sides (``_C1_`` … ``_C5_`` in the names); the views are images of one class here, and a
defective object's view that shows no defect is labelled OK by the publishers. The single-view files
(``realiad_jsons_sv``) and the noisy ones (``realiad_jsons_fuiad_*``) are not read.

That ``prefix`` is the class's folder, as in public loaders, could not be verified on the data: an entry is looked for
below ``prefix`` and below ``<class>``, and one that is in neither place is an error. PatchEAD publishes no alignment or
mask for this dataset: both are off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchead.errors import ArchiveError
from patchead.evaluation.datasets.base import Adapter, DatasetClass, Sample, absent, existing, good

JSONS = "realiad_jsons"
IMAGES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")  # the first one there is taken


def _read(root: Path, names: Sequence[str]) -> tuple[DatasetClass, ...]:
    images = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    if images is None:
        raise absent(root / IMAGES[0], f"none of {', '.join(IMAGES)} is there: ")
    return tuple(_class(root, images, name) for name in names)


def _class(root: Path, images: Path, name: str) -> DatasetClass:
    inner = root / JSONS / JSONS / f"{name}.json"
    path = inner if inner.is_file() else existing(root / JSONS / f"{name}.json", f"the entries of {name!r}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        meta = document["meta"]
        folder = _folder(images, name, str(meta.get("prefix") or name), document["test"][0]["image_path"])
        train, test = (
            sorted((_sample(folder, entry, meta["normal_class"]) for entry in document[split]), key=lambda s: s.path)
            for split in ("train", "test")
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{path} is not what Real-IAD publishes: {type(error).__name__}: {error}") from error
    return DatasetClass(name, tuple(sample for sample in train if not sample.anomalous), tuple(test))


def _folder(images: Path, name: str, prefix: str, first: str) -> Path:
    """The folder that a class's paths start from."""
    places = [images / place for place in dict.fromkeys((prefix.strip("/"), name))]
    found = next((place for place in places if (place / first).is_file()), None)
    if found is None:
        raise absent(places[-1] / first)
    return found


def _sample(folder: Path, entry: Mapping[str, Any], normal: str) -> Sample:
    path = existing(folder / entry["image_path"], "an image of the JSON file")
    if entry["anomaly_class"] == normal:
        return good(path)
    if not entry["mask_path"]:
        raise ArchiveError(f"the anomalous image {path} has no mask in the JSON file.")
    return Sample(path, True, existing(folder / entry["mask_path"], f"the mask of {path}"), entry["anomaly_class"])


_CLASSES = (
    "audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb phone_battery plastic_nut "
    "plastic_plug porcelain_doll regulator rolled_strip_base sim_card_set switch tape terminalblock toothbrush toy "
    "toy_brick transistor1 u_block usb usb_adaptor vcpill wooden_beads woodstick zipper"
)

REAL_IAD = Adapter(
    "Real-IAD", "realiad_jsons/<class>.json, realiad_1024/<class>/{OK,NG}", _read, tuple(_CLASSES.split())
)

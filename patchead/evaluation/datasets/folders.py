"""Datasets in MVTec AD's layout: ``<class>/train/good``, ``test/<kind>`` and ``ground_truth/<kind>``.

Facts about the layouts, from the datasets' pages and their public loaders:

- MVTec AD: PNG; the mask of ``test/broken_large/000.png`` is ``ground_truth/broken_large/000_mask.png``, 0 or 255.
- MPDD: the same names (seen as ``ground_truth/scratches/026_mask.png``).
- BTAD: ``ok`` and ``ko`` for good and defective; images .bmp (01, 03) or .png (02); a mask has its image's name, .bmp
  in product 03, .png elsewhere. Image numbers start anew in ``ok`` and in ``ko``.
- DTD-Synthetic: one kind, ``bad``; a public loader expects ``_mask``, others pair by order: both names are read, since
  the data itself could not be looked at.

Good images have no mask in any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from patchead.errors import ArchiveError
from patchead.evaluation.datasets.base import (
    GOOD,
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


@dataclass(frozen=True)
class FolderLayout:
    """Say where the datasets of this family differ.

    ``good``: name of the folders with good images; ``mask_names``: names of a mask without suffix; ``promised``: every
    anomalous image has a mask and every class a training split; ``single``: the root itself may be the one class.
    """

    good: str = GOOD
    mask_names: tuple[str, ...] = ("{stem}_mask",)
    promised: bool = True
    single: bool = False


_FREE = FolderLayout(mask_names=("{stem}_mask", "{stem}"), promised=False, single=True)
_TREE = "<class>/train/good, <class>/test/{good,<kind>}, <class>/ground_truth/<kind>"


def _read(layout: FolderLayout, root: Path, names: Sequence[str]) -> tuple[DatasetClass, ...]:
    single = layout.single and (root / "test").is_dir()
    return tuple(_read_class(layout, root if single else root / name, name) for name in names)


def _read_class(layout: FolderLayout, folder: Path, name: str) -> DatasetClass:
    trained = layout.promised or (folder / "train").is_dir()
    train = image_files(folder / "train" / layout.good) if trained else ()
    test = [good(path) for path in image_files(folder / "test" / layout.good)]
    for kind in folders(folder / "test"):
        if kind.name != layout.good:
            test += _defective(layout, kind, folder / "ground_truth" / kind.name)
    # By path, not good ones first: the first image is the template of an alignment, and may be defective.
    return DatasetClass(name, tuple(map(good, train)), tuple(sorted(test, key=lambda sample: sample.path)))


def _defective(layout: FolderLayout, images: Path, masks: Path) -> list[Sample]:
    found = mask_files(masks)
    samples = []
    for path in image_files(images):
        stems = [form.format(stem=path.stem) for form in layout.mask_names]
        mask = next((found[stem.lower()] for stem in stems if stem.lower() in found), None)
        if mask is None and layout.promised:
            raise absent(masks / f"{stems[0]}.png", f"{path} has no mask: ")
        samples.append(Sample(path, True, mask, images.name))
    return samples


def _found(root: Path) -> tuple[str, ...]:
    """Classes at the root of the generic layout: the root itself where it has ``test``, else its folders that do."""
    if (root / "test").is_dir():
        return (root.resolve().name,)
    names = tuple(path.name for path in folders(root) if (path / "test").is_dir())
    if not names:
        looked = f"neither {root / 'test' / GOOD} nor {root / '<class>' / 'test' / GOOD} exists"
        raise ArchiveError(f"{looked}; {holdings(root)}")
    return names


_MVTEC = "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper"
_DTD = (
    "Blotchy_099 Fibrous_183 Marbled_078 Matted_069 Mesh_114 Perforated_037 "
    "Stratified_154 Woven_001 Woven_068 Woven_104 Woven_125 Woven_127"
)

MVTEC = Adapter(
    "MVTec AD", f"{_TREE}/000_mask.png", partial(_read, FolderLayout()), tuple(_MVTEC.split()), align=True, mask=True
)
MPDD = Adapter(
    "MPDD",
    f"{_TREE}/000_mask.png",
    partial(_read, FolderLayout()),
    ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"),
    mask=True,
)
BTAD = Adapter(
    "BTAD",
    "<class>/train/ok, <class>/test/{ok,ko}, <class>/ground_truth/ko",
    partial(_read, FolderLayout(good="ok", mask_names=("{stem}",))),
    ("01", "02", "03"),
    mask=True,
)
DTD_SYNTHETIC = Adapter(
    "DTD-Synthetic",
    f"{_TREE}/000_mask.png or 000.png",
    partial(_read, FolderLayout(mask_names=("{stem}_mask", "{stem}"))),
    tuple(_DTD.split()),
    align=True,
    mask=True,
)
FOLDER = Adapter(
    "a folder in MVTec AD's layout",
    f"{_TREE}/000_mask.png; one class may be the root itself, train and masks may lack",
    partial(_read, _FREE),
    names=_found,
)

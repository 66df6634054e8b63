"""Labelled crops to tune words on: around the defects of a dataset, or of defects planted into good photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from planted import KINDS, plant

from patchead.archive.decode import decode, fit
from patchead.errors import ArchiveError, SettingsError
from patchead.evaluation.datasets.base import Dataset, Sample, image_files
from patchead.evaluation.datasets.masks import read_mask
from patchead.naming.word_crops import SCALES, crops_around
from patchead.tuning.examples import LabelledCrop

_AROUND = SCALES[1:]  # at the region's own size there is nothing normal to learn from

Box = tuple[float, float, float, float]


class Picture(NamedTuple):
    """One labelled photo: ``image`` uint8 (H, W, 3), ``mask`` bool (H, W), its type; None where it is good."""

    image: np.ndarray
    mask: np.ndarray
    defect_type: str | None


def of_dataset(dataset: Dataset) -> Iterator[Picture]:
    """Every labelled photo of a dataset, the anomalous ones first; types are the defects' names, with blanks for _.

    Raises:
        ArchiveError: an anomalous photo has no mask, or a file cannot be read.
    """
    samples = [sample for one in dataset.classes for sample in one.test]
    for sample in sorted(samples, key=lambda each: not each.anomalous):
        yield _picture(sample)


def types_of(dataset: Dataset) -> list[str]:
    """The types of defect that a dataset's names tell apart."""
    return sorted({_type(sample) for one in dataset.classes for sample in one.test if sample.anomalous})


def of_planted(folder: Path, seed: int) -> Iterator[Picture]:
    """Good photos of a folder: every other one with a planted defect, one kind after the other; these come first.

    Raises:
        ArchiveError: there are too few photos for every kind.
        DecodeError: one cannot be decoded.
    """
    files = image_files(folder)
    if len(files) < 2 * len(KINDS):
        raise ArchiveError(f"{folder} holds {len(files)} photos; {2 * len(KINDS)} or more are needed: add good ones.")
    for number, (path, kind) in enumerate(zip(files[::2], cycle(KINDS), strict=False)):
        defect = plant(decode(path.read_bytes()), kind, seed + number)
        yield Picture(defect.image, defect.mask, kind)
    for path in files[1::2]:
        image = decode(path.read_bytes())
        yield Picture(image, np.zeros(image.shape[:2], bool), None)


def crops_of(pictures: Iterator[Picture], side: int) -> Iterator[LabelledCrop]:
    """Crops 1.5 and 2.5 times as large as the defect, as names by words see regions; of good photos the same boxes.

    Args:
        pictures: the anomalous ones first.
        side: of a crop, in pixels.

    Raises:
        SettingsError: the first picture is good.
    """
    boxes: list[Box] = []
    good = 0
    for picture in pictures:
        if picture.defect_type is not None:
            boxes.append(_box(picture.mask))
            yield from _cut(picture, boxes[-1], side)
        elif not boxes:
            raise SettingsError("the labelled photos have no defect with a mask; words are tuned on defects.")
        else:
            yield from _cut(picture, boxes[good % len(boxes)], side)
            good += 1


def _type(sample: Sample) -> str:
    return sample.defect.replace("_", " ")


def _picture(sample: Sample) -> Picture:
    image = decode(sample.path.read_bytes())
    mask = read_mask(sample, (image.shape[0], image.shape[1]))
    if mask is None or (sample.anomalous and not mask.any()):
        raise ArchiveError(f"{sample.path} is anomalous and has no mask; words are tuned on datasets with masks.")
    return Picture(image, mask, _type(sample) if sample.anomalous else None)


def _box(mask: np.ndarray) -> Box:
    """Left, top, width and height of a mask, as shares."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        columns[0] / width,
        rows[0] / height,
        (columns[-1] + 1 - columns[0]) / width,
        (rows[-1] + 1 - rows[0]) / height,
    )


def _cut(picture: Picture, box: Box, side: int) -> Iterator[LabelledCrop]:
    height, width = picture.mask.shape
    for crop in crops_around(box, width, height, _AROUND):
        mask = crop.of(picture.mask.astype(np.uint8))
        small = cv2.resize(
            mask, (side, side), interpolation=cv2.INTER_AREA if mask.shape[0] > side else cv2.INTER_LINEAR
        )
        pixels = fit(np.ascontiguousarray(crop.of(picture.image)), side, "squash")
        yield LabelledCrop(pixels, small > 0, picture.defect_type)


def keywords_of(types: Sequence[str]) -> dict[str, list[str]]:
    """Each type by its own name, with its article."""
    return {name: [f"{'an' if name[0] in 'aeiou' else 'a'} {name}"] for name in types}

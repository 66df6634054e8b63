from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchead.errors import ArchiveError
from patchead.evaluation.datasets import load, read_mask
from tests.helpers.dataset_trees import SHAPE, defect, label, only, photo, told


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, part, value in (("kos02", 1, 0), ("kos01", 1, 255), ("kos01", 0, 0), ("kos02", 0, 1)):
        photo(tmp_path / folder / f"Part{part}.jpg")
        label(tmp_path / folder / f"Part{part}_label.bmp", value)
    (tmp_path / "readme").mkdir()
    return tmp_path


def test_a_label_that_is_not_black_makes_the_image_anomalous(root: Path) -> None:
    dataset = load("ksdd", root)
    one = only(dataset.classes)
    assert (dataset.align, dataset.mask, one.name, one.train) == (True, True, "commutator", ())
    assert told(one.test, root) == [
        ("kos01/Part0.jpg", "good", None),
        ("kos01/Part1.jpg", "defect", "kos01/Part1_label.bmp"),
        ("kos02/Part0.jpg", "defect", "kos02/Part0_label.bmp"),
        ("kos02/Part1.jpg", "good", None),
    ]
    np.testing.assert_array_equal(read_mask(one.test[1], SHAPE), defect())
    np.testing.assert_array_equal(read_mask(one.test[2], SHAPE), defect())


def test_a_missing_label_is_not_a_good_image(root: Path) -> None:
    (root / "kos01/Part0_label.bmp").unlink()
    with pytest.raises(ArchiveError, match=r"Part0.jpg has no label: .*Part0_label.bmp does not exist"):
        load("ksdd", root)


def test_a_wrong_root_says_what_it_looked_for(root: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no folder .*kos01 or the like exists; .*kos01 holds Part0.jpg"):
        load("ksdd", root / "kos01")

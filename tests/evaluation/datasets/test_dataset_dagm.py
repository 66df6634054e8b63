from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchead.errors import ArchiveError
from patchead.evaluation.datasets import DATASETS, load, read_mask
from tests.helpers.dataset_trees import SHAPE, defect, label, only, photo, told


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, numbers, labelled in (("Train", (577, 576), 577), ("Test", (2, 1, 3), 1)):
        folder = tmp_path / "Class1" / split
        for number in numbers:
            photo(folder / f"{number:04d}.PNG")
        label(folder / f"Label/{labelled:04d}_label.PNG")
        (folder / "Label/Labels.txt").write_text("1\n")
    return tmp_path


def test_a_label_file_makes_the_image_anomalous(root: Path) -> None:
    dataset = load("dagm", root, ["Class1"])
    one = only(dataset.classes)
    assert (dataset.align, dataset.mask, one.name) == (True, True, "Class1")
    assert told(one.train, root) == [("Class1/Train/0576.PNG", "good", None)]
    assert told(one.test, root) == [
        ("Class1/Test/0001.PNG", "defect", "Class1/Test/Label/0001_label.PNG"),
        ("Class1/Test/0002.PNG", "good", None),
        ("Class1/Test/0003.PNG", "good", None),
    ]
    np.testing.assert_array_equal(read_mask(one.test[0], SHAPE), defect())


def test_the_ten_classes_are_in_the_order_of_their_numbers() -> None:
    assert DATASETS["dagm"].published == tuple(f"Class{number}" for number in range(1, 11))


def test_without_the_label_folder_nothing_is_good(root: Path) -> None:
    (root / "Class1/Test/Label").rename(root / "Class1/Test/Labels")
    with pytest.raises(ArchiveError, match=r"Class1.Test.Label does not exist; .* holds 0001.PNG, .*Labels/"):
        load("dagm", root, ["Class1"])


def test_a_label_of_no_image_is_refused(root: Path) -> None:
    (root / "Class1/Test/0001.PNG").unlink()
    with pytest.raises(ArchiveError, match=r"0001_label.PNG labels no image: .*Test.0001.PNG does not exist"):
        load("dagm", root, ["Class1"])


def test_a_wrong_root_says_what_it_looked_for(root: Path) -> None:
    with pytest.raises(ArchiveError, match=r"Class2.Train does not exist; .* holds Class1/"):
        load("dagm", root, ["Class2"])

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchead.errors import ArchiveError
from patchead.evaluation.datasets import load, read_mask
from tests.helpers.dataset_trees import SHAPE, defect, label, only, photo, told

ROWS = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0836.JPG,
candle,train,normal,candle/Data/Images/Normal/0005.JPG,
candle,test,normal,candle/Data/Images/Normal/0451.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
pcb1,test,normal,pcb1/Data/Images/Normal/0001.JPG,
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text(ROWS)
    for name in ("Normal/0836", "Normal/0005", "Normal/0451", "Anomaly/000", "Anomaly/001"):
        photo(tmp_path / f"candle/Data/Images/{name}.JPG")
    label(tmp_path / "candle/Data/Masks/Anomaly/000.png", 1)
    label(tmp_path / "candle/Data/Masks/Anomaly/001.png", 5)
    return tmp_path


def test_the_split_is_the_csvs_not_the_folders(root: Path) -> None:
    dataset = load("visa", root, ["candle"])
    one = only(dataset.classes)
    assert (dataset.align, dataset.mask) == (True, True)
    images, masks = "candle/Data/Images", "candle/Data/Masks/Anomaly"
    assert [path for path, *_ in told(one.train, root)] == [f"{images}/Normal/0005.JPG", f"{images}/Normal/0836.JPG"]
    assert told(one.test, root) == [
        (f"{images}/Anomaly/000.JPG", "anomaly", f"{masks}/000.png"),
        (f"{images}/Anomaly/001.JPG", "anomaly", f"{masks}/001.png"),
        (f"{images}/Normal/0451.JPG", "good", None),
    ]
    for sample in one.test[:2]:  # label values 1 and 5 of 255
        np.testing.assert_array_equal(read_mask(sample, SHAPE), defect())


def test_without_the_split_no_split_is_made_up(root: Path) -> None:
    (root / "split_csv/1cls.csv").rename(root / "split_csv/2cls.csv")
    with pytest.raises(ArchiveError, match=r"one-class split: .*1cls.csv does not exist; .*split_csv holds 2cls.csv"):
        load("visa", root, ["candle"])


def test_files_that_the_split_names_must_be_there(root: Path) -> None:
    (root / "candle/Data/Masks/Anomaly/001.png").unlink()
    with pytest.raises(ArchiveError, match=r"1cls.csv, line 5, mask: .*001.png does not exist; .* holds 000.png"):
        load("visa", root, ["candle"])
    (root / "candle/Data/Images/Normal/0005.JPG").unlink()
    with pytest.raises(ArchiveError, match=r"1cls.csv, line 3: .*0005.JPG does not exist"):
        load("visa", root, ["candle"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("object,split", "class,split", "has no column 'object'; it has class, split"),
        ("candle,test,normal", "candle,test,nomal", "line 4: label must be normal or anomaly; got 'nomal'"),
        ("candle,test,normal", "candle,val,normal", "line 4: split must be train or test; got 'val'"),
        (",candle/Data/Masks/Anomaly/000.png", ",", "line 6: the anomalous image .*000.JPG has no mask"),
    ],
)
def test_a_changed_csv_is_refused(root: Path, old: str, new: str, message: str) -> None:
    assert ROWS.count(old) == 1
    (root / "split_csv/1cls.csv").write_text(ROWS.replace(old, new))
    with pytest.raises(ArchiveError, match=message):
        load("visa", root, ["candle"])


def test_an_anomalous_training_image_is_no_prompt(root: Path) -> None:
    row = "candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG"
    (root / "split_csv/1cls.csv").write_text(ROWS.replace(row, row.replace("test", "train")))
    one = only(load("visa", root, ["candle"]).classes)
    assert {path.rpartition("/")[2] for path, *_ in told(one.train, root)} == {"0005.JPG", "0836.JPG"}
    assert [path.rpartition("/")[2] for path, *_ in told(one.test, root)] == ["000.JPG", "0451.JPG"]


def test_an_object_without_rows_is_refused(root: Path) -> None:
    with pytest.raises(ArchiveError, match="no test row of the object 'fryum'"):
        load("visa", root, ["fryum"])

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchead.errors import ArchiveError
from patchead.evaluation.datasets import load, read_mask
from tests.helpers.dataset_trees import SHAPE, defect, label, only, photo, told

ROWS = """Image, Label ,mask,class,split,note
b.png,ok,,nut,test,x
a.png,GOOD,,nut,train,
c.png,1,masks/c.png,nut,test,"two, words"
e.png,bad,,nut,train,
d.png,anomaly,,bolt,,
f.png,0,,bolt,,
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for name in "abcdef":
        photo(tmp_path / f"{name}.png")
    label(tmp_path / "masks/c.png")
    path = tmp_path / "parts.csv"
    path.write_text(ROWS)
    return path


def test_all_columns(table: Path) -> None:
    root = table.parent
    dataset = load("csv", table)
    bolt, nut = dataset.classes
    assert (dataset.align, dataset.mask, bolt.name, nut.name) == (False, False, "bolt", "nut")
    assert told(nut.train, root) == [("a.png", "good", None)]  # the anomalous e.png is no prompt
    assert told(nut.test, root) == [("b.png", "good", None), ("c.png", "anomaly", "masks/c.png")]
    assert (bolt.train, told(bolt.test, root)) == ((), [("d.png", "anomaly", None), ("f.png", "good", None)])
    np.testing.assert_array_equal(read_mask(nut.test[1], SHAPE), defect())
    assert read_mask(bolt.test[0], SHAPE) is None
    assert only(load("csv", table, ["nut"]).classes) == nut


def test_two_columns_and_a_byte_order_mark_are_enough(table: Path) -> None:
    table.write_text("image,label\na.png,0\nb.png,1\n", encoding="utf-8-sig")
    one = only(load("csv", table).classes)
    assert (one.name, one.train, told(one.test, table.parent)) == (
        "parts",
        (),
        [("a.png", "good", None), ("b.png", "anomaly", None)],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,lable\na.png,0\n", r"no column 'label'; it has image, lable. Did you mean 'lable'"),
        ("", "no column 'image'; it has none"),
        ("image,label\n", "has a header and no row"),
        ("image,label\na.png,0,x\n", "line 2 has more values than the header has columns"),
        ("image,label\na.png,goood\n", "line 2: label must be one of good, .*; got 'goood'"),
        ("image,label,split\na.png,0,val\n", "line 2: split must be one of train, test; got 'val'"),
        ("image,label\nz.png,0\n", r"line 2: .*z.png does not exist; .* holds a.png, b.png"),
        ("image,label,mask\na.png,1,z.png\n", r"line 2, mask: .*z.png does not exist"),
        ("image,label\na.png,0\n", "class 'parts' in .* has 1 good and 0 anomalous test images"),
    ],
)
def test_a_bad_file_is_refused(table: Path, content: str, message: str) -> None:
    table.write_text(content)
    with pytest.raises(ArchiveError, match=message):
        load("csv", table)


def test_a_file_in_another_encoding_is_refused(table: Path) -> None:
    table.write_bytes("image,label\nä.png,0\n".encode("latin-1"))
    with pytest.raises(ArchiveError, match=r"parts.csv is no CSV in UTF-8"):
        load("csv", table)


def test_a_folder_is_no_csv_file(table: Path) -> None:
    with pytest.raises(ArchiveError, match=r"is a folder, not a file; .* holds a.png, .*masks/, parts.csv"):
        load("csv", table.parent)

from __future__ import annotations

from pathlib import Path

import pytest

from patchead.errors import ArchiveError, SettingsError
from patchead.evaluation.datasets import elpv, load, read_mask
from tests.helpers.dataset_trees import SHAPE, photo, told

LINES = """images/cell0003.png  1.0                 mono
images/cell0001.png  0.0                 mono
images/cell0002.png  0.3333333333333333  mono
images/cell0004.png  0.6666666666666666  poly
images/cell0005.png  0.0                 poly
images/cell0006.png  1.0                 poly
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "labels.csv").write_text(LINES)
    for number in range(1, 7):
        photo(tmp_path / f"images/cell000{number}.png")
    return tmp_path


def test_thirds_are_left_out_and_there_are_no_masks(root: Path) -> None:
    dataset = load("elpv", root)
    mono, poly = dataset.classes
    assert (dataset.align, dataset.mask, mono.name, poly.name) == (False, False, "mono", "poly")
    assert mono.train == poly.train == ()
    assert told(mono.test, root) == [("images/cell0001.png", "good", None), ("images/cell0003.png", "defect", None)]
    assert told(poly.test, root) == [("images/cell0005.png", "good", None), ("images/cell0006.png", "defect", None)]
    assert read_mask(mono.test[1], SHAPE) is None


def test_without_a_root_the_installed_package_is_read() -> None:
    """Counts of the package's labels.csv, taken with awk."""
    dataset = load("elpv", None)
    counts = {one.name: (len(one.test), sum(sample.anomalous for sample in one.test)) for one in dataset.classes}
    assert counts == {"mono": (588 + 313, 313), "poly": (920 + 402, 402)}
    assert all(one.test == tuple(sorted(one.test, key=lambda sample: sample.path)) for one in dataset.classes)


def test_without_the_package_a_root_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elpv, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install elpv-dataset"):
        load("elpv", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/cell0001.png 0.0", "line 7 is no path, probability and type"),
        ("images/cell0001.png x mono", "line 7 is no path, probability and type"),
        ("images/cell0001.png nan mono", "line 7: the probability must lie in"),
        ("images/cell0001.png 1.5 mono", "line 7: the probability must lie in"),
        ("images/cell0001.png 1.0 thin", "type be mono or poly"),
        ("images/cell0009.png 1.0 poly", r"line 7: .*cell0009.png does not exist; .*images holds cell0001.png"),
    ],
)
def test_a_bad_line_is_named(root: Path, line: str, message: str) -> None:
    (root / "labels.csv").write_text(LINES + line)
    with pytest.raises(ArchiveError, match=message):
        load("elpv", root)


def test_a_wrong_root_says_what_it_looked_for(root: Path) -> None:
    with pytest.raises(ArchiveError, match=r"ELPV's labels: .*labels.csv does not exist; .*images holds cell0001.png"):
        load("elpv", root / "images")

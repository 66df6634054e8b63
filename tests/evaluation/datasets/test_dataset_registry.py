from __future__ import annotations

from pathlib import Path

import pytest

from patchead.errors import ArchiveError, SettingsError
from patchead.evaluation.datasets import DATASETS, load
from tests.helpers.dataset_trees import photo

PUBLISHED_COUNTS = {
    "mvtec": 15,
    "visa": 12,
    "mpdd": 6,
    "btad": 3,
    "ksdd": 1,
    "dagm": 10,
    "dtd-synthetic": 12,
    "real-iad": 30,
    "elpv": 2,
    "folder": 0,
    "csv": 0,
}


def test_every_dataset_has_its_number_of_classes() -> None:
    assert {name: len(set(adapter.published)) for name, adapter in DATASETS.items()} == PUBLISHED_COUNTS


def test_alignment_and_mask_are_the_papers() -> None:
    both = {name for name, adapter in DATASETS.items() if adapter.align and adapter.mask}
    mask_alone = {name for name, adapter in DATASETS.items() if adapter.mask and not adapter.align}
    assert both == {"mvtec", "visa", "ksdd", "dagm", "dtd-synthetic"}
    assert mask_alone == {"mpdd", "btad"}
    assert not any(adapter.align and not adapter.mask for adapter in DATASETS.values())


@pytest.mark.parametrize(("name", "meant"), [("mvtek", "mvtec"), ("real_iad", "real-iad"), ("dtd_synthetic", "dtd-")])
def test_an_unknown_dataset_names_the_nearest(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"dataset must be one of mvtec, .*; got '{name}'. Did you mean '{meant}"):
        load(name, tmp_path)


@pytest.mark.parametrize(
    ("dataset", "name", "meant"), [("mvtec", "botle", "bottle"), ("btad", "1", "01"), ("dagm", "class3", "Class3")]
)
def test_an_unknown_class_names_the_nearest(tmp_path: Path, dataset: str, name: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=rf"classes must be some of .*; got '{name}'. Did you mean '{meant}'"):
        load(dataset, tmp_path, [name])


def test_no_classes_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"classes must be some of bottle, .*Leave it out"):
        load("mvtec", tmp_path, [])


def test_a_root_that_does_not_exist_says_what_is_there(tmp_path: Path) -> None:
    photo(tmp_path / "mvtec_ad/x.png")
    with pytest.raises(ArchiveError, match=r"root of MVTec AD: .*mvtec does not exist; .* holds mvtec_ad/"):
        load("mvtec", tmp_path / "mvtec")
    with pytest.raises(ArchiveError, match=r"bottle.train.good does not exist; .*mvtec_ad holds x.png"):
        load("mvtec", str(tmp_path / "mvtec_ad"), ["bottle"])


def test_only_elpv_has_a_root_of_its_own() -> None:
    with pytest.raises(SettingsError, match="root must be the place of MVTec AD: <class>/train/good"):
        load("mvtec", None)
    assert {name for name, adapter in DATASETS.items() if adapter.default_root} == {"elpv"}


@pytest.mark.parametrize("dataset", sorted(set(DATASETS) - {"csv"}))
def test_an_empty_root_is_an_error_that_names_it(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(ArchiveError, match=f"{tmp_path.name} holds nothing"):
        load(dataset, tmp_path)

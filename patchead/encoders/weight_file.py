"""Bounds of a file of weights, checked before its library reads it: a hostile one takes neither time nor memory."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

from patchead.errors import WeightsError

# The largest vision transformers have some 2,000 tensors and a header of 250 KB, with a text tower and an optimizer's
# state four times as much.
MOST_TENSORS = 20_000
_MOST_HEADER_BYTES = 4 << 20
_LENGTH_BYTES = 8  # before the header of a .safetensors
_MOST_PICKLE_BYTES = 32 << 20
_ZIP_TAIL = 22 + (1 << 16)  # its end record with the longest comment
_REMEDY = "Save the model's state_dict() alone, best as .safetensors."


def check_bounds(path: Path, uri: str) -> None:
    """Refuse a file that says more tensors than a model has, or that would grow when it is read.

    What is no .safetensors and no zip file is left to the library that reads it.

    Args:
        path: of the local file.
        uri: what an error calls it.

    Raises:
        WeightsError: more tensors, a longer header or a larger content than weights have.
        OSError: it cannot be read.
    """
    if path.suffix == ".safetensors":
        _check_safetensors(path, uri)
    elif zipfile.is_zipfile(path):
        _check_zip(path, uri)


def _check_safetensors(path: Path, uri: str) -> None:
    with path.open("rb") as file:
        head = file.read(_LENGTH_BYTES)
        if len(head) < _LENGTH_BYTES:
            raise WeightsError(f"the weights {uri} are cut off: {len(head)} bytes.")
        (length,) = struct.unpack("<Q", head)
        if length > _MOST_HEADER_BYTES:
            raise _too_much(uri, f"a header of {length} bytes", f"{_MOST_HEADER_BYTES} bytes")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as exc:
            raise WeightsError(f"the weights {uri} cannot be read: their header is no JSON ({exc}).") from exc
    if isinstance(header, dict) and len(header) > MOST_TENSORS:
        raise _too_much(uri, f"{len(header)} tensors", f"{MOST_TENSORS}")


def _check_zip(path: Path, uri: str) -> None:
    """The files in a checkpoint of torch, counted by the end record, before the list of them is read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _ZIP_TAIL))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    count = struct.unpack_from("<H", tail, at + 10)[0] if at >= 0 else 0
    if count > MOST_TENSORS:
        raise _too_much(uri, f"{count} tensors or more", f"{MOST_TENSORS}")
    with zipfile.ZipFile(path) as checkpoint:
        entries = checkpoint.infolist()
    content = sum(entry.file_size for entry in entries)
    if content > size:
        raise _too_much(uri, f"{content} bytes of content in {size} bytes", "its own size")
    pickled = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if pickled > _MOST_PICKLE_BYTES:
        raise _too_much(uri, f"{pickled} bytes of names", f"{_MOST_PICKLE_BYTES} bytes")


def _too_much(uri: str, got: str, most: str) -> WeightsError:
    return WeightsError(f"the weights {uri} have {got}; at most {most} are read. {_REMEDY}")

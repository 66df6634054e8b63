"""What drawing some images of a group has left: their heatmap files and regions, so that none is drawn twice.

One file per portion in ``runs/<run_id>/explained/``, written behind the pictures.
"""

from __future__ import annotations

import json
import zlib

import pyarrow as pa

from patchead.batches import concurrently
from patchead.errors import DamagedFileError
from patchead.files import Folder
from patchead.lake.run_tables import read_table, write_table
from patchead.lake.staging import RunFolder
from patchead.schema import STAGED_REGIONS

FILES = pa.schema([("image_id", pa.string()), ("heatmap_uri", pa.string()), ("note", pa.string())])
"""The heatmap file of an explained image, null where it has none, and why it has none where it should have one."""


def write_pictures(folder: RunFolder, name: str, files: pa.Table, regions: pa.Table, *, made_of: str) -> None:
    """Stage what was drawn of a portion; an earlier file of that name is replaced.

    Args:
        folder: of the run.
        name: of the portion, the same whenever the same images are drawn together.
        files: columns of `FILES`.
        regions: `STAGED_REGIONS` of its images.
        made_of: digest of all that decides both.

    Raises:
        LakeError: the file cannot be written.
    """
    text = json.dumps(files.to_pylist())
    # The pages of the file have checksums, what stands behind them has not.
    made_for = {"made_of": made_of, "files": text, "crc32": _checksum(text)}
    write_table(folder.explained, _file_name(name), regions, made_for)


def read_pictures(folder: RunFolder, name: str, *, made_of: str) -> tuple[pa.Table, pa.Table] | None:
    """Read what `write_pictures` staged, `FILES` and `STAGED_REGIONS`, if made of the same and its pictures are there.

    Raises:
        DamagedFileError: the file is damaged.
        LakeError: it, or a picture, cannot be looked at.
    """
    if (found := read_table(folder.explained, _file_name(name), STAGED_REGIONS)) is None or found[1][
        "made_of"
    ] != made_of:
        return None
    regions, made_for = found
    if made_for["crc32"] != _checksum(made_for["files"]):
        uri = folder.explained.uri_of(_file_name(name))
        raise DamagedFileError(f"{uri} is damaged (the list of its pictures). Delete it and run again.", uri)
    files = pa.Table.from_pylist(json.loads(made_for["files"]), FILES)
    pictures = [uri.rpartition("/") for uri in files["heatmap_uri"].drop_null().to_pylist()]
    there = concurrently(lambda each: Folder(each[0], folder.files.storage).exists(each[2]), pictures)
    return (files, regions) if all(there) else None


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _file_name(name: str) -> str:
    return f"{name}.parquet"

"""Whether the lake can be written, asked before any work is done."""

from __future__ import annotations

import threading
import uuid

from s3fs import S3FileSystem

from patchead.errors import LakeError
from patchead.files import Folder
from patchead.lake.tables import require_plain
from patchead.storage import Storage, explained

_PREFLIGHT_SECONDS = 15


def preflight(lake_uri: str, storage: Storage) -> None:
    """Write, read and delete a small file, so that a lake that cannot be written is known before any work is done.

    Raises:
        LakeError: the lake cannot be written, or does not answer within 15 s.
    """
    require_plain(lake_uri)
    failure: list[Exception] = []

    def probe() -> None:
        folder, name = Folder(lake_uri, storage), f"probe-{uuid.uuid4().hex}"
        try:
            _require_bucket(lake_uri, storage)
            folder.write(name, lambda sink: sink.write(b"probe"))
            folder.delete(name)
        except Exception as exc:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(exc)

    # A thread that ends with the process: the storage libraries try for minutes to reach an address that is silent.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PREFLIGHT_SECONDS)
    if thread.is_alive():
        raise LakeError(
            f"cannot write {lake_uri}: no answer within {_PREFLIGHT_SECONDS} s. Check the address, "
            f"storage.endpoint_url ({storage.endpoint}) and the network."
        )
    if failure:
        raise failure[0]


def _require_bucket(lake_uri: str, storage: Storage) -> None:
    """Some S3 servers make a bucket on the first write: a misspelt name must not pass."""
    filesystem, path = storage.filesystem(lake_uri)
    if isinstance(filesystem, S3FileSystem):
        with explained("write", lake_uri, LakeError):
            filesystem.call_s3("list_objects_v2", Bucket=path.partition("/")[0], MaxKeys=1)

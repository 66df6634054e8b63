"""Whether the lake can be written, and by two at once without harm, asked before any work is done."""

from __future__ import annotations

import threading
import uuid

from s3fs import S3FileSystem

from patchead.errors import LakeError
from patchead.files import Folder
from patchead.lake.tables import require_plain
from patchead.storage import Storage, explained

_PREFLIGHT_SECONDS = 15
_REFUSED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


def preflight(lake_uri: str, storage: Storage) -> None:
    """Write and delete a small file, so that a lake that cannot be written is known before any work is done.

    On S3 the file is written a second time with ``If-None-Match: *``, which the store must refuse: Delta has no other
    lock.

    Raises:
        LakeError: the lake cannot be written, does not answer within 15 s, or is in a store that ignores conditions.
    """
    require_plain(lake_uri)
    failure: list[Exception] = []

    def probe() -> None:
        folder, name = Folder(lake_uri, storage), f"probe-{uuid.uuid4().hex}"
        try:
            _require_bucket(lake_uri, storage)
            folder.write(name, lambda sink: sink.write(b"probe"))
            try:
                _require_conditions(lake_uri, folder.uri_of(name), storage)
            finally:
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


def _require_conditions(lake_uri: str, there: str, storage: Storage) -> None:
    """Have the store refuse to write a file that is there, if it is written on condition that it is not."""
    filesystem, path = storage.filesystem(there)
    if not isinstance(filesystem, S3FileSystem):
        return
    with explained("write", there, LakeError):
        try:
            filesystem.pipe_file(path, b"again", mode="create")
        except OSError as exc:
            code = getattr(exc.__cause__, "response", {}).get("Error", {}).get("Code")
            if code in _REFUSED:
                return
            if code not in ("NotImplemented", "501"):
                raise
    raise LakeError(
        f"the store of {lake_uri} does not honour conditional writes: it did not refuse to replace a file that was "
        "written with `If-None-Match: *`. Two runs that publish at once would overwrite each other without a sign. Put "
        "the lake (lake.uri) into a store that does, e.g. AWS S3 or SeaweedFS, or on a disk."
    )

"""What a run leaves behind on its way to publication: ``run.json`` and one Arrow IPC file per scored group.

A run that is started again under its id goes on from here. Once it is published, its folder may be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from patchead.batches import concurrently
from patchead.errors import LakeError
from patchead.files import Folder, plain_name, undamaged
from patchead.hashing import text_digest
from patchead.schema import SCHEMA_VERSION
from patchead.storage import Storage, join

_REMEDY = "Delete it and run again: the group is then scored anew."
_MAGIC_BYTES = 8  # before the schema of an Arrow IPC file
_HEAD_BYTES = 65_536  # holds the schema of a staged group and its metadata


@dataclass(frozen=True)
class StagedGroup:
    """Scores of one group: ``patch_scores`` float32 (N, h, w), ``scores`` float64 (N,), ``n_references`` int32 (N,).

    ``aligned`` bool (N,); None where the run did not align.
    """

    image_ids: list[str]
    patch_scores: np.ndarray
    scores: np.ndarray
    n_references: np.ndarray
    aligned: np.ndarray | None


class RunFolder:
    """``runs/<run_id>/`` of one lake. Holds no connection, so it travels to the workers."""

    def __init__(self, lake_uri: str, storage: Storage, run_id: str) -> None:
        self._run = Folder(join(lake_uri, "runs", plain_name("run_id", run_id)), storage)
        self._groups = Folder(self._run.uri_of("groups"), storage)

    def uri_of(self, name: str) -> str:
        """Where a file of :meth:`write_json` is."""
        return self._run.uri_of(name)

    def write_group(
        self,
        group_id: str,
        image_ids: Sequence[str],
        patch_scores: np.ndarray,
        scores: np.ndarray,
        n_references: np.ndarray,
        aligned: np.ndarray | None = None,
        *,
        digest: str,
    ) -> None:
        """Stage one scored group; an earlier one of that id is replaced.

        Args:
            group_id: any text.
            image_ids: (N,), in the order of the scores.
            patch_scores: float32 (N, h, w).
            scores, n_references, aligned: of the same images, see `StagedGroup`.
            digest: of everything else that the scores depend on; see :meth:`scored_groups`.

        Raises:
            LakeError: the file cannot be written.
        """
        patches = np.ascontiguousarray(patch_scores, dtype=np.float32)
        tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(patches)
        fields = [
            ("image_id", pa.string()),
            ("patch_scores", tensor.type),
            ("score", pa.float64()),
            ("n_references", pa.int32()),
            ("aligned", pa.bool_()),
        ]
        metadata = {"group_id": group_id, "digest": digest, "schema_version": str(SCHEMA_VERSION)}
        schema = pa.schema(fields, metadata=metadata)
        known = pa.nulls(len(image_ids), pa.bool_()) if aligned is None else aligned
        columns = [pa.array(image_ids, pa.string()), tensor, scores, n_references, known]
        batch = pa.record_batch(
            [
                pa.array(c, field.type) if isinstance(c, np.ndarray) else c
                for c, field in zip(columns, schema, strict=True)
            ],
            schema=schema,
        )

        def fill(sink: pa.NativeFile) -> None:
            with pa.ipc.new_file(sink, schema) as writer:
                writer.write_batch(batch)

        self._groups.write(_file_name(group_id), fill)

    def read_group(self, group_id: str) -> StagedGroup:
        """A staged group.

        Raises:
            LakeError: it is missing or damaged.
        """
        name = _file_name(group_id)
        uri = self._groups.uri_of(name)
        try:
            file = self._groups.open(name)
        except FileNotFoundError as exc:
            raise LakeError(f"group {group_id} is not staged: {uri} does not exist. Run again.") from exc
        with undamaged(uri, _REMEDY), file:
            rows = pa.ipc.open_file(file).get_batch(0)
            return StagedGroup(
                image_ids=rows.column("image_id").to_pylist(),
                patch_scores=rows.column("patch_scores").to_numpy_ndarray().copy(),
                scores=rows.column("score").to_numpy().copy(),
                n_references=rows.column("n_references").to_numpy().copy(),
                aligned=None if rows.column("aligned").null_count else np.array(rows.column("aligned")),
            )

    def scored_groups(self, digest: str) -> set[str]:
        """Ids of the groups staged under ``digest``; those staged under other settings are not finished.

        Raises:
            LakeError: the folder cannot be listed, or a file is damaged.
        """

        def group_of(name: str) -> str | None:
            metadata = self._metadata(name)
            return metadata[b"group_id"].decode() if metadata.get(b"digest") == digest.encode() else None

        found = concurrently(group_of, self._groups.names(".arrow"))
        return {group_id for group_id in found if group_id is not None}

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write plain JSON values as ``name``, e.g. ``run.json``.

        Raises:
            LakeError: the file cannot be written.
        """
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        self._run.write(plain_name("file name", name), lambda sink: sink.write(text.encode()))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """What :meth:`write_json` wrote; None if there is no such file.

        Raises:
            LakeError: it cannot be read or is not JSON.
        """
        try:
            file = self._run.open(name)
        except FileNotFoundError:
            return None
        with file:
            text = file.read()
        try:
            return json.loads(text)
        except ValueError as exc:
            raise LakeError(f"{self._run.uri_of(name)} is not JSON ({exc}). Delete it.") from exc

    def _metadata(self, name: str) -> dict[bytes, bytes]:
        with undamaged(self._groups.uri_of(name), _REMEDY):
            head = self._groups.head(name, _HEAD_BYTES)
            return pa.ipc.read_schema(pa.py_buffer(head[_MAGIC_BYTES:])).metadata or {}


def _file_name(group_id: str) -> str:
    return f"{text_digest(group_id)}.arrow"

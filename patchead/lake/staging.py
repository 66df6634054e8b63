"""What a run leaves behind on its way to publication: ``run.json``, ``manifest.parquet`` when its images are listed,
``receipts.parquet`` when they are embedded, and one Arrow IPC file per scored group.

A run that is started again under its id goes on from here. Once it is published, its folder may be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from patchead.batches import concurrently
from patchead.errors import LakeError
from patchead.files import Folder, plain_name, undamaged
from patchead.hashing import text_digest
from patchead.lake.checked_batches import read_checked, write_batches
from patchead.lake.run_tables import MANIFEST_FILE, RECEIPTS_FILE, read_table, write_table
from patchead.lake.staged_group import StagedGroup, known, null_scores_of, with_maps
from patchead.schema import MANIFEST, SCHEMA_VERSION
from patchead.storage import Storage, join

_REMEDY = "Delete it and run again: the group is then scored anew."
_MAGIC_BYTES = 8  # before the schema of an Arrow IPC file
_HEAD_BYTES = 65_536  # holds the schema of a staged group and its metadata
_IMAGES_PER_BATCH = 64  # what is read of a group for one image of it


class RunFolder:
    """Write and read ``runs/<run_id>/`` of one lake. Holds no connection, so it travels to the workers."""

    def __init__(self, lake_uri: str, storage: Storage, run_id: str) -> None:
        self._run = Folder(join(lake_uri, "runs", plain_name("run_id", run_id)), storage)
        self._groups = Folder(self._run.uri_of("groups"), storage)
        self.explained = Folder(self._run.uri_of("explained"), storage)

    @property
    def files(self) -> Folder:
        """Give the folder itself."""
        return self._run

    def uri_of(self, name: str) -> str:
        """Say where a file of :meth:`write_json` is."""
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
        null_scores: np.ndarray | None = None,
        views_of: int = 0,
        repeat_group: np.ndarray | None = None,
        score_subspace: np.ndarray | None = None,
        repeats: Sequence[Mapping[str, Any]] = (),
        digest: str,
        search: Mapping[str, Any] | None = None,
        exact: np.ndarray | None = None,
    ) -> None:
        """Stage one scored group; an earlier one of that id is replaced.

        Args:
            group_id: any text.
            image_ids: (N,), in the order of the scores.
            patch_scores: float32 (N, h, w).
            scores, n_references, aligned, repeat_group, score_subspace, repeats: of these images, see `StagedGroup`.
            null_scores, views_of: of few-shot mode, see `StagedGroup`.
            digest: of everything else that the scores depend on; see :meth:`digests`.
            search, exact: how bound and refine went, as JSON values, and see `StagedGroup`; default: full search.

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
            ("repeat_group", pa.int32()),
            ("score_subspace", pa.float64()),
            ("exact", pa.bool_()),
            ("null_scores", pa.list_(pa.float64())),  # all in the first row
        ]
        metadata = {"group_id": group_id, "digest": digest, "schema_version": str(SCHEMA_VERSION)}
        metadata |= {"views_of": str(views_of), "search": json.dumps(dict(search or {}))}
        metadata["repeats"] = json.dumps([dict(repeat) for repeat in repeats])
        schema = pa.schema(fields, metadata=metadata)
        given = {"aligned": aligned, "repeat_group": repeat_group, "score_subspace": score_subspace, "exact": exact}
        n = len(image_ids)
        given_too = [pa.nulls(n, schema.field(key).type) if found is None else found for key, found in given.items()]
        null = [None if null_scores is None else null_scores.tolist(), *[None] * (n - 1)]
        columns = [pa.array(image_ids, pa.string()), tensor, scores, n_references, *given_too]
        columns.append(pa.array(null, fields[-1][1]))
        cast = [pa.array(c, f.type) if isinstance(c, np.ndarray) else c for c, f in zip(columns, schema, strict=True)]
        batch = pa.record_batch(cast, schema=schema)
        starts = range(0, max(1, batch.num_rows), _IMAGES_PER_BATCH)
        parts = [batch.slice(start, _IMAGES_PER_BATCH) for start in starts]
        self._groups.write(_file_name(group_id), partial(write_batches, schema=schema, batches=parts))

    def replace_maps(self, group_id: str, places: np.ndarray, patch_scores: np.ndarray) -> None:
        """Put patch scores that are no bounds in the place of those of some images of a staged group.

        ``places`` int (n,) are of the order in which it was staged, ``patch_scores`` float32 (n, h, w).

        Raises:
            LakeError: the staged group is missing or damaged, or the file cannot be written.
        """
        with self._opened(group_id, self._groups.open) as reader:
            batches = [read_checked(reader, number) for number in range(reader.num_record_batches)]
            starts = np.cumsum([0, *(len(batch) for batch in batches)])
            for number, start in enumerate(starts[:-1].tolist()):
                here = (places >= start) & (places < starts[number + 1])
                if here.any():
                    batches[number] = with_maps(batches[number], places[here] - start, patch_scores[here])
            schema = reader.schema
        self._groups.write(_file_name(group_id), partial(write_batches, schema=schema, batches=batches))

    def read_group(self, group_id: str) -> StagedGroup:
        """Read a staged group.

        Raises:
            LakeError: it is missing or damaged.
        """
        with self._opened(group_id, self._groups.open) as reader:
            batches = [read_checked(reader, number) for number in range(reader.num_record_batches)]
            rows = pa.Table.from_batches(batches)
            optional = {name: known(rows, name) for name in ("aligned", "repeat_group", "score_subspace", "exact")}
            metadata = reader.schema.metadata or {}
            return StagedGroup(
                image_ids=rows["image_id"].to_pylist(),
                patch_scores=np.concatenate([batch.column("patch_scores").to_numpy_ndarray() for batch in batches]),
                scores=rows["score"].to_numpy().copy(),
                n_references=rows["n_references"].to_numpy().copy(),
                **optional,
                null_scores=null_scores_of(rows),
                views_of=int(metadata.get(b"views_of", 0)),
                search=json.loads(metadata.get(b"search", b"{}")),
                repeats=tuple(json.loads(metadata.get(b"repeats", b"[]"))),
            )

    def read_scores(self, group_id: str) -> np.ndarray:
        """Read the image scores of a staged group and nothing else of it: float64 (N,), NaN where there is none.

        Raises:
            LakeError: it is missing or damaged.
        """
        with self._opened(group_id, self._groups.open_parts) as reader:
            found = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            scores = np.concatenate([batch.column("score").to_numpy() for batch in found])
            compared = np.concatenate([batch.column("n_references").to_numpy() for batch in found]) > 0
            return np.where(compared, scores, np.nan)

    def read_patch_scores(self, group_id: str, indices: np.ndarray) -> np.ndarray:
        """Read the patch scores of some images of a staged group, and of the group not much more than these.

        A local file is memory-mapped; from an object store only the batches of 64 images that hold them are fetched.

        Args:
            group_id: of the group.
            indices: int (n,), places in the order in which the group was staged.

        Returns:
            float32 (n, h, w).

        Raises:
            LakeError: it is missing or damaged.
        """
        with self._opened(group_id, self._groups.open_parts) as reader:
            # A run that an earlier version began has its whole group in one batch.
            single = reader.num_record_batches == 1
            batch, row = (np.zeros_like(indices), indices) if single else np.divmod(indices, _IMAGES_PER_BATCH)
            out = np.empty((len(indices), *reader.schema.field("patch_scores").type.shape), np.float32)
            for number in np.unique(batch).tolist():
                here = batch == number
                out[here] = read_checked(reader, number).column("patch_scores").to_numpy_ndarray()[row[here]]
            return out

    @contextmanager
    def _opened(
        self, group_id: str, open_file: Callable[[str], pa.NativeFile]
    ) -> Iterator[pa.ipc.RecordBatchFileReader]:
        name = _file_name(group_id)
        uri = self._groups.uri_of(name)
        try:
            file = open_file(name)
        except FileNotFoundError as exc:
            raise LakeError(f"group {group_id} is not staged: {uri} does not exist. Run again.") from exc
        with undamaged(uri, _REMEDY), file:
            yield pa.ipc.open_file(file)

    def digests(self) -> dict[str, str]:
        """Give the digest under which each staged group was written, by its id; under another it is not finished.

        Raises:
            LakeError: the folder cannot be listed, or a file is damaged.
        """
        found = concurrently(self._metadata, self._groups.names(".arrow"))
        return {of[b"group_id"].decode(): of.get(b"digest", b"").decode() for of in found if b"group_id" in of}

    def scored_groups(self, digest: str) -> set[str]:
        """List the ids of the groups staged under ``digest``. Raises `LakeError` as :meth:`digests`."""
        return {group_id for group_id, found in self.digests().items() if found == digest}

    def set_aside(self, uri: str) -> str | None:
        """Move a damaged file of this folder out of the way: what it held is then done again; None for another file.

        Raises:
            LakeError: it cannot be moved.
        """
        for folder in (self._groups, self.explained, self._run):
            if uri.startswith(f"{folder.uri}/"):
                return folder.set_aside(uri.removeprefix(f"{folder.uri}/"))
        return None

    def write_manifest(self, manifest: pa.Table, left_out: Any, *, listing: str) -> None:
        """Keep what the catalog found, so that the run does not list the archive again.

        Args:
            manifest: MANIFEST.
            left_out: what is no image or cannot be read, as plain JSON values.
            listing: digest of what was asked for, see `CatalogRequest.digest`.

        Raises:
            LakeError: it cannot be written.
        """
        write_table(self._run, MANIFEST_FILE, manifest, {"listing": listing, "left_out": json.dumps(left_out)})

    def read_manifest(self, listing: str) -> tuple[pa.Table, Any] | None:
        """Read MANIFEST and what was left out, as :meth:`write_manifest` kept them.

        None if it was for another ``listing``, or there is none, or by another version.

        Raises:
            LakeError: it is damaged or cannot be read.
        """
        found = read_table(self._run, MANIFEST_FILE, MANIFEST)
        if found is None or found[1]["listing"] != listing or "left_out" not in found[1]:
            return None
        return found[0], json.loads(found[1]["left_out"])

    def has_manifest(self) -> bool:
        """Tell whether an earlier try of the run has listed the archive.

        Raises:
            LakeError: it cannot be told.
        """
        return self._run.exists(MANIFEST_FILE)

    def forget_manifest(self) -> None:
        """Have the next try of the run list the archive again.

        Raises:
            LakeError: the file cannot be removed.
        """
        self._run.delete(MANIFEST_FILE)

    def write_receipts(self, receipts: pa.Table, *, store_id: str) -> None:
        """Keep the receipts of the run's images, in the manifest's order: where each one's vectors are.

        A run tried again asks the index instead, which also tries failed images again.

        Args:
            receipts: RECEIPTS.
            store_id: of the store that holds the embeddings.

        Raises:
            LakeError: they cannot be written.
        """
        write_table(self._run, RECEIPTS_FILE, receipts, {"store_id": store_id})

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write plain JSON values as ``name``, e.g. ``run.json``.

        Raises:
            LakeError: the file cannot be written.
        """
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        self._run.write(plain_name("file name", name), lambda sink: sink.write(text.encode()))

    def _metadata(self, name: str) -> dict[bytes, bytes]:
        with undamaged(self._groups.uri_of(name), _REMEDY):
            head = self._groups.head(name, _HEAD_BYTES)
            return pa.ipc.read_schema(pa.py_buffer(head[_MAGIC_BYTES:])).metadata or {}


def _file_name(group_id: str) -> str:
    return f"{text_digest(group_id)}.arrow"

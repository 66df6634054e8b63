"""Stage 1 of a run: the manifest, listed once and kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.archive.left_out import LeftOut
from patchead.lake.staging import RunFolder
from patchead.runtime.executor import Executor


def make_manifest(request: CatalogRequest, folder: RunFolder, executor: Executor) -> tuple[pa.Table, LeftOut]:
    """List the archive, unless an earlier try of the run has left what the same request gave.

    Returns:
        MANIFEST, and what is no image.

    Raises:
        ArchiveError, SettingsError: as `catalog`.
        LakeError: the manifest cannot be kept, or the one that is there is damaged.
    """

    def map_shards(function: Callable[[Any], Any], shards: Iterable[Any]) -> list[Any]:
        found = dict(executor.run_tasks(function, shards, num_cpus=0.5))  # they mostly wait
        return [found[index] for index in sorted(found)]

    if kept := folder.read_manifest(request.digest):
        return kept[0], LeftOut.of_json(kept[1])
    found = catalog(request, map_shards=map_shards)
    folder.write_manifest(found.manifest, found.left_out.as_json(), listing=request.digest)
    return found.manifest, found.left_out

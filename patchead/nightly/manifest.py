"""Stage 1 of a run: the manifest, listed once and kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.archive.left_out import LeftOut
from patchead.archive.shards import LISTING_BYTES
from patchead.lake.staging import RunFolder
from patchead.runtime.executor import Executor


class Listing(NamedTuple):
    """Hold MANIFEST, what is no image, and values of images that are null as they cannot be read."""

    manifest: pa.Table
    left_out: LeftOut
    unreadable: LeftOut


def make_manifest(request: CatalogRequest, folder: RunFolder, executor: Executor) -> Listing:
    """List the archive, unless an earlier try of the run has left what the same request gave.

    Raises:
        ArchiveError, SettingsError: as `catalog`.
        LakeError: the manifest cannot be kept, or the one that is there is damaged.
    """

    def map_shards(function: Callable[[Any], Any], shards: Iterable[Any]) -> list[Any]:
        tasks = executor.run_tasks(function, shards, num_cpus=0.5, memory=LISTING_BYTES)  # they mostly wait
        found = dict(tasks)
        return [found[index] for index in sorted(found)]

    if kept := folder.read_manifest(request.digest):
        return Listing(kept[0], *(LeftOut.of_json(kept[1].get(name, {})) for name in ("left_out", "unreadable")))
    found = catalog(request, map_shards=map_shards)
    told = {"left_out": found.left_out.as_json(), "unreadable": found.unreadable.as_json()}
    folder.write_manifest(found.manifest, told, listing=request.digest)
    return Listing(found.manifest, found.left_out, found.unreadable)

"""Receipts as they come, by group: a group whose images are all embedded is given on while others are not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import by_group, values
from patchead.schema import RECEIPTS, SAMPLE_KEY

_LAST = 10**9


class Landed:
    """Collect the receipts of each group until it has all of them.

    Args:
        manifest: MANIFEST rows of the night, with whatever columns it has more.
        rank: of the groups that are wanted: their units come in this order, and those of others behind them.
        take: is given the id of a wanted group and its rows, as `with_receipts` has them, once it is whole.
    """

    def __init__(self, manifest: pa.Table, rank: Mapping[str, int], take: Callable[[str, pa.Table], None]) -> None:
        self._rank, self._take = rank, take
        readable = manifest.filter(pc.is_null(manifest["status"]))
        self._images = {name: rows for name, rows in by_group(readable).items() if name in rank}
        ids, groups = readable["image_id"].to_pylist(), readable["group_id"].to_pylist()
        self._group_of = {image: group for image, group in zip(ids, groups, strict=True) if group in rank}
        self._found: defaultdict[str, list[pa.Table]] = defaultdict(list)
        self._left = {name: rows.num_rows for name, rows in self._images.items()}

    def in_order(self, units: pa.Table) -> pa.Table:
        """Put `units.UNIT` rows into the order in which groups are wanted."""
        groups = units["group_id"].to_pylist()
        return units.take(sorted(range(len(groups)), key=lambda at: (self._rank.get(groups[at], _LAST), at)))

    def add(self, receipts: pa.Table) -> None:
        """Take RECEIPTS that are final: of images that are embedded, were before, or have failed."""
        groups = pa.array([self._group_of.get(image) for image in receipts["image_id"].to_pylist()], pa.string())
        known = receipts.append_column("group_id", groups).filter(pc.is_valid(groups))
        for name, rows in by_group(known).items():
            self._found[name].append(rows.drop_columns(["group_id"]))
            self._left[name] -= rows.num_rows
            if self._left[name] == 0:
                images, found = self._images.pop(name), pa.concat_tables(self._found.pop(name))
                place = pc.index_in(images["image_id"], value_set=values(found["image_id"]))
                self._take(name, with_receipts(images, found.take(place)))


def with_receipts(manifest: pa.Table, receipts: pa.Table) -> pa.Table:
    """Put the receipts' columns behind those of the manifest, row by row."""
    found, left = receipts.select(RECEIPTS.names).drop_columns(SAMPLE_KEY), manifest.drop_columns(["status", "error"])
    return pa.table([*left.columns, *found.columns], names=[*left.column_names, *found.column_names])

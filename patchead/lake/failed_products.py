"""Which products of a published night hold something that failed: what `--retry-failed` runs again."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import Any

import pyarrow.compute as pc

from patchead.lake.tables import read_rows
from patchead.schema import FAILED, GROUP_FAILED, INCOMPLETE
from patchead.storage import Storage


def failed_products(lake_uri: str, storage: Storage, night: dt.date) -> list[str | None]:
    """List the products of a night that hold a failed image or group, or a group of which something is missing.

    Args:
        lake_uri, storage: the lake.
        night: whose.

    Raises:
        LakeError: a table cannot be read.
    """
    read = partial(read_rows, lake_uri, storage)
    of_night: list[tuple[str, str, Any]] = [("night", "=", night)]
    images = read("scores", ["product"], [*of_night, ("status", "in", [FAILED, GROUP_FAILED])])
    groups = read("verdicts", ["run_id", "product", "status"], of_night)
    groups = groups.filter(pc.equal(groups["status"], INCOMPLETE))
    if groups.num_rows:  # of a run that is replaced, rows may be there for a while
        current = read("scores", ["run_id"], of_night)["run_id"]
        groups = groups.filter(pc.is_in(groups["run_id"], value_set=pc.unique(current)))
    return sorted({*images["product"].to_pylist(), *groups["product"].to_pylist()}, key=lambda name: name or "")

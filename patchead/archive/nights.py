"""Which nights an archive holds, from its folders and names where they tell, without listing what is in them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import partial

from patchead.archive.catalog import CatalogRequest, listed
from patchead.archive.keys import Seen
from patchead.batches import concurrently

_NO_NIGHT = dt.date.min
_MOST = 100_000
_THREADS = 8


def nights_of(request: CatalogRequest) -> list[dt.date]:
    """List the nights of an archive in order, whatever night and products the request takes.

    Where the path names the night, folders of a night are not entered and shards not opened.

    Raises:
        ArchiveError: the archive cannot be reached or listed, or is empty and has no folders.
        SettingsError: as `archive.catalog.catalog`.
    """
    found = listed(
        replace(request, night=_NO_NIGHT, products=(), limit=None),
        map_shards=partial(concurrently, at_once=_THREADS),
        seen=Seen(most=_MOST),
    )
    return sorted(map(dt.date.fromisoformat, found.seen.nights))

"""Before a night is embedded: how many bits the 16-bit images of each group use, one answer for all of them.

Only groups of which an image may be of that sort are looked at: of up to 32 of their images the first bytes are read,
and of those with 16 bits all. Ordinary JPEG archives are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from patchead.archive.bit_depth import HEAD_BYTES, TELLS_ITSELF, Largest, largest_of, may_need_scale, settled
from patchead.arrow_columns import compact
from patchead.errors import DecodeError
from patchead.nightly.decode import DecodeSettings, encoded
from patchead.nightly.units import PLACE
from patchead.printed import say
from patchead.runtime.executor import RunTasks
from patchead.runtime.in_hand import Watch

if TYPE_CHECKING:  # its plan brings torch, and the tasks that look at images need none
    from patchead.nightly.accepted import AcceptedGroups
    from patchead.nightly.prompts import PromptSet

LOOKED_AT = 32
"""Images of a group that are looked at, at most: evenly over all."""
_TIFFS_FIRST = 4  # their first bytes do not tell; where none of these has 16 bits, the group has none


def settle_night(
    groups: Mapping[str, pa.Table],
    prompts: PromptSet | None,
    accepted: AcceptedGroups,
    settings: DecodeSettings,
    run_tasks: RunTasks,
    console: Console,
) -> dict[str, int]:
    """Settle the bits of a night's groups and print them; prompts and what they are compared with are alike.

    Empty where ``archive.bit_depth`` fixes them. With ``prompts`` the names of their groups are in it, too. What is
    compared with an ``accepted`` group has the bits of that.

    Raises:
        SettingsError: a group uses more bits than its accepted one.
    """
    if settings.bit_depth != "auto":
        return {}
    found = settle(prompts.with_their_groups(groups) if prompts else groups, settings, run_tasks)
    if prompts:
        found |= {name: found[prompts.name_of(name)] for name in groups if prompts.name_of(name) in found}
    found = accepted.on_their_scale(found)
    if prompts:
        found |= {prompts.name_of(name): found[name] for name in accepted.bits if name in found}
    for bits in sorted(set(found.values())):
        names = [name for name in groups if found.get(name) == bits]
        text = f"         16-bit images use {bits} bits in {len(names)} of {len(groups)} groups, e.g. {names[0]}"
        say(console, text)
    return found


def settle(groups: Mapping[str, pa.Table], settings: DecodeSettings, run_tasks: RunTasks) -> dict[str, int]:
    """Settle the bits of every group that has 16-bit images; the others are not in what is returned.

    Args:
        groups: MANIFEST rows of images that share one scale, by any name.
        settings: say how they are read.
        run_tasks: calls a function of every item and yields (place, result).
    """
    asked = {name: rows for name, rows in ((n, _some(r)) for n, r in groups.items()) if rows.num_rows}
    names = list(asked)
    found = run_tasks(partial(bits_of, settings=settings), asked.values())
    return {names[place]: bits for place, bits in found if bits is not None}


def with_bits(images: pa.Table, bits: Mapping[str, int]) -> pa.Table:
    """Give rows with a group_id the column ``bit_depth`` of `TO_EMBED`."""
    column = pa.array([bits.get(group) for group in images["group_id"].to_pylist()], pa.int32())
    place = images.schema.get_field_index("bit_depth")
    return images.append_column("bit_depth", column) if place < 0 else images.set_column(place, "bit_depth", column)


def bits_of(images: pa.Table, *, settings: DecodeSettings) -> int | None:
    """Look at the images of one group; None where none has 16 bits, or each says how many it uses."""
    heads = [(row, head) for row, head in _read(images.to_pylist(), settings, HEAD_BYTES) if may_need_scale(head)]
    pngs, tiffs = ([row for row, head in heads if (head[:1] == b"\x89") == wanted] for wanted in (True, False))
    with settings.watch(f"looking for 16-bit images from {images['image_id'][0].as_py()} on") as watch:
        found = _look(pngs + tiffs[:_TIFFS_FIRST], settings, watch)
        if any(found):
            found += _look(tiffs[_TIFFS_FIRST:], settings, watch)
    return settled(found)


def _look(images: list[dict[str, Any]], settings: DecodeSettings, watch: Watch) -> list[Largest | None]:
    found: list[Largest | None] = []
    for row, data in _read(images, settings):
        with suppress(DecodeError), watch.over(row["image_id"]):  # it becomes a row with its error later
            found.append(largest_of(data, settings.max_pixels))
    return found


def _read(
    images: list[dict[str, Any]], settings: DecodeSettings, first: int | None = None
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What can be read of them; the others become rows with their errors later."""

    def shard(row: dict[str, Any]) -> tuple[str, str]:
        return row["format"], row["uri"] if row["key"] is not None else ""

    for _, part in groupby(sorted(images, key=shard), key=shard):
        rows = list(part)
        for index, data in encoded({name: [row[name] for row in rows] for name in PLACE}, settings, first=first):
            if isinstance(data, bytes):
                yield rows[index], data


def _some(images: pa.Table) -> pa.Table:
    asked = images.filter(pc.invert(pc.match_substring_regex(images["image_id"], TELLS_ITSELF)))
    step = max(1, asked.num_rows)
    places = np.unique(np.linspace(0, step - 1, min(LOOKED_AT, step)).round().astype(np.int64))
    return compact(asked.take(places)) if asked.num_rows else asked

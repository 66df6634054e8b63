"""What the embed stage is asked for, and how it is cut into units: images of one group and one shard."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.decode import READING
from patchead.arrow_columns import digest, keys, run_boundaries, values
from patchead.batches import slices
from patchead.hashing import text_digest
from patchead.schema import PROMPT_VIEW, SAMPLE_KEY, TO_EMBED, completed

PLACE = ("format", "uri", "key", "offset", "size", "etag")
"""Columns of the manifest that say where an image's bytes are."""

_IN_A_UNIT = [TO_EMBED.field(name) for name in dict.fromkeys((*SAMPLE_KEY, "part_id", *PLACE))]
UNIT = pa.schema(
    [("unit_id", pa.string()), ("group_id", pa.string()), *((f.name, pa.list_(f.type)) for f in _IN_A_UNIT)]
)
"""One row per unit; every other column is a list with one value per image, see `TO_EMBED`."""


def view_role(number: int) -> str:
    """Write the role of a sample that is view ``number`` of a prompt, see `samples.stand_ins`."""
    return f"{PROMPT_VIEW} {number}"


def view_number(role: str | None) -> int | None:
    """Read the number of the view that a sample is, from its role; None where it is none."""
    return int(role.removeprefix(PROMPT_VIEW)) if role and role.startswith(PROMPT_VIEW) else None


def samples(manifest: pa.Table, guides: Mapping[str, pa.Table], max_pixels: int) -> pa.Table:
    """Complete a manifest to `TO_EMBED`: with the digest of what each image is aligned with, where anything is.

    Args:
        manifest: MANIFEST, or TO_EMBED without digests.
        guides: MANIFEST rows of the images to align with, by group; empty without alignment. Prompts of which some are
            of one photo have ``same_as``, too.
        max_pixels: decides which of the guides is an image at all, so it is part of the digest.
    """
    found = completed(manifest, TO_EMBED)
    if not guides:
        return found
    taken = ("image_id", "etag", "part_id", "same_as")
    seen = {group: digest([rows], [c for c in taken if c in rows.column_names]) for group, rows in guides.items()}

    @cache
    def of(group: str | None, part: str | None) -> str:
        # The part is in it: an image is not aligned with a prompt of its own part.
        return text_digest(f"{seen.get(group or '')} {max_pixels} {part}", 8)

    digests = map(of, found["group_id"].to_pylist(), found["part_id"].to_pylist())
    return found.set_column(TO_EMBED.get_field_index("guides_digest"), "guides_digest", pa.array(digests, pa.string()))


def as_read_now(wanted: pa.Table) -> pa.Table:
    """Ask for `TO_EMBED` rows as `archive.decode` reads images now: what it read otherwise before is embedded anew."""
    read = pa.array(np.full(wanted.num_rows, READING, np.int32))
    return wanted.set_column(TO_EMBED.get_field_index("reading"), "reading", read)


def units(wanted: pa.Table, images_per_file: int, run_id: str) -> pa.Table:
    """Cut `TO_EMBED` rows into units, images of one group and one shard in order of their id. Returns `UNIT` rows.

    The unit's id is a hash of the run's id and of its samples: another try of the run writes the same files again, and
    no run ever writes into a file that an earlier run's receipts name.
    """
    if not wanted.num_rows:
        return UNIT.empty_table()
    shard = pc.if_else(pc.is_valid(wanted["key"]), wanted["uri"], "")
    order = ("group_id", "shard", "turn", "image_id")
    rows = wanted.append_column("shard", shard).sort_by([(name, "ascending") for name in order])
    starts = [0]
    for start, stop in pairwise(run_boundaries(rows, ["group_id", "shard"])):
        starts += [cut.stop for cut in slices(stop, images_per_file, start)]
    offsets = pa.array(starts, pa.int32())
    lists = {field.name: pa.ListArray.from_arrays(offsets, values(rows[field.name])) for field in _IN_A_UNIT}
    groups = values(rows["group_id"]).take(pa.array(starts[:-1]))
    names = keys(rows, SAMPLE_KEY)
    ids = [text_digest("\n".join([run_id, *names[a:b].to_pylist()])) for a, b in pairwise(starts)]
    return pa.table({"unit_id": pa.array(ids, pa.string()), "group_id": groups, **lists}, schema=UNIT)

"""Boxes of regions as shares of their picture, for whoever shows it at another size."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import values
from patchead.schema import REGIONS, completed


def with_shares(regions: pa.Table, images: pa.Table, lane: str) -> pa.Table:
    """Add the lane and the boxes as shares of the picture.

    Args:
        regions: `STAGED_REGIONS` of one run, boxes in pixels.
        images: image_id, width and height of those that they lie in, at least.
        lane: of the run.

    Returns:
        REGIONS, in the same order; a share is null where the picture's size is not known, and so are names.
    """
    place = pc.index_in(regions["image_id"], value_set=values(images["image_id"]))
    made = {"lane": pa.array([lane] * regions.num_rows, pa.string())}
    for side, boxes in (("width", ("x", "width")), ("height", ("y", "height"))):
        pixels = images[side].take(place).cast(pa.float64())
        made |= {f"rel_{name}": pc.divide(regions[name].cast(pa.float64()), pixels) for name in boxes}
    return completed(pa.table({name: regions[name] for name in regions.column_names} | made), REGIONS)

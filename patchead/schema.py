"""Arrow schemas of everything that crosses a stage boundary, with the meaning of every column, and their version.

The result tables (scores, regions, verdicts, runs) are described in `result_tables`; float16 and fixed-size tensors
stay in the embedding files. `docs/tables.md` is made from both modules by `make pages`: a new column is one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from patchead.result_tables import (
    KEYS_JSON,
    NAMES,
    REGIONS_TABLE,
    RUNS_TABLE,
    SCORES_TABLE,
    SHARES,
    TIMESTAMP,
    VECTORS_TABLE,
    VERDICTS_TABLE,
    Described,
)

SCHEMA_VERSION = 2
"""Version of the files between the stages, and of what people decide; the result tables have their own."""

OK = "ok"
FAILED = "failed"
TOO_FEW_IMAGES = "too_few_images"
GROUP_FAILED = "group_failed"
INCOMPLETE = "incomplete"
"""Of a verdict: its group has scores, and regions, heatmaps or names of it are missing."""
PROMPT = "prompt"
PROMPT_VIEW = "prompt view"
SKIPPED = (TOO_FEW_IMAGES, GROUP_FAILED)
"""Of images that are embedded and have no score."""
UNREAD = "unread"
"""Of a receipt whose image the storage did not give; the embed stage tries it again, and no row of a table has it."""


_MANIFEST = Described(
    "`runs/<run_id>/manifest.parquet`",
    "One row per image that the catalog found: what there is to score.",
    [
        ("image_id", pa.string(), "Relative URI, plus `#member` (tar) or `#row key` (Parquet); never a position."),
        ("uri", pa.string(), "Full URI of the file or shard that holds the image."),
        ("key", pa.string(), "Tar member or Parquet row key; null for a loose file."),
        ("format", pa.string(), "`files`, `tar` or `parquet`."),
        ("size", pa.int64(), "Bytes of the image; -1 where the shard does not tell."),
        ("offset", pa.int64(), "Where a tar member's bytes begin in its shard; null otherwise."),
        ("etag", pa.string(), "What changes when the file changes: its etag, or size and modification time."),
        ("night", pa.date32(), "Night that the image belongs to, from its path or columns."),
        ("product", pa.string(), "Product that the image shows, from its path or columns."),
        ("group_id", pa.string(), "The group, e.g. `night=2026-11-21/product=screw`."),
        ("part_id", pa.string(), "The physical part: images of one part are never each other's reference."),
        KEYS_JSON,
        ("captured_at", TIMESTAMP, "When the photo was taken, from a column or JSON field `captured_at`; else null."),
        ("status", pa.string(), "`failed` where the catalog already knows; else null."),
        ("error", pa.string(), "Why it failed; else null."),
    ],
)

_OF_A_SAMPLE = [
    (
        "role",
        pa.string(),
        "`prompt` for a normal image of few-shot mode, `prompt view N` for one that stands in; else null.",
    ),
    ("turn", pa.int32(), "Degrees by which a prompt is turned clockwise before it is embedded; null: as it is."),
    ("guides_digest", pa.string(), "Hash of the images that it is aligned with; null without alignment."),
    ("reading", pa.int32(), "Counts the changes of decoding that give other pixels; null before the first."),
    ("bit_depth", pa.int32(), "Bits in use of its group's 16-bit images, with `archive.bit_depth: auto`; else null."),
]

_RECEIPTS = Described(
    "`embeddings/<store_id>/parts/*.receipts.parquet` and `pending/*.parquet`; of one run "
    "`runs/<run_id>/receipts.parquet`",
    "What embedding one image left behind. `embedding_uri` and `row` say where its vectors are; both are null where "
    "the image failed.",
    [
        ("image_id", pa.string(), "As in the manifest."),
        ("etag", pa.string(), "As in the manifest: what was embedded is embedded again when it changes."),
        ("size", pa.int64(), "As in the manifest."),
        *_OF_A_SAMPLE,
        ("content_hash", pa.string(), "Hash of the encoded bytes: equal for equal files."),
        ("width", pa.int32(), "Of the original image, in pixels, upright."),
        ("height", pa.int32(), "Of the original image, in pixels, upright."),
        ("embedding_uri", pa.string(), "The embedding file; inside the store its name without the folder."),
        ("row", pa.int32(), "Row of the image in that file, from 0."),
        ("status", pa.string(), "`ok` or `failed`."),
        ("error", pa.string(), "Why it failed; else null."),
    ],
)

_WORD_LINKS = Described(
    "`runs/<run_id>/word_links.parquet`",
    "One row per patch that counts for the words nearest to a region (method.md §14): what a name by words rests on, "
    "or the nearest type of a region that got none.",
    [
        ("image_id", pa.string(), "The image; joins `regions`, with `region`."),
        ("region", pa.int32(), "Number in the image, as in `regions`."),
        ("defect_type", pa.string(), "The type that is nearest by its words, named or not."),
        ("phrase", pa.string(), "Of its phrases the one that is nearest to this patch."),
        (
            "contrast",
            pa.float64(),
            "Cosine of the patch with the type's words, less that with those of what is normal.",
        ),
        ("scale", pa.float64(), "Side of the crop that the patch is of, in sides of the region: 1, 1.5 or 2.5."),
        ("x", pa.float64(), "Left edge of the patch, in pixels of the original image."),
        ("y", pa.float64(), "Its upper edge."),
        ("width", pa.float64(), "Its width."),
        ("height", pa.float64(), "Its height."),
        ("why_unknown", pa.string(), "Why the region has no name, in words; null where it has."),
    ],
)

MANIFEST, RECEIPTS = _MANIFEST.schema, _RECEIPTS.schema
WORD_LINKS = _WORD_LINKS.schema
LATER_COLUMNS = {"keys_json"}
"""Of the manifest: what files of the same version lack that were written before the column came."""
TO_EMBED = pa.schema([*MANIFEST, *((name, type) for name, type, _ in _OF_A_SAMPLE)])
"""What the embed stage is asked for: one row per sample. The same image may be there upright and turned."""
SAMPLE_KEY = ("image_id", "etag", "size", *(name for name, _, _ in _OF_A_SAMPLE))
"""Columns that tell samples of one store apart: where all are equal, and the etag is known, so is the embedding."""
SCORES, REGIONS, RUNS, VERDICTS = SCORES_TABLE.schema, REGIONS_TABLE.schema, RUNS_TABLE.schema, VERDICTS_TABLE.schema

STAGED_REGIONS = pa.schema([column for column in REGIONS if column.name not in ("lane", *SHARES, *NAMES)])
"""What is staged of regions; the run's lane, boxes as shares of the picture, and names come later."""

REGION_VECTORS = VECTORS_TABLE.schema

PARTITIONS = {name: ["night"] for name in ("scores", "regions", "verdicts", "region_vectors")} | {"runs": []}
LATER_TABLES: dict[str, pa.Schema] = {"region_vectors": REGION_VECTORS}
"""Tables of runs that come with their first row."""
TABLES: dict[str, pa.Schema] = {"scores": SCORES, "regions": REGIONS, "verdicts": VERDICTS, "runs": RUNS}
DICTIONARY = {
    **{"scores": SCORES_TABLE, "regions": REGIONS_TABLE, "verdicts": VERDICTS_TABLE, "runs": RUNS_TABLE},
    **{"region_vectors": VECTORS_TABLE},
    **{"manifest": _MANIFEST, "receipts": _RECEIPTS, "word_links": _WORD_LINKS},
}
"""What `docs/tables.md` tells, in its order."""


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make an Arrow table of exactly ``schema``; a missing key is null, an unknown one raises ``KeyError``."""
    names = set(schema.names)
    for row in rows:
        if unknown := set(row) - names:
            raise KeyError(f"not a column of the schema: {sorted(unknown)}")
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give rows the columns of ``schema`` in its order: what they lack is null, what it lacks is dropped.

    Raises:
        pa.ArrowException: a column has another type.
    """
    columns = [rows[f.name] if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type) for f in schema]
    return pa.table(columns, names=schema.names).cast(schema)

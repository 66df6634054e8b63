"""Arrow schemas of everything that crosses a stage boundary, with the meaning of every column, and their version.

Result tables (scores, regions, verdicts, runs) use only types that every SQL engine reads: string, int32/int64,
float64, bool, date32 and timestamp[us, UTC]. float16 and fixed-size tensors stay in the embedding files.
`docs/tables.md` is made from this module by `make pages`: a new column is one line here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 2

OK = "ok"
FAILED = "failed"
TOO_FEW_IMAGES = "too_few_images"
PROMPT = "prompt"
PROMPT_VIEW = "prompt view"
SKIPPED = (TOO_FEW_IMAGES,)
UNREAD = "unread"
"""Of a receipt whose image the storage did not give; the embed stage tries it again, and no row of a table has it."""


@dataclass(frozen=True)
class Described:
    """Describe one table or file: where it is, and name, type and meaning of its columns."""

    where: str
    meaning: str
    columns: Sequence[tuple[str, pa.DataType, str]]

    @property
    def schema(self) -> pa.Schema:
        """Give the columns without their meanings: what the readers and writers take."""
        return pa.schema([(name, type) for name, type, _ in self.columns])


_timestamp = pa.timestamp("us", tz="UTC")

_KEYS_JSON = (
    "keys_json",
    pa.string(),
    'Other keys of the image, as JSON, e.g. `{"station":"3"}`: those of its path, and `archive.keys`; else null.',
)

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
        _KEYS_JSON,
        ("captured_at", _timestamp, "When the photo was taken, from a column or JSON field `captured_at`; else null."),
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

_SCORES = Described(
    "`tables/scores`",
    "One row per image of a run, whatever became of it.",
    [
        ("run_id", pa.string(), "The run that wrote the row; joins `runs`."),
        ("image_id", pa.string(), "Relative URI, plus `#member` (tar) or `#row key` (Parquet); unique in a run."),
        ("uri", pa.string(), "Full URI of the file or shard that holds the image."),
        ("night", pa.date32(), "Night of the image. Partition."),
        ("product", pa.string(), "Product of the image; null where it is empty. Partition."),
        ("group_id", pa.string(), "The images it was compared with, e.g. `night=2026-11-21/product=screw`."),
        ("score", pa.float64(), "Image score in [0, 1]: the higher, the more anomalous. Null unless `ok`."),
        ("rank", pa.int32(), "Place in its group; 1 is the most anomalous. Null unless `ok`."),
        ("group_size", pa.int32(), "Images of the group that could be embedded. Null where the image failed."),
        ("n_references", pa.int32(), "How many images it was compared with; 0 where none may be its reference."),
        ("z", pa.float64(), "Distance of the score from `verdicts.centre` in units of `scale`. Null unless `ok`."),
        ("p_value", pa.float64(), "How often a normal image scores as high, where the rule tells that; else null."),
        ("is_anomalous", pa.bool_(), "The verdict: flagged or not. Null unless `ok`."),
        ("threshold_score", pa.float64(), "Scores above it are flagged in this group; null where none can be."),
        ("verdict_rule", pa.string(), "As in `verdicts`. Null unless `ok`."),
        ("max_patch", pa.float64(), "The highest patch score, in [0, 1]. Null unless `ok`."),
        ("score_subspace", pa.float64(), "Distance from the directions in which the group varies. Null unless asked."),
        (
            "repeat_group",
            pa.int32(),
            "Equal for images of a group that share a region no other shows; they were scored without each other. Null "
            "for all others.",
        ),
        ("aligned", pa.bool_(), "Whether the alignment found a motion. Null unless `align.enabled`."),
        ("heatmap_uri", pa.string(), "The heatmap file; null where none was drawn."),
        ("width", pa.int32(), "Of the original image, in pixels, upright."),
        ("height", pa.int32(), "Of the original image, in pixels, upright."),
        ("content_hash", pa.string(), "Hash of the encoded bytes: equal for equal files."),
        ("encoder_id", pa.string(), "Model and hash of all that decides its vectors; scores compare within one."),
        ("member", pa.string(), "Tar member or Parquet row key inside that file; null for a loose file."),
        ("part_id", pa.string(), "The physical part that it shows, by `archive.part_id_column`; else null."),
        _KEYS_JSON,
        ("captured_at", _timestamp, "When the photo was taken, from a column or JSON field `captured_at`; else null."),
        ("status", pa.string(), "`ok`, `failed` or `too_few_images`; see below."),
        ("error", pa.string(), "Why there is no score, or why a scored image has no heatmap; else null."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

_REGIONS = Described(
    "`tables/regions`",
    "One row per region of the images that were explained. A flagged image has at least one; another that was "
    "explained has none where its map stays below the group's threshold. Boxes are pixels of "
    "the original image, upright; x runs to the right, y downwards, from 0. Join `scores` by `run_id` and `image_id`: "
    "while a night is being replaced, rows of two runs are here.",
    [
        ("run_id", pa.string(), "The run that wrote the row."),
        ("image_id", pa.string(), "The image; joins `scores`, with `run_id`."),
        ("night", pa.date32(), "Night of the image. Partition."),
        ("product", pa.string(), "Product of the image; null where it is empty. Partition."),
        ("group_id", pa.string(), "Group of the image."),
        ("region", pa.int32(), "Number in the image; 1 is the region with the highest peak."),
        ("x", pa.int32(), "Left edge of the box."),
        ("y", pa.int32(), "Upper edge of the box."),
        ("width", pa.int32(), "Of the box."),
        ("height", pa.int32(), "Of the box."),
        ("area_px", pa.int64(), "Pixels of the region itself; less than the box."),
        ("peak", pa.float64(), "Highest value of the smoothed map inside, in [0, 1]."),
        ("mean", pa.float64(), "Mean value of the smoothed map inside, in [0, 1]."),
        (
            "threshold",
            pa.float64(),
            "It reaches above this: `region_threshold` of `verdicts`; less in some flagged images.",
        ),
    ],
)

_VERDICTS = Described(
    "`tables/verdicts`",
    "One row per group of a run: how it was decided which of its images are flagged, and signs of a rule that does not "
    "fit. Where the null fits, `upper_ratio` is near 1 and `skew` near 0; where the flagged stand apart, `gap_z` is "
    "large. Join `scores` by `run_id` and `group_id`, as `regions`.",
    [
        ("run_id", pa.string(), "The run that wrote the row; joins `runs`."),
        ("night", pa.date32(), "Night of the group. Partition."),
        ("product", pa.string(), "Product of the group; null where it is empty. Partition."),
        ("group_id", pa.string(), "The group; with `run_id` joins `scores`."),
        ("images", pa.int64(), "Images of the group that could be embedded."),
        ("scored", pa.int64(), "Those with a score."),
        ("flagged", pa.int64(), "Those with `is_anomalous`."),
        (
            "verdict_rule",
            pa.string(),
            "`upper_fit`, `mad`, `few_shot`, `few_prompts`, `reference` or `top`; null without a score.",
        ),
        ("centre", pa.float64(), "Of the scores that normal images are taken to have: z is 0 there."),
        ("scale", pa.float64(), "Their standard deviation: one unit of z; 0 where all score alike."),
        ("threshold_z", pa.float64(), "Images with a higher z are flagged; null where none can be."),
        ("threshold_score", pa.float64(), "The score there; null where none can be flagged."),
        ("region_threshold", pa.float64(), "Value of a map above which a region reaches; null without a score."),
        (
            "repeats_json",
            pa.string(),
            "Each `repeat_group`: how many images, and x, y, width, height of the region as shares of the picture; "
            "null where it lies elsewhere in each. Null where none was looked for.",
        ),
        ("median", pa.float64(), "Of the group's scores."),
        ("skew", pa.float64(), "Skewness of the scores that are not flagged; null with fewer than three."),
        ("upper_ratio", pa.float64(), "84 % quantile minus median of those, in units of `scale`; 1 for a normal."),
        ("gap_z", pa.float64(), "From the highest that is not flagged to the lowest that is, in units of `scale`."),
        (
            "search",
            pa.string(),
            "`full`, and why; `window` or `projection`, where bounds came from; `window rule r=1`; several of blocks.",
        ),
        (
            "search_share",
            pa.float64(),
            "Multiplications done, of those of all pairs of patches, but for `searched_to_show` of `scoring_json`.",
        ),
        ("search_refined", pa.float64(), "Share of the patches that were searched fully; 1 of `full`."),
        ("accepted", pa.string(), "Name of the accepted run that the group was compared with; null without one."),
        ("drift_p", pa.float64(), "Kolmogorov-Smirnov p of the unflagged scores, its and the accepted; else null."),
        ("drift_shift", pa.float64(), "Their median less the accepted one, in accepted scales; else null."),
        ("drift_scale", pa.float64(), "Their scale over the accepted one; null without an accepted run."),
        ("encoder_id", pa.string(), "As in `scores`."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

_RUNS = Described(
    "`tables/runs`",
    "One row per run that ended. One that `failed` has nothing in the other tables. What `scores` names is complete "
    "there, also of a run that was killed before it could say more than `publishing`. One that was killed earlier has "
    "no row until it is tried again; `patchead runs` tells it from one that still works.",
    [
        ("run_id", pa.string(), "Name of the run, unique."),
        ("night", pa.date32(), "The night that it covered, or was to cover; null if several or not known."),
        ("nights", pa.list_(pa.date32()), "All nights that it covered; null where it failed before they were known."),
        ("started_at", _timestamp, "When it began."),
        ("finished_at", _timestamp, "When it published, or failed."),
        ("state", pa.string(), "`published`, `failed` or `publishing`."),
        ("reason", pa.string(), "Why it failed; else null."),
        ("images", pa.int64(), "Images of the manifest: `ok` + `failed` + `skipped`."),
        ("ok", pa.int64(), "Images with a score."),
        ("failed", pa.int64(), "Images with status `failed`."),
        ("skipped", pa.int64(), "Images with status `too_few_images`."),
        ("embedded", pa.int64(), "Images that went through the encoder in this run."),
        ("reused", pa.int64(), "Images whose embedding was there already: `images` - `failed` - `embedded`."),
        ("groups", pa.int64(), "Groups of the run."),
        ("anomalous", pa.int64(), "Images with `is_anomalous`."),
        ("config_json", pa.string(), "Every setting, as JSON."),
        ("encoder_id", pa.string(), "As in `scores`."),
        ("versions_json", pa.string(), "Versions of patchead, Python and the libraries that compute the scores."),
        ("seconds_json", pa.string(), "Seconds of each stage."),
        ("scoring_json", pa.string(), "Schedules, precision, tasks, reads, repetitions, prompts."),
        ("gpu_seconds", pa.float64(), "GPU seconds that the pools of actors held."),
        ("cpu_seconds", pa.float64(), "CPU seconds that the pools of actors and the decoders held."),
        ("git_commit", pa.string(), "Commit of the code; null where it is not known."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

MANIFEST, RECEIPTS = _MANIFEST.schema, _RECEIPTS.schema
LATER_COLUMNS = {"keys_json"}
"""Of the manifest: what files of the same version lack that were written before the column came."""
TO_EMBED = pa.schema([*MANIFEST, *((name, type) for name, type, _ in _OF_A_SAMPLE)])
"""What the embed stage is asked for: one row per sample. The same image may be there upright and turned."""
SAMPLE_KEY = ("image_id", "etag", "size", *(name for name, _, _ in _OF_A_SAMPLE))
"""Columns that tell samples of one store apart: where all are equal, and the etag is known, so is the embedding."""
SCORES, REGIONS, RUNS, VERDICTS = _SCORES.schema, _REGIONS.schema, _RUNS.schema, _VERDICTS.schema

PARTITIONS = {name: ["night", "product"] for name in ("scores", "regions", "verdicts")} | {"runs": []}
TABLES: dict[str, pa.Schema] = {"scores": SCORES, "regions": REGIONS, "verdicts": VERDICTS, "runs": RUNS}
DICTIONARY = {
    **{"scores": _SCORES, "regions": _REGIONS, "verdicts": _VERDICTS, "runs": _RUNS},
    **{"manifest": _MANIFEST, "receipts": _RECEIPTS},
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

"""The columns of the result tables, with their meaning, and the version of them.

Only types that every SQL engine reads: string, int32/int64, float64, bool, date32 and timestamp[us, UTC].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

TABLES_VERSION = 3
"""Version of the columns of the result tables. `lake.migration` takes tables of an earlier one to it."""
MAIN = "main"
"""The lane of results that the views show, unless another is asked for."""
SHARES = ("rel_x", "rel_y", "rel_width", "rel_height")
NAMES = (*("family", "family_medoid", "defect_type", "defect_confidence", "defect_p", "defect_runner_up", "naming_id"),)
"""Columns of regions that the naming stage fills."""
OPTIONAL = {
    *("member", "part_id", "keys_json", "captured_at", "p_value", "score_subspace", "repeat_group", "aligned"),
    *("repeats_json", "accepted", "drift_p", "drift_shift", "drift_scale", "cost", "git_commit"),
    *NAMES,
}
"""Columns of what not every factory has or asks for: a table has one from the first row on that says something there.
The views have them all."""


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


TIMESTAMP = pa.timestamp("us", tz="UTC")

KEYS_JSON = (
    "keys_json",
    pa.string(),
    'Other keys of the image, as JSON, e.g. `{"station":"3"}`: those of its path, and `archive.keys`; else null.',
)


SCORES_TABLE = Described(
    "`tables/scores`",
    "One row per image of a run, whatever became of it.",
    [
        ("run_id", pa.string(), "The run that wrote the row; joins `runs`."),
        (
            "lane",
            pa.string(),
            "`run.lane`: results of one night in several lanes stand side by side; the views show `main`.",
        ),
        ("image_id", pa.string(), "Relative URI, plus `#member` (tar) or `#row key` (Parquet); unique in a run."),
        (
            "path",
            pa.string(),
            "File or shard of the image, relative to `runs.archive_uri`; whole in the views, as `uri`.",
        ),
        ("night", pa.date32(), "Night of the image. Partition."),
        ("product", pa.string(), "Product of the image; null where it is empty."),
        ("group_id", pa.string(), "The images it was compared with, e.g. `night=2026-11-21/product=screw`."),
        ("score", pa.float64(), "Image score in [0, 1]: the higher, the more anomalous. Null unless `ok`."),
        ("rank", pa.int32(), "Place in its group; 1 is the most anomalous. Null unless `ok`."),
        ("group_size", pa.int32(), "Images of the group that could be embedded. Null where the image failed."),
        ("n_references", pa.int32(), "How many images it was compared with; 0 where none may be its reference."),
        ("z", pa.float64(), "Distance of the score from `verdicts.centre` in units of `scale`. Null unless `ok`."),
        ("p_value", pa.float64(), "How often a normal image scores as high, by prompts or an accepted run; else null."),
        ("is_anomalous", pa.bool_(), "The verdict: flagged or not. Null unless `ok`."),
        (
            "threshold_score",
            pa.float64(),
            "Scores above it are flagged, by `top` also the first equal to it; null where none can be.",
        ),
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
        (
            "heatmap_path",
            pa.string(),
            "Heatmap file, relative to the lake, else null; whole in the views: `heatmap_uri`.",
        ),
        ("width", pa.int32(), "Of the original image, in pixels, upright."),
        ("height", pa.int32(), "Of the original image, in pixels, upright."),
        ("content_hash", pa.string(), "Hash of the encoded bytes: equal for equal files."),
        ("encoder_id", pa.string(), "Model and hash of all that decides its vectors; scores compare within one."),
        ("member", pa.string(), "Tar member or Parquet row key inside that file; null for a loose file."),
        ("part_id", pa.string(), "The physical part that it shows, by `archive.part_id_column`; else null."),
        KEYS_JSON,
        ("captured_at", TIMESTAMP, "When the photo was taken, from a column or JSON field `captured_at`; else null."),
        ("status", pa.string(), "`ok`, `failed`, `too_few_images` or `group_failed`; see below."),
        ("error", pa.string(), "Why there is no score, or why a scored image has no heatmap or region; else null."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

REGIONS_TABLE = Described(
    "`tables/regions`",
    "One row per region of the images that were explained. A flagged image has at least one, unless its `error` says "
    "why not; another that was explained has none where its map stays below the group's threshold. Boxes are pixels of "
    "the original image, upright; x runs to the right, y downwards, from 0. Join `scores` by `run_id` and `image_id`: "
    "while a night is being replaced, rows of two runs are here.",
    [
        ("run_id", pa.string(), "The run that wrote the row."),
        ("lane", pa.string(), "As in `scores`."),
        ("image_id", pa.string(), "The image; joins `scores`, with `run_id`."),
        ("night", pa.date32(), "Night of the image. Partition."),
        ("product", pa.string(), "Product of the image; null where it is empty."),
        ("group_id", pa.string(), "Group of the image."),
        ("region", pa.int32(), "Number in the image; 1 is the region with the highest peak."),
        ("x", pa.int32(), "Left edge of the box."),
        ("y", pa.int32(), "Upper edge of the box."),
        ("width", pa.int32(), "Of the box."),
        ("height", pa.int32(), "Of the box."),
        ("rel_x", pa.float64(), "`x` as a share of the picture's width, 0 to 1: for whoever shows it at another size."),
        ("rel_y", pa.float64(), "`y` as a share of its height."),
        ("rel_width", pa.float64(), "`width` as a share of its width."),
        ("rel_height", pa.float64(), "`height` as a share of its height."),
        ("area_px", pa.int64(), "Pixels of the region itself; less than the box."),
        ("peak", pa.float64(), "Highest value of the smoothed map inside, in [0, 1]."),
        ("mean", pa.float64(), "Mean value of the smoothed map inside, in [0, 1]."),
        (
            "threshold",
            pa.float64(),
            "It reaches above this: `region_threshold` of `verdicts`; less in some flagged images.",
        ),
        ("family", pa.string(), "Regions that are alike, tonight and on other nights; null but in flagged images."),
        ("family_medoid", pa.bool_(), "Whether it is the one of its family and night that is most like the others."),
        ("defect_type", pa.string(), "What it is called, or `unknown`; null where it was compared with no name."),
        ("defect_confidence", pa.float64(), "Of the nearest type among all, 0 to 1; null without `defect_type`."),
        (
            "defect_p",
            pa.float64(),
            "By example, how often a region of a named type is as far from the examples, 0 where it is too far: "
            "above `naming.level` unless `unknown`. By words, how often a good place scores as high: at most "
            "`naming.level` unless `unknown`.",
        ),
        ("defect_runner_up", pa.string(), "The second-nearest type, of an `unknown` one the nearest; else null."),
        ("naming_id", pa.string(), "`example` or `words`, and a hash of the examples or phrases it was named by."),
    ],
)

VECTORS_TABLE = Described(
    "`tables/region_vectors`",
    "One row per region with a `family`: what later nights find the family by, and what `patchead name` keeps of the "
    "regions that it names. Not a view of `patchead query`.",
    [
        ("run_id", pa.string(), "The run that wrote the row."),
        ("lane", pa.string(), "As in `scores`."),
        ("night", pa.date32(), "Night of the image. Partition."),
        ("product", pa.string(), "Product of the image; null where it is empty."),
        ("group_id", pa.string(), "Group of the image."),
        ("image_id", pa.string(), "The image; joins `scores`, with `run_id`."),
        ("region", pa.int32(), "Number in the image, as in `regions`."),
        ("family", pa.string(), "As in `regions`."),
        ("family_medoid", pa.bool_(), "As in `regions`."),
        ("reach", pa.float64(), "Cosine distance from the medoid up to which a later one is of its family."),
        ("vector", pa.list_(pa.float32()), "What sets the region apart, of length 1 (method.md §13)."),
        ("encoder_id", pa.string(), "Of the vectors: those of another encoder cannot be compared."),
        ("vectors_id", pa.string(), "Hash of how they were made: only vectors of one are compared."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

VERDICTS_TABLE = Described(
    "`tables/verdicts`",
    "One row per group of a run: how it was decided which of its images are flagged, and signs of a rule that does not "
    "fit. Where the null fits, `upper_ratio` is near 1 and `skew` near 0; where the flagged stand apart, `gap_z` is "
    "large. Join `scores` by `run_id` and `group_id`, as `regions`.",
    [
        ("run_id", pa.string(), "The run that wrote the row; joins `runs`."),
        ("lane", pa.string(), "As in `scores`."),
        ("night", pa.date32(), "Night of the group. Partition."),
        ("product", pa.string(), "Product of the group; null where it is empty."),
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
        (
            "threshold_z",
            pa.float64(),
            "Images with a higher z are flagged; by `top` this is the highest not flagged. Null where none can be.",
        ),
        ("threshold_score", pa.float64(), "The score there; null where none can be flagged."),
        (
            "region_threshold",
            pa.float64(),
            "Value of a map above which a region reaches; null where none was looked for, or `top` flags all images.",
        ),
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
            "Dot products of patches done, of all N · R · P²: 0.5 of a full search that multiplies each pair of images "
            "once. Those of the sample that chose are counted, in components by their share of D, of a window both "
            "directions; not `searched_to_show` of `scoring_json`, nor what was scored again for repeats.",
        ),
        ("search_refined", pa.float64(), "Share of the patches that were searched fully; 1 of `full`."),
        ("search_alike", pa.float64(), "How far parts lie alike: a window is for 0.88 or more; null if not measured."),
        ("search_offset", pa.float64(), "Median distance from a patch to its nearest match, in cells; or null."),
        ("accepted", pa.string(), "Name of the accepted run that the group was compared with; null without one."),
        ("drift_p", pa.float64(), "Kolmogorov-Smirnov p of unflagged scores, its and accepted; null below five."),
        ("drift_shift", pa.float64(), "Their median less the accepted one, in accepted scales; null as `drift_p` is."),
        ("drift_scale", pa.float64(), "Their scale over the accepted one; null as `drift_p` is."),
        ("encoder_id", pa.string(), "As in `scores`."),
        (
            "status",
            pa.string(),
            "`ok`, `too_few_images` or `group_failed`, as of its images; `incomplete` where they are `ok` and regions, "
            "heatmaps or names are missing.",
        ),
        ("error", pa.string(), "Why the group could not be scored, or what is missing and why; else null."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

RUNS_TABLE = Described(
    "`tables/runs`",
    "One row per run that ended and night that it covered. One that `failed` has nothing in the other tables. What "
    "`scores` names is complete there, also of a run that was killed before it could say more than `publishing`. One "
    "that was killed earlier has no row until it is tried again; `patchead runs` tells it from one that still works. "
    "Counts are of the night; seconds and cost are the night's share of the run's, by its images, which sum up.",
    [
        ("run_id", pa.string(), "Name of the run; unique with `night`."),
        ("lane", pa.string(), "As in `scores`."),
        ("night", pa.date32(), "The night that it covered, or was to cover; null where that is not known."),
        ("started_at", TIMESTAMP, "When the run began."),
        ("finished_at", TIMESTAMP, "When it published, or failed."),
        ("state", pa.string(), "`published`, `failed` or `publishing`."),
        (
            "reason",
            pa.string(),
            "Why it failed, or which groups of a published run could not be scored or are incomplete; else null.",
        ),
        ("images", pa.int64(), "Images of the night: `ok` + `failed` + `skipped`, where it was published."),
        ("ok", pa.int64(), "Images with a score."),
        ("failed", pa.int64(), "Images with status `failed`."),
        ("skipped", pa.int64(), "Images with status `too_few_images` or `group_failed`."),
        ("embedded", pa.int64(), "Images that went through the encoder in this run."),
        ("reused", pa.int64(), "Images whose embedding was there already: `images` - `failed` - `embedded`."),
        ("ignored", pa.int64(), "Files of the whole archive that are no images, in each row of the run."),
        ("groups", pa.int64(), "Groups of the night."),
        ("groups_failed", pa.int64(), "Those that could not be scored as a whole: `error` of `verdicts` says why."),
        ("anomalous", pa.int64(), "Images with `is_anomalous`."),
        ("archive_uri", pa.string(), "Folder or URL that `scores.path` is relative to."),
        ("config_json", pa.string(), "Every setting, as JSON."),
        ("encoder_id", pa.string(), "As in `scores`."),
        ("versions_json", pa.string(), "Versions of patchead, Python and the libraries that compute the scores."),
        ("seconds_json", pa.string(), "Seconds of each stage of the whole run."),
        (
            "scoring_json",
            pa.string(),
            "Schedules, precision, tasks, reads, repetitions, prompts of the whole run; `search_shares`: of each "
            "`verdicts.search`, its groups' `search_share` and `search_refined`, weighted by their pairs of images.",
        ),
        ("seconds", pa.float64(), "From `started_at` to `finished_at`, the night's share."),
        ("gpu_seconds", pa.float64(), "GPU seconds that the pools of actors held, the night's share."),
        ("cpu_seconds", pa.float64(), "CPU seconds that the pools of actors and the decoders held, the night's share."),
        ("cost", pa.float64(), "Of those, by `run.price_per_gpu_hour` and `price_per_cpu_hour`; null without them."),
        ("git_commit", pa.string(), "Commit of the code; null where it is not known."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

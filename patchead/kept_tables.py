"""The tables of what people decide: accepted runs, feedback, named regions. No run writes them; a row makes them."""

from __future__ import annotations

import pyarrow as pa

from patchead.schema import Described

_ACCEPTED = Described(
    "`tables/accepted`",
    "One row per group of an accepted run (`patchead accept`): the scores that later nights are compared with.",
    [
        ("name", pa.string(), "What it was accepted as, for `scoring.accepted`; without `--name` the run's id."),
        ("product", pa.string(), "Product of the group; null where it is empty."),
        ("keys", pa.string(), "The group without its night, e.g. `product=screw`: the groups that it is for."),
        ("group_id", pa.string(), "The accepted group itself, e.g. `night=2026-11-20/product=screw`."),
        ("night", pa.date32(), "Its night."),
        ("run_id", pa.string(), "The accepted run."),
        ("accepted_at", pa.timestamp("us", tz="UTC"), "When it was accepted."),
        ("encoder_id", pa.string(), "As in `scores`: no night of another encoder is compared with it."),
        ("settings_digest", pa.string(), "Hash of `settings_json`."),
        ("settings_json", pa.string(), "Settings that decide a score, and a digest of its prompts: to be the same."),
        ("n", pa.int64(), "How many scores."),
        ("centre", pa.float64(), "Their median."),
        ("scale", pa.float64(), "1.4826 times their median absolute deviation."),
        ("scores", pa.list_(pa.float64()), "The scores, ascending."),
        ("image_ids", pa.list_(pa.string()), "Their images, in the same order."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

_FEEDBACK = Described(
    "`tables/feedback`",
    "What people said of images (`patchead feedback`); of several rows of one photo the newest counts.",
    [
        ("image_id", pa.string(), "The image; joins `scores`."),
        ("verdict", pa.string(), "`good` or `defect`."),
        ("run_id", pa.string(), "The run whose result the person looked at; null where the file does not say."),
        (
            "content_hash",
            pa.string(),
            "The photo, as in `scores`: another night may have another one under the id. Null where `scores` had none, "
            "and in rows of earlier versions: such a row is of every photo under the id.",
        ),
        ("note", pa.string(), "What else the person wrote; else null."),
        ("given_by", pa.string(), "Who: `--by`, or the account that ran the command."),
        ("given_at", pa.timestamp("us", tz="UTC"), "When."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

_PROTOTYPES = Described(
    "`tables/prototypes`",
    "Regions that people named (`patchead name`): what later nights are named by. Of several rows of one example the "
    "newest counts; one whose `defect_type` is null was taken back.",
    [
        ("example_id", pa.string(), "The region, as `image_id#region`, or the file name of a crop."),
        ("defect_type", pa.string(), "What people call it; null where they took that back."),
        (
            "product",
            pa.string(),
            "Product of the image; null where it is empty. Regions of others are not named by it.",
        ),
        ("family", pa.string(), "The family that was named; null where the region was."),
        ("image_id", pa.string(), "The image; null for a crop."),
        ("region", pa.int32(), "Number in the image; null for a crop."),
        ("night", pa.date32(), "Night of the image; null for a crop."),
        (
            "run_id",
            pa.string(),
            "The run that described the region; of a crop the one whose images it was compared with.",
        ),
        ("vector", pa.list_(pa.float32()), "As in `region_vectors`."),
        ("encoder_id", pa.string(), "Of the vector."),
        ("vectors_id", pa.string(), "As in `region_vectors`."),
        ("given_by", pa.string(), "Who: `--by`, or the account that ran the command."),
        ("given_at", pa.timestamp("us", tz="UTC"), "When."),
        ("schema_version", pa.int32(), "Version of these columns."),
    ],
)

KEPT_TABLES: dict[str, pa.Schema] = {
    **{"accepted": _ACCEPTED.schema, "feedback": _FEEDBACK.schema},
    **{"prototypes": _PROTOTYPES.schema},
}
KEPT_DICTIONARY = {"accepted": _ACCEPTED, "feedback": _FEEDBACK, "prototypes": _PROTOTYPES}
"""What `docs/tables.md` tells of them."""

"""Accepted scores of the night's own images: a rank among these is uniform by construction (method.md §7.4)."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from patchead.errors import SettingsError
from patchead.files import Folder, plain_name
from patchead.lake.accepted import Accepted
from patchead.lake.run_tables import RECEIPTS_FILE, read_table
from patchead.schema import RECEIPTS
from patchead.scoring.conformal import scores_needed
from patchead.storage import Storage, join


def contents_of_run(lake_uri: str, storage: Storage, run_id: str) -> dict[str, str]:
    """Read the content hash of each image of a run; none where its receipts are gone.

    Raises:
        LakeError: the receipts cannot be read.
    """
    read = read_table(Folder(join(lake_uri, "runs", plain_name("run_id", run_id)), storage), RECEIPTS_FILE, RECEIPTS)
    return (
        {} if read is None else dict(zip(*(read[0][c].to_pylist() for c in ("image_id", "content_hash")), strict=True))
    )


def others_than(row: Accepted, images: pa.Table, contents: Mapping[str, str]) -> Accepted:
    """Take the accepted scores that are not of images of the night.

    Args:
        row: an accepted group.
        images: of the night's group, with image_id and content_hash.
        contents: of the accepted run, see `contents_of_run`. Where an accepted image's is not known, its id decides.

    Returns:
        ``row`` itself where none is.
    """
    ids, shown = set(images["image_id"].to_pylist()), set(images["content_hash"].to_pylist())
    kept = [
        (score, name)
        for score, name in zip(row.values["scores"], row.image_ids, strict=True)
        if not (contents[name] in shown if name in contents else name in ids)
    ]
    if len(kept) == len(row.scores):
        return row
    values = {"scores": [score for score, _ in kept], "image_ids": [name for _, name in kept], "n": len(kept)}
    return Accepted(row.values | values)


def require_left(group: str, row: Accepted, others: Accepted, level: float) -> None:
    """Refuse a group of which too few accepted scores are left.

    Raises:
        SettingsError: naming the group, both counts and what to do.
    """
    left, needed = len(others.scores), scores_needed(level)
    if left < needed:
        raise SettingsError(
            f"{group} is compared with {row.name!r} (run {row.run_id}), and {len(row.scores) - left} of the "
            f"{len(row.scores)} accepted scores are of its own images: a rank among these is no p-value. Without them "
            f"{left} are left, and level {level:g} needs at least {needed}. Score this night with scoring.verdict=auto "
            "(and scoring.references=night), or name another accepted night with scoring.accepted."
        )

"""What the words mean that say how an image or a run ended; `docs/tables.md` tells them."""

from __future__ import annotations

from patchead.schema import FAILED, GROUP_FAILED, OK, TOO_FEW_IMAGES

STATUSES = {
    OK: "The image has a score.",
    FAILED: "The image could not be read, decoded or embedded; `error` says why. It is nobody's reference.",
    TOO_FEW_IMAGES: "No score is made up: the group has fewer images than `scoring.min_batch`, or the image has no "
    "reference, as every other one has the same content or shows the same part. `error` says which.",
    GROUP_FAILED: "The image is embedded, and its group as a whole could not be scored or judged: `error` says why, "
    "here and in `verdicts`. `patchead score --retry-failed` tries it again.",
}
"""Meaning of each status. Every image of the manifest ends as exactly one row with one of these."""

STATES = {
    "running": "The run has begun; only in `run.json`. Of a run that was killed too: `patchead runs` calls it dead.",
    "publishing": "Its rows are being written, or it was killed as they were: run it again. Only in `runs`.",
    "published": "Its rows are in the tables.",
    "stopped after STAGE": "`--until STAGE` asked for no more; the same run id goes on from there. Only in `run.json`.",
    "failed": "It ended before it published; `reason` in `runs` and `error` of `run.json` say why.",
}
"""Meaning of each state of a run."""

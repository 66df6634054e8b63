"""What shift and rotation cost, and what mask and alignment give back: the same defects on the same objects, moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from patchead.encoders.base import Encoder
from patchead.local import embed_images, score_samples
from patchead.local_samples import Samples
from patchead.samples.align import Alignment
from patchead.samples.finish import SideArrays
from patchead.samples.mask import ForegroundMask
from patchead.scoring.aggregate import Aggregation
from studies.defects import cells_of, crops
from studies.features import DINO, DINO_6_12
from studies.findings import Case, Finding, Say, Sheet, find
from studies.objects import BACKGROUND, CANVAS, OBJECT, Pose, place, random_pose
from studies.pixels import METRICS, USUAL, Shot, good, metrics, planted

STUDY = "aligned"
SIZE = 224
RULE = Aggregation("nearest", 0.05, 0.01)
GOOD = 30
DEFECTIVE = 18
SHIFT = 0.1
TURN = 20.0
_NOISE = 4.0  # grey levels, standard deviation
_GAIN = 0.05
#: What lies on the background.
OBJECTS = {
    "one part": "the same part in every photo (a crop of gravel), with noise of 4 grey levels and 5 % of gain",
    "mono cells": "another solar cell in every photo",
}
ARRANGEMENTS = {
    "in place": (0.0, 0.0, False),
    "shifted and turned": (SHIFT, TURN, False),
    "also upside down, half of them": (SHIFT, TURN, True),
}
_NOTHING = 0.005  # a loss of less is none
_WHOLE = 0.9  # of a loss: as much given back counts as recovered
METHODS = ("base", "+mask", "+alignment", "both")


def run(say: Say) -> list[Finding]:
    """Four metrics of each object, arrangement and method, and the share of photos that could be aligned."""
    encoder = DINO_6_12.build(SIZE, attention=True)
    findings = []
    for name in OBJECTS:
        things = things_of(name)
        for arrangement, (shift, turn, flips) in ARRANGEMENTS.items():
            shots = arranged(things, shift=shift, turn=turn, flips=flips)
            for method, found in by_method(shots, encoder).items():
                case = {"object": name, "arrangement": arrangement, "method": method}
                findings += [Finding(STUDY, dict(case), metric, (value,)) for metric, value in found.items()]
            say(f"aligned: {name}, {arrangement}")
    return findings


def things_of(name: str) -> list[tuple[np.ndarray, Shot]]:
    """Each object as it is and as it is photographed: the good ones, then those with a planted defect."""
    count = GOOD + DEFECTIVE
    if name == "one part":
        part = crops("gravel", 1)[0]
        photos = [photographed(part, seed) for seed in range(count)]
    else:
        photos = cells_of("mono", count)
    shots = [good(photo) for photo in photos[:GOOD]] + planted(photos[GOOD:])
    return list(zip(photos, shots, strict=True))


def photographed(part: np.ndarray, seed: int) -> np.ndarray:
    """The part with a camera's noise and another brightness: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, _NOISE, part.shape[:2])[..., None]
    return np.clip(np.rint(part * rng.uniform(1 - _GAIN, 1 + _GAIN) + noise), 0, 255).astype(np.uint8)


def arranged(
    things: Sequence[tuple[np.ndarray, Shot]], *, shift: float, turn: float, flips: bool, seed: int = 0
) -> list[Shot]:
    """The objects on their background, the first in place: it is the template. The masks move along."""
    rng = np.random.default_rng(seed)
    shots = []
    for index, (clean, shot) in enumerate(things):
        pose = random_pose(rng, shift=shift, turn=turn, flips=flips) if index else Pose()
        image = place(shot.image, pose)
        shots.append(Shot(image, (image != place(clean, pose)).any(axis=-1), shot.kind))
    return shots


def by_method(shots: list[Shot], encoder: Encoder) -> dict[str, dict[str, float]]:
    """Metrics of base, +mask, +alignment and both."""
    aligned = embed_images([shot.image for shot in shots], encoder, align=Alignment())
    found = {}
    for samples, names in ((as_they_are(aligned), METHODS[:2]), (aligned, METHODS[2:])):
        for name, mask in zip(names, (None, ForegroundMask()), strict=True):
            scores = score_samples(samples, aggregation=RULE, mask=mask)
            found[name] = metrics(shots, scores.patch_scores, scores.image_scores)
            if scores.aligned is not None:
                found[name]["aligned"] = float(scores.aligned.mean())
    return found


def as_they_are(aligned: Samples) -> Samples:
    """The samples without alignment: the first view of each, which is the photo as it is."""
    patches = aligned.grid[0] * aligned.grid[1]
    attention = aligned.side_arrays.attention
    side_arrays = SideArrays(attention=None if attention is None else attention[:, :patches])
    return replace(aligned, embeddings=aligned.embeddings[:, :patches], side_arrays=side_arrays)


def sheets(findings: list[Finding]) -> list[Sheet]:
    """A row per arrangement and method for each object, and what alignment gave back in words."""
    rows = []
    for name in OBJECTS:
        for arrangement in ARRANGEMENTS:
            for method in METHODS:
                at = {"object": name, "arrangement": arrangement, "method": method}
                found = [find(findings, metric, **at) for metric in (*METRICS, "aligned")]
                rows.append((name, arrangement, method, *(f"{f.mean:.3f}" if f else "" for f in found)))
    caption = (
        f"{DINO.label}, {SIZE} px, blocks 6+12, nearest {RULE.fraction:.0%}, fp32 encoder, fp32 scores. "
        f"{GOOD} good and {DEFECTIVE} defective "
        f"photos ({len(USUAL)} planted kinds in turn); objects of {OBJECT} px on a plain canvas of {CANVAS} px (grey "
        f"{BACKGROUND}), shifted by up to ±{SHIFT:.0%} of the canvas each way and turned by up to ±{TURN:.0f}°. "
        + "; ".join(f"{name}: {text}" for name, text in OBJECTS.items())
        + ". "
        + " ".join(statements(findings))
    )
    header = ("object", "arrangement", "method", *METRICS, "aligned")
    return [Sheet("Shift and rotation", caption, header, tuple(rows))]


def statements(findings: list[Finding]) -> list[str]:
    """One sentence per object, arrangement and metric: what was lost, and what alignment gave back of it."""
    return [
        text
        for name in OBJECTS
        for arrangement in list(ARRANGEMENTS)[1:]
        for metric in ("pixel AUROC", "image AUROC")
        if (text := _statement(findings, name, arrangement, metric))
    ]


def _statement(findings: list[Finding], name: str, arrangement: str, metric: str) -> str:
    """Empty where the case was not run."""
    moved: Case = {"object": name, "arrangement": arrangement}
    still = find(findings, metric, object=name, arrangement="in place", method="base")
    base = find(findings, metric, **moved, method="base")
    aligned = find(findings, metric, **moved, method="+alignment")
    share = find(findings, "aligned", **moved, method="+alignment")
    if still is None or base is None or aligned is None or share is None:
        return ""
    said = verdict(still.mean, base.mean, aligned.mean, share.mean)
    figures = f"{still.mean:.3f} in place, {base.mean:.3f} moved, {aligned.mean:.3f} with alignment"
    return f"{name}, {arrangement}, {metric}: {figures} ({said})."


def verdict(before: float, moved: float, back: float, share: float) -> str:
    """What alignment gave back of what moving the objects cost, in words; ``share`` of the photos could be aligned."""
    lost, given = before - moved, back - moved
    if lost <= _NOTHING:
        return "nothing was lost" if given >= -_NOTHING else "nothing was lost, and alignment costs"
    if given >= _WHOLE * lost:
        return "recovered"
    what = f"{given / lost:.0%} of the loss recovered" if given > 0 else "not recovered"
    return what if share >= 0.5 else f"{what}: only {share:.0%} of the photos could be aligned"

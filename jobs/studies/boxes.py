"""Planted defects in boxes: does a region, or do two, cover each, and how many boxes are there besides?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from planted import KINDS, plant

from patchead.archive.decode import fit
from patchead.maps.regions import image_regions, region_map, region_threshold
from patchead.scoring.aggregate import Aggregation, image_scores
from patchead.scoring.verdict import Verdict, VerdictSettings, judge
from patchead.settings.resolve import settled_precision
from studies import cells
from studies.defects import cells_of, crops
from studies.features import DINO_AUTO, embed_pixels
from studies.findings import Case, Finding, Say, Sheet
from studies.pixels import Shot, good
from studies.strips import Sorted, strip

STUDY = "boxes"
RULE = Aggregation()
SIZES = (0.5, 1.0, 2.0)
GOOD = {224: 72, 448: 56}
"""Good photos of a night, by size in pixels."""
TOP = 20
"""Images with the highest scores that are explained beside the flagged ones."""
GROUPS = {"solar cells": cells.PRODUCTS, "textures": ("brick", "grass", "gravel")}
PARTS = {224: ("mono", "poly", "brick", "grass", "gravel"), 448: ("mono", "poly")}
WAYS = ("the image's threshold", "regions")
_ENOUGH = 0.3  # intersection over union
_LARGE = 0.5  # of the picture

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, as fractions of the image."""


@dataclass(frozen=True)
class Night:
    """One group: its photos, their patch scores, float32 (N, h, w), and the verdict on them."""

    shots: list[Shot]
    patches: np.ndarray
    verdict: Verdict

    @property
    def explained(self) -> np.ndarray:
        """bool (N,): the flagged images and those with the highest scores."""
        return self.verdict.flagged | (np.argsort(np.argsort(-self.verdict.z, kind="stable")) < TOP)


def run(say: Say) -> list[Finding]:
    """Counts for each product, kind and size of defect, and for the good photos of the same nights."""
    findings = []
    for px, groups in PARTS.items():
        for group in groups:
            for size, night in nights(group, px):
                for way in WAYS:
                    case: Case = {"group": group, "px": px, "size": size, "way": way, **arithmetic(px)}
                    findings += counted(night, boxes_by(way, night), case)
            say(f"boxes: {group}, {px} px")
    return findings


def arithmetic(px: int) -> Case:
    """In what embeddings and scores are computed on this processor."""
    return {"dtype": DINO_AUTO.settled(px).dtype, "precision": settled_precision("auto", "cpu")}


def nights(group: str, px: int) -> Iterator[tuple[float, Night]]:
    """For each size of defects the good photos and one defect of each kind, scored at the defaults."""
    encoder, count = DINO_AUTO.build(px), GOOD[px]
    photos = (crops if group in GROUPS["textures"] else cells_of)(group, count + len(SIZES) * len(KINDS))
    order = np.random.default_rng(0).permutation(len(photos)).tolist()
    shots = [good(photos[i]) for i in order[:count]]
    of_size: dict[float, list[int]] = {}
    for i in order[count:]:
        size, kind = SIZES[(len(shots) - count) // len(KINDS)], list(KINDS)[(len(shots) - count) % len(KINDS)]
        defect = plant(photos[i], kind, len(shots), size)
        of_size.setdefault(size, []).append(len(shots))
        shots.append(Shot(defect.image, defect.mask, kind))
    pixels = np.stack([fit(shot.image, px, "squash") for shot in shots])
    distances = strip(embed_pixels(encoder, pixels), settled_precision("auto", "cpu"))
    for size, places in of_size.items():
        chosen = np.array([*range(count), *places])
        patches = Sorted.of(distances, chosen).patch_scores(RULE.aggregate, RULE.fraction)
        scores = image_scores(patches, RULE.image_top_fraction)
        verdict = judge(scores, VerdictSettings())
        yield size, Night([shots[i] for i in chosen], patches.reshape(-1, *encoder.grid), verdict)


def boxes_by(way: str, night: Night) -> Callable[[int], list[Box]]:
    """What gives the boxes of an image: today's regions, or whatever exceeds the images' threshold in one piece."""
    sizes = [(shot.mask.shape[1], shot.mask.shape[0]) for shot in night.shots]
    if way == WAYS[0]:
        return lambda i: components(region_map(night.patches[i], *sizes[i], "squash"), night.verdict.threshold_score)
    flagged = night.verdict.flagged
    score = night.verdict.threshold_score
    limit = region_threshold(night.patches, sizes, ~flagged, fit="squash", threshold_score=score)
    return lambda i: in_fractions(night.patches[i], limit, sizes[i], bool(flagged[i]))


def components(scores: np.ndarray, threshold: float) -> list[Box]:
    """Boxes of the connected parts of a map above a threshold."""
    rows, columns = scores.shape
    found = cv2.connectedComponentsWithStats((scores > threshold).astype(np.uint8), connectivity=8)[2][1:, :4]
    return [(x / columns, y / rows, (x + w) / columns, (y + h) / rows) for x, y, w, h in found.tolist()]


def in_fractions(patches: np.ndarray, threshold: float, size: tuple[int, int], flagged: bool) -> list[Box]:
    """Boxes of an image's regions."""
    width, height = size
    found = image_regions(patches, threshold, width=width, height=height, fit="squash", flagged=flagged)
    return [(r.x / width, r.y / height, (r.x + r.width) / width, (r.y + r.height) / height) for r in found]


def counted(night: Night, boxes_of: Callable[[int], list[Box]], case: Case) -> list[Finding]:
    """The figures of one night: those of each planted defect, and those of the good photos (kind ``""``)."""
    counts: dict[tuple[str, str], float] = {}
    for i, shot in enumerate(night.shots):
        boxes = boxes_of(i) if night.explained[i] else []
        flagged = bool(night.verdict.flagged[i])
        seen = {
            "images": 1,
            "flagged": flagged,
            "explained": bool(night.explained[i]),
            "boxes": len(boxes),
            "boxes of flagged": len(boxes) * flagged,
            "large": sum((x1 - x0) * (y1 - y0) > _LARGE for x0, y0, x1, y1 in boxes),
            "flagged without a box": flagged and not boxes,
        }
        if shot.kind:
            found = covered(boxes, box_of(shot.mask))
            seen |= {"covered": found, "flagged and covered": found and flagged}
        for metric, value in seen.items():
            counts[shot.kind, metric] = counts.get((shot.kind, metric), 0) + value
    return [Finding(STUDY, {**case, "kind": kind}, metric, (float(n),)) for (kind, metric), n in counts.items()]


def box_of(mask: np.ndarray) -> Box:
    """The smallest box around a mask, bool (H, W)."""
    down, right = np.nonzero(mask)
    rows, columns = mask.shape
    return right.min() / columns, down.min() / rows, (right.max() + 1) / columns, (down.max() + 1) / rows


def covered(boxes: list[Box], truth: Box) -> bool:
    """Whether one or two boxes meet the defect, and the smallest box around them is much like the defect's."""
    hits = [box for box in boxes if _area(_common(box, truth)) > 0]
    if not 1 <= len(hits) <= 2:
        return False
    left, top, right, bottom = zip(*hits, strict=True)
    around = min(left), min(top), max(right), max(bottom)
    common = _area(_common(around, truth))
    return common >= _ENOUGH * (_area(around) + _area(truth) - common)


def _common(one: Box, other: Box) -> Box:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def sheets(findings: list[Finding]) -> list[Sheet]:
    """By surface and by way; and by kind and by size, the regions alone."""
    return [_by_way(findings), _by_kind(findings)]


def total(findings: list[Finding], metric: str, **case: object) -> float:
    """The sum of a metric over every night whose case has these entries; a tuple allows any of its members."""
    chosen = [
        f
        for f in findings
        if f.metric == metric
        and all(f.case[name] in (value if isinstance(value, tuple) else (value,)) for name, value in case.items())
    ]
    return sum(sum(f.values) for f in chosen)


def _by_way(findings: list[Finding]) -> Sheet:
    kinds, rows = tuple(KINDS), []
    for surface, groups in GROUPS.items():
        for px in PARTS:
            for way in WAYS:
                at = {"group": groups, "px": px, "way": way}
                planted = {metric: total(findings, metric, kind=kinds, **at) for metric in _METRICS}
                if not planted["images"]:
                    continue
                good_explained = total(findings, "explained", kind="", **at)
                every = planted["boxes"] + total(findings, "boxes", kind="", **at)
                large = planted["large"] + total(findings, "large", kind="", **at)
                rows.append(
                    (
                        *(surface, str(px), way),
                        f"{planted['covered']:.0f} of {planted['images']:.0f}",
                        _share(planted["flagged and covered"], planted["flagged"]),
                        f"{planted['boxes of flagged'] / max(1.0, planted['flagged']):.2f}",
                        f"{planted['flagged without a box']:.0f}",
                        _share(large, every),
                        f"{total(findings, 'boxes', kind='', **at):.0f} on {good_explained:.0f}",
                    )
                )
    caption = (
        f"{DINO_AUTO.label}, blocks 6+9+12, nearest {RULE.fraction:.0%}; a night is "
        f"{' or '.join(f'{count} good photos ({px} px)' for px, count in GOOD.items())} and one of each "
        f"of {len(KINDS)} planted defects; a night for each product and for defects of "
        f"{', '.join(f'{size:g}' for size in SIZES)} times the stated size. Explained: the flagged "
        f"and the {TOP} highest scores. Covered: one or two boxes meet the defect, and the box around them has an "
        f"intersection over union of at least {_ENOUGH} with the box around the pixels that were changed. "
        "Defects that are not explained count as not covered. The image's threshold: the regions of before, each "
        "connected part of the map above the score that flags images. "
        + "; ".join(sorted({"{px} px: {dtype} encoder, {precision} scores".format_map(f.case) for f in findings}))
        + "."
    )
    header = (
        *("surface", "px", "boxes by", "covered", "covered, of the flagged", "boxes in a flagged defective image"),
        *("flagged without a box", "boxes over half the picture", "boxes on good photos that are explained"),
    )
    return Sheet("Planted defects, in boxes", caption, header, tuple(rows))


def _by_kind(findings: list[Finding]) -> Sheet:
    rows = []
    for kind in KINDS:
        cells_of_row = []
        for px in PARTS:
            for size in SIZES:
                at = {"kind": kind, "px": px, "size": size, "way": WAYS[1]}
                planted, flagged, both = (
                    total(findings, metric, **at) for metric in ("images", "flagged", "flagged and covered")
                )
                cells_of_row.append(f"{both:.0f} / {flagged:.0f} / {planted:.0f}" if planted else "")
        rows.append((f"{kind}: {KINDS[kind].caption}", *cells_of_row))
    header = ("defect (sizes in image sides)", *(f"{px} px, x {size:g}" for px in PARTS for size in SIZES))
    caption = "Defects flagged and covered / flagged / planted, by kind and size: the regions of the table above."
    return Sheet("Planted defects, in boxes, by kind", caption, header, tuple(rows))


_METRICS = (
    *("images", "flagged", "covered", "flagged and covered", "boxes", "boxes of flagged", "large"),
    "flagged without a box",
)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%} ({part:.0f} of {whole:.0f})" if whole else ""

"""Six kinds of planted defects: do their regions make families, and are they named by a few examples of each?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from planted import plant
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score

from patchead.archive.decode import fit
from patchead.maps.regions import Region, image_regions, region_threshold
from patchead.naming.by_example import Examples, name_regions
from patchead.naming.families import find_families
from patchead.naming.named import UNKNOWN, Named
from patchead.naming.region_vectors import anomalous_patches, patches_of_box, region_vectors
from patchead.scoring.aggregate import Aggregation
from patchead.settings.naming import NamingConfig
from studies import cells
from studies.defects import cells_of, crops
from studies.features import DINO_AUTO, embed_pixels
from studies.findings import Case, Finding, Say, Sheet, find
from studies.pixels import USUAL
from studies.strips import Sorted, strip, strip_to

STUDY = "names"
PX = 448
GROUPS = {"textures": ("brick", "grass"), "solar cells": cells.PRODUCTS}
GOOD = 24
"""Good photos of a group, which are the references."""
EACH = 15
"""Photos with each kind of defect, of which up to 10 are examples."""
COUNTS = (1, 3, 5, 10)
DRAWS = 3
SHOWN = 5
"""Examples of each kind in the table of what is taken for what."""
DISTANCES = (0.3, 0.35, 0.4, 0.5)
FEW = 2
"""Regions of the held-out kind in a night in which it is rare."""
NIGHT = 58
"""Regions of the night whose cost is measured."""
REFERENCES = 64
HELD_OUT = "held out"
_RULE, _NAMING = Aggregation(), NamingConfig()
_ENCODER = "study"


@dataclass(frozen=True)
class Regions:
    """The regions of one group that meet a planted defect, one of each photo: vectors, float32 (n, D), and kinds."""

    vectors: np.ndarray
    kinds: np.ndarray
    seconds: float
    """That it takes to describe one region against `REFERENCES` images."""


def run(say: Say) -> list[Finding]:
    """Families and names of each group of photos."""
    found = []
    for surface, groups in GROUPS.items():
        for group in groups:
            regions = regions_of(surface, group)
            case: Case = {"surface": surface, "group": group, "dtype": DINO_AUTO.settled(PX).dtype}
            found += [*families(regions, case), *names(regions, case)]
            say(f"names: {group}, {len(regions.kinds)} of {EACH * len(USUAL)} defects have a region")
    return found


def regions_of(surface: str, group: str) -> Regions:
    """Plant, embed, score and describe."""
    encoder = DINO_AUTO.build(PX)
    photos = (crops if surface == "textures" else cells_of)(group, GOOD + EACH * len(USUAL))
    order = np.random.default_rng(0).permutation(len(photos)).tolist()
    kinds = [USUAL[number % len(USUAL)] for number in range(EACH * len(USUAL))]
    defects = [plant(photos[i], kind, number) for number, (i, kind) in enumerate(zip(order[GOOD:], kinds, strict=True))]
    good = embed_pixels(encoder, np.stack([fit(photos[i], PX, "squash") for i in order[:GOOD]]))
    bad = embed_pixels(encoder, np.stack([fit(defect.image, PX, "squash") for defect in defects]))
    maps = _patch_scores(good, bad).reshape(-1, *encoder.grid)
    sizes = [(photo.shape[1], photo.shape[0]) for photo in photos]
    usual = Sorted.of(strip(good), np.arange(GOOD)).patch_scores(_RULE.aggregate, _RULE.fraction)
    limit = region_threshold(
        usual.reshape(-1, *encoder.grid), sizes[:GOOD], np.ones(GOOD, bool), fit="squash", threshold_score=np.inf
    )
    patches: list[np.ndarray] = []
    owner: list[int] = []
    chosen: list[str] = []
    for number, defect in enumerate(defects):
        height, width = defect.mask.shape
        boxes = image_regions(maps[number], limit, width=width, height=height, fit="squash", flagged=True)
        if (box := _meeting(boxes, defect.mask)) is None:
            continue
        places = patches_of_box((box.x, box.y, box.width, box.height), encoder.grid, width, height, "squash")
        own = anomalous_patches(maps[number], places)
        patches.append(bad[number, own])
        owner += [len(chosen)] * len(own)
        chosen.append(kinds[number])
    every, of = np.concatenate(patches), np.array(owner)
    return Regions(region_vectors(every, of, list(good)), np.array(chosen), _cost(every, of, good))


def families(regions: Regions, case: Case) -> Iterator[Finding]:
    """How well clusters are kinds, by the distance up to which regions are of one family."""
    for distance in DISTANCES:
        found = find_families(regions.vectors, distance)
        labels = np.empty(len(regions.kinds), np.int64)
        for number, family in enumerate(found):
            labels[family.members] = number
        at = case | {"distance": distance}
        yield Finding(STUDY, at, "ARI", (float(adjusted_rand_score(regions.kinds, labels)),))
        yield Finding(STUDY, at, "NMI", (float(normalized_mutual_info_score(regions.kinds, labels)),))
        yield Finding(STUDY, at, "families", (float(sum(len(of.members) > 1 for of in found)),))
        most = [Counter(regions.kinds[of.members].tolist()).most_common(1)[0][1] for of in found]
        yield Finding(STUDY, at, "purity", (sum(most) / len(labels),))
    planted = len(regions.kinds) / (EACH * len(USUAL))
    yield Finding(STUDY, dict(case), "with a region", (planted,))
    yield Finding(STUDY, dict(case), "seconds of a region", (regions.seconds,))


def names(regions: Regions, case: Case) -> Iterator[Finding]:
    """Names by so many examples of each kind; each kind is held out once in each draw."""
    for count in COUNTS:
        told: list[tuple[str, Named]] = []
        f1 = []
        for held in USUAL:
            for draw in range(DRAWS):
                found = _named(regions, held, count, draw)
                told += found
                known = [(truth, named.defect_type) for truth, named in found if truth != HELD_OUT]
                labels = sorted({truth for truth, _ in known})
                f1.append(f1_score(*zip(*known, strict=True), labels=labels, average="macro", zero_division=0))
        rare = [of for held in USUAL for draw in range(DRAWS) for of in _named(regions, held, count, draw, most=FEW)]
        at = case | {"examples": count}
        of_known = [(truth, named) for truth, named in told if truth != HELD_OUT]
        of_held = [named for truth, named in told if truth == HELD_OUT]
        yield Finding(STUDY, at, "macro-F1", tuple(map(float, f1)))
        yield Finding(STUDY, at, "held out unknown", (_unknown(of_held),))
        yield Finding(STUDY, at, "rare unknown", (_unknown(of for truth, of in rare if truth == HELD_OUT),))
        yield Finding(STUDY, at, "known unknown", (_unknown(of for _, of in of_known),))
        yield Finding(STUDY, at, "ECE", (expected_calibration_error(of_known),))
        for (truth, given), number in Counter((truth, of.defect_type) for truth, of in told).items():
            yield Finding(STUDY, at | {"truth": truth, "named": given}, "taken for", (float(number),))


def expected_calibration_error(told: list[tuple[str, Named]], bins: int = 10) -> float:
    """Of the regions that are offered a type: |share that is right - mean confidence|, bin by bin, weighted."""
    offered = [(of.confidence, of.defect_type == truth) for truth, of in told if of.is_known]
    if not offered:
        return float("nan")
    sure, right = (np.array(values, float) for values in zip(*offered, strict=True))
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [(place == b).sum() * abs(right[place == b].mean() - sure[place == b].mean()) for b in np.unique(place)]
    return float(sum(gaps) / len(sure))


def _unknown(told: Iterable[Named]) -> float:
    return float(np.mean([not of.is_known for of in told]))


def _named(regions: Regions, held: str, count: int, draw: int, most: int | None = None) -> list[tuple[str, Named]]:
    """What the regions that are no examples are called, with their kinds; those of ``held`` are `HELD_OUT`.

    ``most`` is how many of these there are in the night; None: all.
    """
    rng = np.random.default_rng([draw, count])
    examples = [rng.permutation(np.flatnonzero(regions.kinds == kind))[:count] for kind in USUAL if kind != held]
    chosen = np.concatenate(examples)
    given = Examples(regions.vectors[chosen], regions.kinds[chosen].tolist(), _ENCODER)
    left_out = rng.permutation(np.flatnonzero(regions.kinds == held))[slice(most, None) if most else slice(0)]
    asked = np.setdiff1d(np.arange(len(regions.kinds)), np.concatenate([chosen, left_out]))
    found = name_regions(
        regions.vectors[asked], given, encoder_id=_ENCODER, level=_NAMING.level, distance=_NAMING.distance
    )
    truth = [HELD_OUT if kind == held else kind for kind in regions.kinds[asked].tolist()]
    return list(zip(truth, found, strict=True))


def _patch_scores(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """float32 (n, P): patch scores of the defective photos, with the good ones as references."""
    ordered = Sorted(np.sort(strip_to(bad, good).transpose(0, 2, 1), axis=-1))
    return ordered.patch_scores(_RULE.aggregate, _RULE.fraction)


def _meeting(boxes: list[Region], mask: np.ndarray) -> Region | None:
    """The box that holds most of the defect's pixels; None where none holds any."""
    held = [int(mask[box.y : box.y + box.height, box.x : box.x + box.width].sum()) for box in boxes]
    return boxes[int(np.argmax(held))] if any(held) else None


def _cost(patches: np.ndarray, owner: np.ndarray, good: np.ndarray) -> float:
    """Seconds for one region of `NIGHT`, against `REFERENCES` images, of which some are there several times."""
    few = owner < NIGHT
    references = [good[number % len(good)] for number in range(REFERENCES)]
    began = time.perf_counter()
    region_vectors(patches[few], owner[few], references)
    return (time.perf_counter() - began) / len(set(owner[few].tolist()))


def sheets(findings: list[Finding]) -> list[Sheet]:
    """Families, names, and what is taken for what."""
    return [_families(findings), _names(findings), _taken_for(findings)]


def _families(findings: list[Finding]) -> Sheet:
    rows = []
    for surface, groups in GROUPS.items():
        for group in groups:
            for distance in DISTANCES:
                found = [
                    find(findings, metric, group=group, distance=distance)
                    for metric in ("ARI", "NMI", "purity", "families")
                ]
                told = [f"{of.mean:.2f}" if of else "" for of in found[:3]]
                rows.append((surface, group, f"{distance:g}", *told, f"{found[3].mean:.0f}" if found[3] else ""))
    described = [find(findings, "with a region", group=group) for groups in GROUPS.values() for group in groups]
    cost = [of for f in findings if f.metric == "seconds of a region" for of in f.values]
    caption = (
        f"{DINO_AUTO.label}, {PX} px, blocks 6+9+12; {GOOD} good photos and {EACH} of each of {len(USUAL)} planted "
        f"kinds ({', '.join(USUAL)}) in each group. The region that holds most of the defect counts: "
        f"{np.mean([of.mean for of in described if of]):.0%} of the defects have one. Purity: the share that is of its "
        "family's most frequent kind. Describing a region against "
        f"{REFERENCES} references takes {np.mean(cost):.3f} s, {NIGHT} of a night {NIGHT * np.mean(cost):.1f} s; "
        "nothing is computed for unflagged images."
    )
    header = ("surface", "group", "naming.distance", "ARI", "NMI", "purity", "families of several")
    return Sheet("Families of planted defects", caption, header, tuple(rows))


def _names(findings: list[Finding]) -> Sheet:
    rows = []
    for surface, groups in GROUPS.items():
        for group in groups:
            for count in COUNTS:
                found = [find(findings, metric, group=group, examples=count) for metric in _METRICS]
                rows.append((surface, group, str(count), *(f"{of.mean:.2f}" if of else "" for of in found)))
    for count in COUNTS:
        means = [
            np.mean(
                [of.mean for f in GROUPS.values() for g in f if (of := find(findings, metric, group=g, examples=count))]
            )
            for metric in _METRICS
        ]
        rows.append(("all", "mean", str(count), *(f"{mean:.2f}" for mean in means)))
    reached = [(float(row[4]), float(row[5])) for row in rows if row[0] == "all"]
    held, known = (", ".join(f"{of[part]:.0%}" for of in reached) for part in (0, 1))
    caption = (
        f"The same regions; each kind is held out once, {DRAWS} draws of the examples, level {_NAMING.level:g}. "
        "Macro-F1 of the five known kinds, `unknown` counted as wrong; ECE in 10 bins, of known regions that are "
        "offered a type. Aimed at: at least 80 % of the held-out kind unknown, at most 20 % of the known. With "
        f"{', '.join(map(str, COUNTS))} examples: {held} and {known}. Rare: the held-out kind in nights that have "
        f"{FEW} regions of it, and of the others as many as before."
    )
    header = (
        "surface",
        "group",
        "examples of a kind",
        "macro-F1",
        "held out: unknown",
        "known: unknown",
        "ECE",
        "rare: unknown",
    )
    return Sheet("Names by example of planted defects", caption, header, tuple(rows))


def _taken_for(findings: list[Finding]) -> Sheet:
    told = [*USUAL, UNKNOWN]
    rows = []
    for truth in (*USUAL, HELD_OUT):
        counts = [
            sum(f.mean for f in findings if f.metric == "taken for" and _is(f, truth, given, SHOWN)) for given in told
        ]
        total = max(1.0, sum(counts))
        rows.append((truth, *(f"{count / total:.0%}" if count else "" for count in counts)))
    caption = f"Share of each kind's regions by what they are called, {SHOWN} examples of a kind, all groups and draws."
    return Sheet("What planted defects are taken for", caption, ("kind", *told), tuple(rows))


def _is(finding: Finding, truth: str, given: str, count: int) -> bool:
    case = finding.case
    return (case["truth"], case["named"], case["examples"]) == (truth, given, count)


_METRICS = ("macro-F1", "held out unknown", "known unknown", "ECE", "rare unknown")

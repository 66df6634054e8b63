"""The verdict on batch nights: how many of the defects are flagged, and how many good photos of a clean night."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score

from patchead.scoring.aggregate import Aggregation, image_scores
from patchead.scoring.position_level import LEVEL as QUANTILE
from patchead.scoring.position_level import above_position_level
from patchead.scoring.verdict import VerdictSettings, judge
from patchead.settings.resolve import settled_precision
from studies.features import DINO
from studies.findings import Case, Finding, Say, Sheet, arithmetics, find, mean_and_worst
from studies.lots import (
    DEFAULT_SIZE,
    DRAWS,
    GOOD,
    LOTS,
    RATES,
    SIZE,
    TEXTURES,
    Lot,
    arithmetic,
    defective_at,
    draws_of,
    large_lot,
    lot_of,
)
from studies.strips import Sorted

STUDY = "nights"
#: What is averaged: the lots of a product, or those of all textures.
SURFACES = {"mono": ("mono",), "poly": ("poly",), "textures": TEXTURES}
SIZES: dict[int, Callable[[str, int, str], Lot]] = {SIZE: lot_of, DEFAULT_SIZE: large_lot}
FRACTIONS = (0.3, 0.2, 0.1, 0.05)
TOP = 0.01
AGGREGATIONS = tuple(Aggregation("nearest", fraction, TOP) for fraction in FRACTIONS)
UPPER_FIT, LINEAR_MAD, LOG_MAD = "upper fit", "linear MAD", "log MAD"
BEST = "best possible"
#: The ranking, and its verdict, of image scores as they are and of those above the position level (method.md §9.1).
PLAIN, LEVEL = "plain", "position level"
NAMED = ("nights of", "px", "nearest")
#: Mean F1 over the rates above 0 that the verdict should reach, and what it may flag of clean nights: mean, worst.
TARGETS = {"mono": 0.85, "poly": 0.55, "textures": 0.82}
CLEAN_MEAN, CLEAN_WORST = 0.01, 0.05


def run(say: Say) -> list[Finding]:
    """F1 of every rule on every night with defects, a value per night; the share flagged of every clean night."""
    precision = settled_precision("auto", "cpu")
    findings = []
    for (px, made), (surface, names) in itertools.product(SIZES.items(), SURFACES.items()):
        values: dict[tuple[float, float, str, str], list[float]] = {}
        for name in names:
            for number in range(LOTS[name]):
                for key, value in of_lot(made(name, number, precision)):
                    values.setdefault(key, []).append(value)
                say(f"nights: {name}, {px} px, lot {number}")
        case: Case = {"surface": surface, "px": px, "arithmetic": arithmetic(precision)}
        for (fraction, rate, rule, metric), found in values.items():
            one: Case = {**case, "fraction": fraction, "rate": rate, "rule": rule}
            findings.append(Finding(STUDY, one, metric, tuple(found)))
    return findings


def of_lot(lot: Lot) -> Iterator[tuple[tuple[float, float, str, str], float]]:
    """(fraction, rate, rule, metric) and its value, for every night of a lot."""
    for rate in RATES:
        for draw in range(draws_of(rate)):
            chosen, truth = lot.night(rate, draw)
            ordered = Sorted.of(lot.distances, chosen)
            for aggregation in AGGREGATIONS:
                patches = ordered.patch_scores(aggregation.aggregate, aggregation.fraction)
                scores, above = (image_scores(of, TOP) for of in (patches, above_position_level(patches)))
                rules = flagged_by(scores) | {LEVEL: _upper_fit(above)}
                for rule, flagged in rules.items():
                    value = f1(truth, flagged) if rate else float(flagged.mean())
                    yield (aggregation.fraction, rate, rule, "F1" if rate else "flagged"), value
                if rate:
                    yield (aggregation.fraction, rate, BEST, "F1"), best_f1(truth, scores)
                    for name, of in ((PLAIN, scores), (LEVEL, above)):
                        yield (aggregation.fraction, rate, name, "AUROC"), float(roc_auc_score(truth, of))


def _upper_fit(scores: np.ndarray) -> np.ndarray:
    return judge(scores, VerdictSettings(verdict="upper_fit")).flagged


def flagged_by(scores: np.ndarray) -> dict[str, np.ndarray]:
    """What each rule flags of a night: bool (n,) each."""
    return {
        UPPER_FIT: _upper_fit(scores),
        LINEAR_MAD: judge(scores, VerdictSettings(verdict="mad")).flagged,
        LOG_MAD: judge(np.log(np.maximum(scores, 1e-6)), VerdictSettings(verdict="mad")).flagged,
    }


def f1(truth: np.ndarray, flagged: np.ndarray) -> float:
    """2 · hits / (defective + flagged), of at least one defective photo.

    Examples:
        >>> f1(np.array([True, True, False]), np.array([True, False, False])).__round__(3)
        0.667
    """
    return float(2 * (truth & flagged).sum() / (truth.sum() + flagged.sum()))


def best_f1(truth: np.ndarray, scores: np.ndarray) -> float:
    """The largest F1 that a threshold on the scores can have.

    Examples:
        >>> best_f1(np.array([True, False, True]), np.array([0.9, 0.5, 0.4])).__round__(3)
        0.8
    """
    precision, recall, _ = precision_recall_curve(truth, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def sheets(findings: list[Finding]) -> list[Sheet]:
    """The mean over the rates beside its target, F1 rate by rate, and what the position level changes."""
    return [_means(findings), _by_rate(findings), _levels(findings)]


def mean_f1(findings: list[Finding], **case: str | int | float) -> tuple[float, float] | None:
    """Mean F1 over the rates above 0, and its standard error over the lots; None where it was not measured."""
    found = [find(findings, "F1", **case, rate=rate) for rate in RATES if rate]
    known = [finding for finding in found if finding]
    if len(known) < len(found):
        return None
    lots_of = sum(LOTS[name] for name in SURFACES[str(case["surface"])])
    # Values come lot by lot, each with the draws of the rate.
    by_lot = np.array([np.reshape(finding.values, (lots_of, -1)).mean(axis=1) for finding in known]).mean(axis=0)
    return float(by_lot.mean()), float(by_lot.std(ddof=1) / np.sqrt(lots_of))


def _means(findings: list[Finding]) -> Sheet:
    rows = []
    for case in _cases():
        means = [mean_f1(findings, **case, rule=rule) for rule in (UPPER_FIT, BEST, LINEAR_MAD, LOG_MAD)]
        clean = [find(findings, "flagged", **case, rule=rule) for rule in (UPPER_FIT, LINEAR_MAD, LOG_MAD)]
        if all(means) and all(clean):
            rows.append((*_named(case), *map(_with_error, means), *map(mean_and_worst, clean)))
    rules = (UPPER_FIT, LINEAR_MAD, LOG_MAD)
    header = (*NAMED, f"F1, {UPPER_FIT}", f"F1, {BEST}", *(f"F1, {r}" for r in rules[1:]))
    targets = "; ".join(f"{name} {target:.2f}" for name, target in TARGETS.items())
    caption = (
        f"{_what(findings)} Mean over the rates {_percents(RATES[1:])} ± its standard error over the lots. Clean "
        f"nights: the share of good photos that is flagged, mean / worst night. Targets: F1 of at least {targets}; "
        f"clean nights at most {CLEAN_MEAN:.0%} / {CLEAN_WORST:.0%}. {UPPER_FIT}: method.md §7.1 at z > 3, the rule of "
        f"groups of 60 images and more; {LINEAR_MAD}: §7.2 at z > 3.5; {LOG_MAD}: the same of the logarithm of the "
        "scores, the rule before."
    )
    header += tuple(f"clean nights, {rule}" for rule in rules)
    return Sheet("The verdict on batch nights", caption, header, tuple(rows))


def _by_rate(findings: list[Finding]) -> Sheet:
    rows = []
    for case, rule in itertools.product(_cases(), (UPPER_FIT, BEST, LINEAR_MAD, LOG_MAD)):
        found = [find(findings, "F1", **case, rule=rule, rate=rate) for rate in RATES if rate]
        if any(found):
            rows.append((*_named(case), rule, *(f"{f.mean:.2f}" if f else "" for f in found)))
    header = (*NAMED, "rule", *(_percents([rate]) for rate in RATES if rate))
    caption = (
        f"F1, mean over the lots and {DRAWS} draws of the defective photos of each (at {max(RATES):.0%} all of them, "
        f"once)."
    )
    return Sheet("The verdict by the rate of defects", caption, header, tuple(rows))


def _levels(findings: list[Finding]) -> Sheet:
    rows = []
    for case in _cases():
        for name, rule in ((PLAIN, UPPER_FIT), (LEVEL, LEVEL)):
            ranked = [find(findings, "AUROC", **case, rule=name, rate=rate) for rate in RATES if rate]
            mean = mean_f1(findings, **case, rule=rule)
            if mean and all(ranked):
                auroc = np.mean([finding.mean for finding in ranked if finding])
                clean = mean_and_worst(find(findings, "flagged", **case, rule=rule))
                rows.append((*_named(case), name, f"{auroc:.4f}", _with_error(mean), clean))
    caption = (
        f"Image scores as they are, and of what a patch scores above the {QUANTILE:.0%} quantile of its place over the "
        "night (method.md §9.1), which is for parts that lie alike: cells do, textures do not. Image AUROC and F1 of "
        f"{UPPER_FIT}, means over the rates."
    )
    header = (*NAMED, "score", "AUROC", f"F1, {UPPER_FIT}", "clean nights")
    return Sheet("The verdict by the position level", caption, header, tuple(rows))


def _cases() -> Iterator[Case]:
    """What has a row of its own."""
    for surface, px, fraction in itertools.product(SURFACES, SIZES, FRACTIONS):
        yield {"surface": surface, "px": px, "fraction": fraction}


def _named(case: Case) -> tuple[str, str, str]:
    return str(case["surface"]), str(case["px"]), f"{case['fraction']:.0%}"


def _what(findings: list[Finding]) -> str:
    cells = [
        f"{name} {LOTS[name]} lots of {GOOD[name]} good and up to {defective_at(max(RATES), GOOD[name])} defective"
        for name in ("mono", "poly")
    ]
    texture = TEXTURES[0]
    return (
        f"{DINO.label}, blocks 6+9+12, top 1 %, {arithmetics(findings)}; {DEFAULT_SIZE} px is the default. "
        "Cells of elpv-dataset, good ones in contiguous blocks, defective ones every fifth of the file from the lot's "
        f"number on, none in two lots: "
        f"{', '.join(cells)}. Textures: scikit-image's {', '.join(TEXTURES)}, {LOTS[texture]} lots each of "
        f"{GOOD[texture]} good crops and up to {defective_at(max(RATES), GOOD[texture])} with a planted defect, the "
        "kinds taking turns."
    )


def _percents(rates: Iterable[float]) -> str:
    return ", ".join(f"{rate:.1%}".replace(".0%", "%") for rate in rates)


def _with_error(mean: tuple[float, float] | None) -> str:
    return f"{mean[0]:.3f} ± {mean[1]:.3f}" if mean else ""

"""The verdict on one image alone, by its prompts: how many good and how many defective photos are flagged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from sklearn.metrics import roc_auc_score

from patchead.scoring.prediction import PredictionInterval
from patchead.scoring.verdict import VerdictSettings, judge
from patchead.settings.resolve import settled_precision
from studies.cells import PRODUCTS
from studies.features import DINO
from studies.findings import Case, Finding, Say, Sheet, arithmetics, find
from studies.lots import DEFAULT_SIZE, SIZE, arithmetic
from studies.prompted import ALL, APART, ASKED, DRAWS, NAMES, ONE, Draw, draw_of

STUDY = "alone"
SHOTS = (3, 4, 8, 16)
POOLED = f"{ALL}; deviation pooled over products"
#: What the verdict should do at its default level: of good cells at most, of defective mono cells at least.
GOOD_TARGET = 0.02
TARGETS = {4: 0.50, 8: 0.85, 16: 0.95}
METRICS = ("good flagged", "defective flagged", "AUROC")
#: (product, k, null, metric) and its value.
Measured = Iterator[tuple[tuple[str, int, str, str], float]]


def run(say: Say) -> list[Finding]:
    """The shares flagged at the default level, a value per draw."""
    values: dict[tuple[int, str, int, str, str], list[float]] = {}
    precision = settled_precision("auto", "cpu")

    def keep(px: int, measured: Measured) -> None:
        for key, value in measured:
            values.setdefault((px, *key), []).append(value)

    for number in range(DRAWS):
        keep(SIZE, of_draw({name: draw_of(name, number, precision) for name in NAMES}))
        say(f"alone: draw {number}")
    for product, source, px in (*((p, s, SIZE) for p in PRODUCTS for s in (ONE, APART)), ("mono", ONE, DEFAULT_SIZE)):
        for number in range(DRAWS):
            keep(px, of_product(product, draw_of(product, number, precision, source, px), source))
        say(f"alone: {product}, {source}, {px} px")
    used = arithmetic(precision)
    return [
        Finding(STUDY, {"product": product, "px": px, "k": k, "null": null, "arithmetic": used}, metric, tuple(found))
        for (px, product, k, null, metric), found in values.items()
    ]


def of_draw(drawn: Mapping[str, Draw]) -> Measured:
    """(product, k, null, metric) and its value, with the prompts' own deviation and with one pooled over products."""
    for product in PRODUCTS:
        yield from of_product(product, drawn[product], ALL)
        for k in SHOTS:
            nulls = {name: draw.null_scores(k) for name, draw in drawn.items()}
            p = pooled_interval(product, nulls).p_values(drawn[product].scores(k))
            yield from _shares((product, k, POOLED), p < VerdictSettings().alpha, drawn[product].truth)


def of_product(product: str, draw: Draw, null: str) -> Measured:
    """The shares flagged by the prompts' own deviation, and AUROC; no image has a say in the verdict on another."""
    for k in SHOTS:
        scores = draw.scores(k)
        flagged = judge(scores, VerdictSettings(), null_scores=draw.null_scores(k)).flagged
        yield from _shares((product, k, null), flagged, draw.truth)
        yield (product, k, null, METRICS[2]), float(roc_auc_score(draw.truth, scores))


def _shares(key: tuple[str, int, str], flagged: np.ndarray, truth: np.ndarray) -> Measured:
    for metric, of in zip(METRICS[:2], (~truth, truth), strict=True):
        yield (*key, metric), float(flagged[of].mean())


def pooled_interval(product: str, nulls: Mapping[str, np.ndarray]) -> PredictionInterval:
    """The product's prompts say the centre; the deviation, relative to the centre, is that of all products' prompts."""
    every = {name: PredictionInterval.of(scores) for name, scores in nulls.items()}
    own, degrees = every[product], sum(interval.degrees for interval in every.values())
    relative = sum(i.degrees * (i.scale / i.centre) ** 2 for i in every.values()) / degrees
    return replace(own, scale=own.centre * float(np.sqrt(relative)), degrees=degrees)


def sheets(findings: list[Finding]) -> list[Sheet]:
    """One row per product, size, null and k."""
    rows = []
    for product, px, null, k in itertools.product(PRODUCTS, (DEFAULT_SIZE, SIZE), (ONE, ALL, POOLED, APART), SHOTS):
        case: Case = {"product": product, "px": px, "null": null, "k": k}
        good, bad, auroc = (find(findings, metric, **case) for metric in METRICS)
        if good and bad:
            target = f"at least {TARGETS[k]:.0%}" if (product, null) == ("mono", ONE) and k in TARGETS else ""
            ranking = f"{auroc.mean:.3f}" if auroc else ""
            rows.append((product, str(px), null, str(k), _share(good), _share(bad), target, ranking))
    caption = (
        f"{DINO.label}, blocks 6+9+12, top 1 %, {arithmetics(findings)}; {DEFAULT_SIZE} px and "
        f"level 0.01 are the default. {DRAWS} draws: the first k "
        f"of 16 good cells as prompts, {ASKED} other good cells and {ASKED} defective ones, every one judged by the "
        f"prompts alone (method.md §7.3): mean ± standard error over the draws. Target: of good cells at most "
        f"{GOOD_TARGET:.0%}. One block: prompts and good cells of the same contiguous block; all blocks: of the "
        f"five of the file; {APART}: the good cells are neighbours in one block, prompts are of the rest. Pooled: the "
        f"standard deviation, in units of the mean, is that of the prompts of {', '.join(NAMES)} together."
    )
    header = ("cells", "px", "drawn", "k", "good flagged", "defective flagged", "target", "AUROC")
    return [Sheet("Few-shot, one image alone: what is flagged", caption, header, tuple(rows))]


def _share(finding: Finding) -> str:
    error = float(np.std(finding.values, ddof=1) / np.sqrt(len(finding.values))) if len(finding.values) > 1 else 0.0
    return f"{finding.mean:.1%} ± {error:.1%}"

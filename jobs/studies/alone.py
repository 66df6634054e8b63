"""The verdict on one image alone, by its prompts: how many good and how many defective photos are flagged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from sklearn.metrics import roc_auc_score

from patchead.scoring.prediction import PredictionInterval
from patchead.scoring.verdict import VerdictSettings, judge
from patchead.settings.resolve import settled_precision
from studies.cells import PRODUCTS
from studies.features import DINO
from studies.findings import Case, Finding, Say, Sheet, find
from studies.lots import SIZE, arithmetic
from studies.prompted import ASKED, DRAWS, NAMES, Draw, draw_of

STUDY = "alone"
SHOTS = (3, 4, 8, 16)
OWN, POOLED = "prompts of the product", "spread pooled over products"
#: What the verdict should do at its default level: of good cells at most, of defective mono cells at least.
GOOD_TARGET = 0.02
TARGETS = {4: 0.50, 8: 0.85, 16: 0.95}
METRICS = ("good flagged", "defective flagged", "AUROC")


def run(say: Say) -> list[Finding]:
    """The shares flagged at the default level, a value per draw."""
    values: dict[tuple[str, int, str, str], list[float]] = {}
    precision = settled_precision("auto", "cpu")
    for number in range(DRAWS):
        drawn = {name: draw_of(name, number, precision) for name in NAMES}
        for key, value in of_draw(drawn):
            values.setdefault(key, []).append(value)
        say(f"alone: draw {number}")
    return [
        Finding(
            STUDY, {"product": product, "k": k, "null": null, "arithmetic": arithmetic(precision)}, metric, tuple(found)
        )
        for (product, k, null, metric), found in values.items()
    ]


def of_draw(drawn: Mapping[str, Draw]) -> Iterator[tuple[tuple[str, int, str, str], float]]:
    """(product, k, null, metric) and its value."""
    for k in SHOTS:
        nulls = {name: draw.null_scores(k) for name, draw in drawn.items()}
        for product in PRODUCTS:
            scores, truth = drawn[product].scores(k), drawn[product].truth
            # No image of the list has a say in the verdict on another one: together or alone is the same.
            own = judge(scores, VerdictSettings(), null_scores=nulls[product]).flagged
            pooled = pooled_interval(product, nulls).p_values(scores) < VerdictSettings().alpha
            for null, flagged in ((OWN, own), (POOLED, pooled)):
                yield (product, k, null, METRICS[0]), float(flagged[~truth].mean())
                yield (product, k, null, METRICS[1]), float(flagged[truth].mean())
            yield (product, k, OWN, METRICS[2]), float(roc_auc_score(truth, scores))


def pooled_interval(product: str, nulls: Mapping[str, np.ndarray]) -> PredictionInterval:
    """The product's prompts say the centre; the spread, relative to the centre, is that of all products' prompts."""
    every = {name: PredictionInterval.of(scores) for name, scores in nulls.items()}
    own, degrees = every[product], sum(interval.degrees for interval in every.values())
    relative = sum(i.degrees * (i.scale / i.centre) ** 2 for i in every.values()) / degrees
    return replace(own, scale=own.centre * float(np.sqrt(relative)), degrees=degrees)


def sheets(findings: list[Finding]) -> list[Sheet]:
    """One row per product, null and k."""
    rows = []
    for product in PRODUCTS:
        for null in (OWN, POOLED):
            for k in SHOTS:
                case: Case = {"product": product, "null": null, "k": k}
                good, bad, _ = (find(findings, metric, **case) for metric in METRICS)
                auroc = find(findings, "AUROC", product=product, k=k)
                if good and bad and auroc:
                    target = f"at least {TARGETS[k]:.0%}" if product == "mono" and k in TARGETS else ""
                    rows.append((product, null, str(k), _share(good), _share(bad), target, f"{auroc.mean:.3f}"))
    used = ", ".join(dict.fromkeys(str(finding.case["arithmetic"]) for finding in findings))
    caption = (
        f"{DINO.label}, {SIZE} px, blocks 6+9+12, top 1 %, {used}; level 0.01, the default. {DRAWS} "
        f"draws: the first k of 16 good cells as prompts, {ASKED} neighbouring good cells of another block and {ASKED} "
        "defective ones, every one judged by the prompts alone (method.md §7.3): mean ± standard error over the draws. "
        f"Target: of good cells at most {GOOD_TARGET:.0%}. Pooled: the standard deviation, in units of the mean, is "
        f"that of the prompts of {', '.join(NAMES)} together."
    )
    header = ("cells", "null", "k", "good flagged", "defective flagged", "target", "AUROC")
    return [Sheet("Few-shot, one image alone: what is flagged", caption, header, tuple(rows))]


def _share(finding: Finding) -> str:
    error = float(np.std(finding.values, ddof=1) / np.sqrt(len(finding.values))) if len(finding.values) > 1 else 0.0
    return f"{finding.mean:.1%} ± {error:.1%}"

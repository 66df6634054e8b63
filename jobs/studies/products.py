"""Few-shot images of several products in one list: does z, each by the prompts of its product, rank them as one?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import roc_auc_score

from patchead.scoring.verdict import VerdictSettings, judge
from patchead.settings.resolve import settled_precision
from studies.features import DINO
from studies.findings import Finding, Say, Sheet, arithmetics, find
from studies.lots import SIZE, arithmetic
from studies.prompted import ASKED, DRAWS, NAMES, Draw, draw_of

STUDY = "products"
SHOTS = (4, 8, 16)
#: Of the mean over the products, each ranked alone by its score.
TARGET = 0.95
EACH, SCORE, Z = "score, product by product, mean", "score, one list", "z, one list"
METRICS = (EACH, SCORE, Z)


def run(say: Say) -> list[Finding]:
    """AUROC of each way, a value per draw."""
    values: dict[tuple[int, str], list[float]] = {}
    precision = settled_precision("auto", "cpu")
    for number in range(DRAWS):
        drawn = {name: draw_of(name, number, precision) for name in NAMES}
        for k in SHOTS:
            for metric, value in aurocs(drawn, k).items():
                values.setdefault((k, metric), []).append(value)
        say(f"products: draw {number}")
    return [
        Finding(STUDY, {"k": k, "arithmetic": arithmetic(precision)}, metric, tuple(found))
        for (k, metric), found in values.items()
    ]


def aurocs(drawn: Mapping[str, Draw], k: int) -> dict[str, float]:
    """AUROC of the score in each product, and of score and z in one list of all of them."""
    scores = {name: draw.scores(k) for name, draw in drawn.items()}
    z = {
        name: judge(scores[name], VerdictSettings(), null_scores=draw.null_scores(k)).z for name, draw in drawn.items()
    }
    truth = np.concatenate([draw.truth for draw in drawn.values()])
    return {
        EACH: float(np.mean([roc_auc_score(draw.truth, scores[name]) for name, draw in drawn.items()])),
        SCORE: float(roc_auc_score(truth, np.concatenate(list(scores.values())))),
        Z: float(roc_auc_score(truth, np.concatenate(list(z.values())))),
    }


def sheets(findings: list[Finding]) -> list[Sheet]:
    """One row per k."""
    rows = []
    for k in SHOTS:
        each, score, z = (find(findings, metric, k=k) for metric in METRICS)
        if each and score and z:
            figures = (each.with_deviation, score.with_deviation, z.with_deviation)
            rows.append((str(k), *figures, f"{z.mean / each.mean:.3f}", f"at least {TARGET:.2f}"))
    caption = (
        f"{DINO.label}, {SIZE} px, blocks 6+9+12, top 1 %, {arithmetics(findings)}; {', '.join(NAMES)}, each with "
        f"k prompts of its own, {ASKED} good and up to {ASKED} defective photos: AUROC, mean ± standard deviation over "
        f"{DRAWS} draws."
    )
    return [Sheet("Few-shot, three products in one list", caption, ("k", *METRICS, "ratio", "target"), tuple(rows))]

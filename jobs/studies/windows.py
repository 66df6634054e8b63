"""Does comparing a patch with its own surroundings alone rank cells as well as the full search? (method.md §11)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.alike import whole_group
from sklearn.metrics import average_precision_score, roc_auc_score

from patchead.scoring.aggregate import Aggregation, image_scores
from patchead.scoring.position_level import above_position_level
from patchead.search.bounded_group import BoundedScores
from patchead.search.score import BOUNDED, score_group
from patchead.search.window_group import score_by_window
from studies import cells
from studies.features import DINO, Features
from studies.findings import Case, Finding, Say, Sheet, find

STUDY = "windows"
FRACTIONS = (0.05, 0.1, 0.3)
TOP = 0.01
RATE = 10
#: Radius of the window; `FULL` is the full search.
RADII = (1, 2, 3)
FULL = "full search"
#: What is compared, the figures that a target rests on first.
PARTS: tuple[tuple[str, int], ...] = (("poly", 448), ("poly", 224), ("mono", 448), ("mono", 224))
#: Of the image AUROC, poly cells at 448 px, r = 1, mean of the splits.
TARGET = 0.955
_MEMORY = 4 * 10**9
_METRICS = ("AUROC", "AP")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One way to score: ``window`` is a radius or `FULL`, ``level`` takes off the position level (method.md §9.1)."""

    window: int | str
    fraction: float
    level: bool = False

    @property
    def case(self) -> Case:
        """How its figures are named."""
        return {"window": self.window, "fraction": self.fraction, "level": int(self.level)}


def run(say: Say) -> list[Finding]:
    """AUROC and AP of every way, a value per split."""
    findings = []
    for product, size in PARTS:
        features, values = Features(DINO, size), dict[Rule, list[tuple[float, float]]]()
        for number in cells.SPLITS:
            split = cells.split(product, number)
            embeddings, truth = features.take(split.names(RATE), DINO.layers), split.truth(RATE)
            features.forget()
            for rule, scores in ways(embeddings):
                found = roc_auc_score(truth, scores), average_precision_score(truth, scores)
                values.setdefault(rule, []).append((float(found[0]), float(found[1])))
            say(f"windows: {product}, {size} px, split {number}")
        findings += list(_findings({"product": product, "px": size}, values))
    return findings


def ways(embeddings: np.ndarray) -> Iterator[tuple[Rule, np.ndarray]]:
    """Image scores float64 (N,) of a group's embeddings (N, P, D) by the full search and by every window."""
    for fraction in FRACTIONS:
        aggregation = Aggregation(fraction=fraction, image_top_fraction=TOP)
        everyone = np.arange(len(embeddings))
        # Bound and refine: the image scores of the full search, ten times sooner.
        full = score_group(
            embeddings, everyone, aggregation=aggregation, schedule=BOUNDED, memory_bytes=_MEMORY
        ).image_scores
        yield Rule(window=FULL, fraction=fraction), full
        for radius in RADII:
            compared = whole_group(embeddings, replace(aggregation, window=radius))
            scored = score_by_window(compared, anyway=True)
            assert isinstance(scored, BoundedScores)  # only of `auto`
            rule = Rule(window=radius, fraction=fraction)
            yield rule, image_scores(scored.patch_scores, TOP)
            yield replace(rule, level=True), image_scores(above_position_level(scored.patch_scores), TOP)


def _findings(what: Case, values: Mapping[Rule, list[tuple[float, float]]]) -> Iterator[Finding]:
    for rule, pairs in values.items():
        for metric, column in zip(_METRICS, zip(*pairs, strict=True), strict=True):
            yield Finding(STUDY, {**what, **rule.case}, metric, column)


def sheets(findings: list[Finding]) -> list[Sheet]:
    """One table: a row per product, size, fraction and level, a column per window."""
    rows = []
    for product, size in dict.fromkeys((str(f.case["product"]), int(f.case["px"])) for f in findings):
        for level in (False, True):
            for fraction in FRACTIONS:
                rules = [Rule(window=window, fraction=fraction, level=level) for window in (FULL, *RADII)]
                cases: list[Case] = [{"product": product, "px": size, **rule.case} for rule in rules]
                figures = [_pair(findings, case) for case in cases]
                words = f"nearest {fraction:.0%}{', position level' if level else ''}"
                rows.append((product, str(size), words, *figures, _met(findings, cases[1])))
    caption = (
        f"{DINO.label}, blocks 6+9+12, fp32; the splits of the other tables of solar cells: mean AUROC "
        f"(lowest-highest) / mean AP of {len(cells.SPLITS)} disjoint splits of {cells.GOOD} good and "
        f"{cells.RATES[RATE]} defective cells. Image score: mean of the top 1 % of patches. Full search: by schedule "
        "`bounded`, which has its image scores; position level: method.md §9.1, of every patch, which `bounded` does "
        "not have."
    )
    header = ("cells", "px", "references", FULL, *(f"window r = {radius}" for radius in RADII), "AUROC of r = 1")
    return [Sheet("The window, on solar cells: image AUROC / AP", caption, header, tuple(rows))]


def _pair(findings: list[Finding], case: Case) -> str:
    auroc, ap = (find(findings, metric, **case) for metric in _METRICS)
    return f"{auroc.with_range} / {ap.mean:.3f}" if auroc and ap else "-"


def _met(findings: list[Finding], case: Case) -> str:
    """Whether the target is met, in the row that has one."""
    auroc = find(findings, "AUROC", **case)
    if auroc is None or (case["product"], case["px"]) != PARTS[0] or case["fraction"] != FRACTIONS[0] or case["level"]:
        return ""
    return f"at least {TARGET}: {'met' if auroc.mean >= TARGET else 'not met'}"

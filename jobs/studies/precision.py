"""Cheaper ways to score, against the exact one: int8, an encoder in bf16, and panels of references."""

from __future__ import annotations

import numpy as np
from benchmarks.fidelity import differences, fidelity

from patchead.scoring.leave_one_out import Aggregation, score_group
from patchead.settings.resolve import settled_precision
from studies import cells
from studies.features import DINO, DINO_AUTO, Model, embed_pixels
from studies.findings import Finding, Say, Sheet

STUDY = "precision"
GOOD, BAD = 135, 15
PANELS = (50, 100)
LARGE = 448
LARGE_GOOD, LARGE_BAD = 40, 8
_MEMORY = 4 * 10**9


def run(say: Say) -> list[Finding]:
    """What `jobs/benchmark.py fidelity` measures, at the size of this study, and the arithmetic of 448 px."""
    records = fidelity(GOOD, BAD, PANELS)
    say("precision: int8 and panels, 224 px")
    measured = [(r, r.value) for r in records if r.value is not None]
    findings = [Finding(STUDY, {"case": r.case, "way": r.precision}, r.metric, (value,)) for r, value in measured]
    findings += large()
    say(f"precision: what `auto` takes on this processor, {LARGE} px")
    return findings


def large() -> list[Finding]:
    """At 448 px: what the study takes on this processor, against fp32 throughout; nothing where it takes that."""
    model, precision = DINO_AUTO.settled(LARGE), settled_precision("auto", "cpu")
    if (model.dtype, precision) == ("fp32", "fp32"):
        return []
    split = cells.split("poly", 0)
    names = split.good[:LARGE_GOOD] + split.defective[:LARGE_BAD]
    truth = np.arange(len(names)) >= LARGE_GOOD
    exact, cheap = _scores(DINO, names, "fp32"), _scores(model, names, precision)
    way = f"{model.dtype} encoder, {precision}"
    case = {"case": f"ELPV poly {LARGE_GOOD}+{LARGE_BAD}, blocks 6+9+12, {LARGE} px", "way": way}
    found = differences(exact, cheap, truth)
    return [Finding(STUDY, dict(case), metric, (value,)) for metric, value in found.items()]


def _scores(model: Model, names: tuple[str, ...], precision: str) -> np.ndarray:
    embeddings = embed_pixels(model.build(LARGE), cells.photos(names, LARGE))
    group = np.arange(len(names))
    return score_group(
        embeddings, group, aggregation=Aggregation(), precision=precision, memory_bytes=_MEMORY
    ).image_scores


def sheets(findings: list[Finding]) -> list[Sheet]:
    """One row per figure."""
    rows = tuple((str(f.case["case"]), str(f.case["way"]), f.metric, f"{f.mean:.4g}") for f in findings)
    caption = (
        "DINOv2-S; 224 px unless said. Cheaper arithmetic against fp32 on the same cells; a panel is the only "
        "reference of everybody, `all` is the whole group. Larger panels: `jobs/benchmark.py fidelity --full`."
    )
    return [Sheet("int8, bf16 and panels of references", caption, ("cells", "arithmetic", "", "value"), rows)]

"""The tables of the study on solar cells: every setting, the recommended one, how it was chosen, what did not help."""

from __future__ import annotations

import statistics
from dataclasses import replace

from studies.cells import CHOOSING, GOOD, PRODUCTS, RATES, SPLITS
from studies.features import DINO, LITE, RANDOM
from studies.findings import Case, Finding, Sheet, find

TARGET = 0.95
_TARGET_RATE = 10
#: The defaults of `patchead score`. Size and layers are chosen by the table "How it was chosen", then looked at on the
#: poly splits of the other tables; the fraction is not: with 5 % a defect that repeats is its own reference.
RECOMMENDED: Case = {"encoder": DINO.label, "px": 448, "layers": "6+9+12", "fraction": 0.3, "top": 0.01}
#: The aggregation of MuSc (method.md §3), at the smaller size: every change is compared with it.
STARTING: Case = {"encoder": DINO.label, "px": 224, "layers": "6+9+12", "fraction": 0.3, "top": 0.01}
CHANGES: dict[str, Case] = {
    "10 % nearest references instead of 30 %": {"fraction": 0.1},
    "5 % nearest references": {"fraction": 0.05},
    "30 % farthest references": {"aggregate": "farthest"},
    "image score: the single maximum": {"top": 0.0},
    "image score: mean of the top 2 %": {"top": 0.02},
    "the last layer alone": {"layers": "last"},
    "blocks 6+12": {"layers": "6+12"},
    "448 px": {"px": 448},
    f"{LITE.label}, levels 3+4": {"encoder": LITE.label, "layers": "levels 3+4"},
    "random weights": {"encoder": RANDOM.label},
}
_SHOWN = (("nearest", 0.3), ("nearest", 0.1), ("nearest", 0.05), ("farthest", 0.3))
_CANDIDATES = tuple((fraction, 0.01) for fraction in (0.05, 0.1, 0.2, 0.3)) + tuple(
    (0.05, top) for top in (0.0, 0.005, 0.02)
)
_NOTHING = 0.005  # of an AUROC: a smaller change is called none
_METRICS = ("AUROC", "AP")
#: The metric of a finding that says what was not run.
LEFT_OUT = "left out for time"


def sheets(findings: list[Finding]) -> list[Sheet]:
    """Four tables, and below the first what this processor had no time for."""
    left_out = [str(f.case["what"]) for f in findings if f.metric == LEFT_OUT]
    figures = [f for f in findings if f.metric != LEFT_OUT]
    first = _settings(figures)
    if left_out:
        first = replace(first, caption=f"{first.caption} Left out for time on this processor: {', '.join(left_out)}.")
    return [first, _recommended(figures), _choice(figures), _changes(figures)]


def _published(findings: list[Finding], metric: str, product: str, **case: str | int | float) -> Finding | None:
    """The figure of splits 0, 1 and 2, or, where only that one was run, of split 0."""
    asked: Case = {"aggregate": "nearest", "rate": 10, "product": product, **case}
    for splits in (SPLITS, SPLITS[:1]):
        if found := find(findings, metric, **asked, splits=" ".join(map(str, splits))):
            return found
    return None


def _settings(findings: list[Finding]) -> Sheet:
    keys = ("encoder", "px", "layers")
    rows = []
    for product in PRODUCTS:
        for names in dict.fromkeys(tuple(f.case[key] for key in keys) for f in findings):
            case: Case = dict(zip(keys, names, strict=True))
            figures = [_pair(findings, product, {**case, "aggregate": a, "fraction": k}) for a, k in _SHOWN]
            if any(figures):
                rows.append((product, *map(str, names), *figures))
    caption = (
        f"elpv-dataset. A split is a contiguous block of {GOOD} good cells and 20 defective ones (every third of the "
        "first 60 from the split's offset): mean AUROC (lowest-highest) / mean AP of three disjoint splits; without "
        f"brackets: split 0 alone. Image score: mean of the top 1 % of patches. {_arithmetic(findings)}"
    )
    header = ("product", *keys, *(f"{aggregate} {fraction:.0%}" for aggregate, fraction in _SHOWN))
    return Sheet("Solar cells, batch zero-shot, 10 % defective: image AUROC / AP", caption, header, tuple(rows))


def _pair(findings: list[Finding], product: str, case: Case) -> str:
    auroc, ap = (_published(findings, metric, product, **case, top=0.01) for metric in _METRICS)
    return f"{auroc.with_range} / {ap.mean:.3f}" if auroc and ap else ""


def _arithmetic(findings: list[Finding]) -> str:
    used: dict[str, dict[str, None]] = {}
    for f in findings:
        used.setdefault(str(f.case["arithmetic"]), {})[f"{f.case['encoder']} {f.case['product']} {f.case['px']} px"] = (
            None
        )
    return "; ".join(f"{how}: {', '.join(what)}" for how, what in used.items()) + "."


def _recommended(findings: list[Finding]) -> Sheet:
    rows = []
    for name, case in (("recommended", RECOMMENDED), ("starting point", STARTING)):
        for rate in RATES:
            at = case | {"rate": rate}
            found = [_published(findings, metric, product, **at) for product in PRODUCTS for metric in _METRICS]
            rows.append((name, f"{rate} %", *(f.with_range if f else "not run" for f in found)))
    reached = _published(findings, "AUROC", "poly", **RECOMMENDED)
    verdict = "" if reached is None else _verdict(reached)
    caption = (
        f"recommended: {_text(RECOMMENDED)}; starting point: {_text(STARTING)}. Rates: "
        + ", ".join(f"{rate} % is {count} of {count + GOOD}" for rate, count in RATES.items())
        + f". {verdict}"
    )
    return Sheet(
        "The recommended default, by rate of defects",
        caption,
        ("setting", "defective", *(f"{product} {metric}" for product in PRODUCTS for metric in _METRICS)),
        tuple(rows),
    )


def _verdict(reached: Finding) -> str:
    met = "reached" if reached.mean >= TARGET else "not reached"
    values = ", ".join(f"{value:.3f}" for value in reached.values)
    of = f"({values})" if len(reached.values) == len(SPLITS) else f"on {len(reached.values)} of {len(SPLITS)} splits"
    return f"Target on poly at 10 %: mean image AUROC of at least {TARGET}: {met}, {reached.mean:.3f} {of}."


def _text(case: Case) -> str:
    top = f"mean of the top {case['top']:.1%} of patches" if case["top"] else "single maximum"
    return f"{case['px']} px, {case['layers']}, {case['fraction']:.0%} nearest references, {top}"


def _choice(findings: list[Finding]) -> Sheet:
    """Everything but the poly splits at 10 %: mono, poly cells of no other table, and poly at the other rates."""
    rows = []
    for px in (224, 448):
        for layers in ("last", "6+12", "6+9+12"):
            for fraction, top in _CANDIDATES if layers != "last" else _CANDIDATES[:4]:
                case: Case = {"encoder": DINO.label, "px": px, "layers": layers, "fraction": fraction, "top": top}
                means = _choosing(findings, case)
                if None not in means:
                    known = [mean for mean in means if mean is not None]
                    shown = (*(f"{mean:.3f}" for mean in known), f"{statistics.fmean(known):.4f}")
                    rows.append((str(px), layers, f"{fraction:.0%}", f"{top:.1%}", *shown))
    caption = (
        "Image AUROC, mean over splits and rates: mono at every rate; poly cells that no other table uses (blocks 4 "
        "and 5 of 180 good ones, defective ones after the first 135) at 5 and 10 %; poly at 5 and 20 %, which are "
        "partly the photos of the target's 10 %. At 448 px: one split of mono and of the other cells, and no 20 %. "
        "Top 0.0 % is the single maximum."
    )
    header = ("px", "layers", "nearest", "top patches", "mono", "poly, other cells", "poly, other rates", "mean")
    return Sheet("How it was chosen", caption, header, tuple(rows))


def _choosing(findings: list[Finding], case: Case) -> list[float | None]:
    """Means over rates: of mono, of the further poly cells, of poly at the rates that are not the target's."""
    blocks = [" ".join(map(str, CHOOSING["poly"][:count])) for count in (len(CHOOSING["poly"]), 1)]
    nearest = case | {"aggregate": "nearest"}
    mono = [_published(findings, "AUROC", "mono", **case | {"rate": rate}) for rate in RATES]
    other = [
        next((f for splits in blocks if (f := find(findings, "AUROC", **asked, splits=splits))), None)
        for rate in RATES
        for asked in (nearest | {"product": "poly", "rate": rate},)
    ]
    poly = [_published(findings, "AUROC", "poly", **case | {"rate": rate}) for rate in RATES if rate != _TARGET_RATE]
    known = [[f.mean for f in figures if f] for figures in (mono, other, poly)]
    return [statistics.fmean(means) if means else None for means in known]


def _changes(findings: list[Finding]) -> Sheet:
    """Each change against the start, on the splits that both were run on, worst first."""
    found = {}
    for name, change in CHANGES.items():
        differences = [_difference(findings, product, STARTING | change) for product in PRODUCTS]
        if known := [d for d in differences if d is not None]:
            found[name] = (statistics.fmean(known), differences)
    rows = []
    for name, (mean, differences) in sorted(found.items(), key=lambda item: item[1][0]):
        verdict = "no difference" if abs(mean) < _NOTHING else ("helped" if mean > 0 else "did not help")
        rows.append((name, *("not run" if d is None else f"{d:+.3f}" for d in differences), verdict))
    caption = (
        f"Change of image AUROC at 10 %, one thing at a time, from: {_text(STARTING)}. The same splits on both sides."
    )
    return Sheet("What did not help, and what did", caption, ("change", *PRODUCTS, ""), tuple(rows))


def _difference(findings: list[Finding], product: str, changed: Case) -> float | None:
    start, after = (_published(findings, "AUROC", product, **case) for case in (STARTING, changed))
    if start is None or after is None:
        return None
    shared = len(after.values)  # all splits, or the first
    return after.mean - statistics.fmean(start.values[:shared])

"""Solar cells, few-shot: k good cells of other blocks as prompts, the nearest prompt patch of all (K = 1)."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from patchead.scoring.aggregate import image_scores
from studies import cells
from studies.cells import PRODUCTS, SPLITS
from studies.features import DINO, DINO_AUTO, shared
from studies.findings import Case, Finding, Say, Sheet, find
from studies.strips import strip_to

STUDY = "fewshot"
SHOTS = (1, 2, 4, 8, 16)
DRAWS = 3
SIZE = 224
RATE = 10
_TOP = 0.01
LAYERS: dict[str, tuple[int, ...]] = {"6+12": (6, 12), "last": ()}
# Those that the other study on these cells leaves behind.
MODELS = {"mono": DINO_AUTO, "poly": DINO}


def prompts(product: str, number: int, draw: int, count: int = max(SHOTS)) -> tuple[str, ...]:
    """Names of ``count`` good cells of the other splits' blocks, drawn with a seed; fewer shots take the first ones."""
    others = [name for other in SPLITS if other != number for name in cells.split(product, other).good]
    rng = np.random.default_rng([number, draw, *product.encode()])
    return tuple(others[i] for i in rng.permutation(len(others))[:count])


def run(say: Say) -> list[Finding]:
    """AUROC and AP of every k, a value per split and draw."""
    findings = []
    for product in PRODUCTS:
        features = shared(MODELS[product], SIZE)
        case: Case = {"product": product, "dtype": features.model.dtype}
        values: dict[tuple[str, int, str], list[float]] = {}
        for number in SPLITS:
            split = cells.split(product, number)
            names, truth = split.names(RATE), split.truth(RATE)
            for layers, chosen in LAYERS.items():
                queries = features.take(names, chosen)
                for draw in range(DRAWS):
                    distances = strip_to(queries, features.take(prompts(product, number, draw), chosen))
                    for k in SHOTS:
                        scores = image_scores(distances[:, :k].min(axis=1), _TOP)
                        auroc, ap = roc_auc_score(truth, scores), average_precision_score(truth, scores)
                        values.setdefault((layers, k, "AUROC"), []).append(float(auroc))
                        values.setdefault((layers, k, "AP"), []).append(float(ap))
            say(f"few-shot: {product}, split {number}")
        for (layers, k, metric), found in values.items():
            findings.append(Finding(STUDY, {**case, "layers": layers, "k": k}, metric, tuple(found)))
    return findings


def sheets(findings: list[Finding]) -> list[Sheet]:
    """One row per k."""
    rows = []
    for k in SHOTS:
        found = [find(findings, m, product=p, layers="6+12", k=k) for p in PRODUCTS for m in ("AUROC", "AP")]
        last = [find(findings, "AUROC", product=p, layers="last", k=k) for p in PRODUCTS]
        rows.append((str(k), *(f.with_deviation if f else "" for f in found + last)))
    names = [f"{p} {m}" for p in PRODUCTS for m in ("AUROC", "AP")] + [f"{p} AUROC, last layer" for p in PRODUCTS]
    dtypes = {str(f.case["product"]): f.case.get("dtype", "fp32") for f in findings}
    caption = (
        f"{DINO.label}, {SIZE} px, blocks 6+12, 180 good and 20 defective cells a split; prompts: good cells of the "
        f"other blocks. Mean ± standard deviation over {len(SPLITS)} splits x {DRAWS} draws. "
        f"{', '.join(f'{dtype} encoder for {product}' for product, dtype in dtypes.items())}; fp32 scores."
    )
    return [Sheet("Few-shot on solar cells", caption, ("k", *names), tuple(rows))]

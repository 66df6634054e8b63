"""p-values against an accepted night: how many good cells fall below a level, on nights that are alike and that aren't.

Alike: accepted night and tonight are drawn from one pool of good cells. Not alike: contiguous blocks of the file order,
where neighbours are near-twins and one end of a row of modules differs from the other (method.md §7.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from demo_archive import elpv_cells

from patchead.scoring.aggregate import image_scores, neighbours
from patchead.scoring.conformal import conformal_p_values, score_above
from patchead.scoring.drift import drift
from patchead.scoring.precision_probe import choose, probe
from patchead.settings.method import ScoringConfig
from patchead.threads import over_threads
from studies.cells import PRODUCTS
from studies.features import DINO, DINO_AUTO, shared
from studies.findings import Case, Finding, Say, Sheet, find
from studies.strips import strip

STUDY = "accepted"
SIZE = 224
LAYERS = (6, 9, 12)
POOL, DEFECTIVE = 400, 20
LEVELS = (0.01, 0.05)
#: Images of a night, so that every level is a whole number of ranks: (n + 1) · 0.01 is 2 and 1.
DRAWN, BLOCK = 199, 99
DRAWS = 60
STEP = 50  # from one block's first cell to the next one's
REFERENCES = ("night", "accepted")
# Those that the other studies on these cells use.
MODELS = {"mono": DINO_AUTO, "poly": DINO}
#: 20 % about each level.
TOLERANCE = 0.2


@dataclass(frozen=True)
class Pool:
    """Distances (N, N, P) of the good cells of a product and, behind them, of defective ones."""

    distances: np.ndarray

    def scores(self, queries: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Image scores float64 (Q,) by the default settings; an image is no reference of its own."""
        defaults = ScoringConfig()
        patches = np.empty((len(queries), self.distances.shape[2]), np.float32)

        def score(row: int) -> None:
            others = references[references != queries[row]]
            k = int(neighbours(len(others), defaults.fraction))
            nearest = np.ascontiguousarray(self.distances[queries[row]][others].T)
            nearest.partition(k - 1, axis=1)
            patches[row] = nearest[:, :k].mean(axis=1)

        over_threads(score, range(len(queries)), torch.device("cpu"))
        return image_scores(patches, defaults.image_top_fraction)


def run(say: Say) -> list[Finding]:
    """Shares of good cells at or below each level, a value per simulated night; of defective ones; of warnings."""
    findings = []
    for product in PRODUCTS:
        features, precision = shared(MODELS[product], SIZE), choose([probe("cpu")])
        names = elpv_cells(product, 0.0)[:POOL] + elpv_cells(product, 1.0)[:DEFECTIVE]
        pool = Pool(strip(features.take(names, LAYERS), precision))
        say(f"accepted: distances of {product}")
        for nights, pairs in (("drawn", drawn(product)), ("blocks", blocks())):
            case: Case = {"product": product, "nights": nights, "dtype": features.model.dtype, "precision": precision}
            values: dict[tuple[str, str], list[float]] = {}
            for accepted, tonight in pairs:
                for key, value in of_pair(pool, accepted, tonight):
                    values.setdefault(key, []).append(value)
            for (references, metric), found in values.items():
                findings.append(Finding(STUDY, {**case, "references": references}, metric, tuple(found)))
            say(f"accepted: {product}, {nights}")
    return findings


def of_pair(pool: Pool, accepted: np.ndarray, tonight: np.ndarray) -> Iterator[tuple[tuple[str, str], float]]:
    """Figures of one night against one accepted night, by whose embeddings are the references."""
    null = pool.scores(accepted, accepted)
    limit = score_above(null, LEVELS[0])
    found = {"night": pool.scores(tonight, tonight), "accepted": pool.scores(tonight, accepted)}
    for references, scores in found.items():
        p = conformal_p_values(scores, null)
        for level in LEVELS:
            yield (references, metric_of(level)), float((p <= level * (1 + 1e-9)).mean())
        moved = drift(scores, null, limit)
        yield (references, "warned"), float(moved is not None and moved.drifted())
    bad = np.arange(POOL, POOL + DEFECTIVE)
    defective = conformal_p_values(pool.scores(bad, accepted), null)
    yield ("accepted", "defective"), float((defective <= LEVELS[0] * (1 + 1e-9)).mean())


def drawn(product: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of disjoint nights drawn from the pool, each pair in both directions."""
    rng = np.random.default_rng([*product.encode()])
    for _ in range(DRAWS):
        order = rng.permutation(POOL)
        one, other = np.sort(order[:DRAWN]), np.sort(order[DRAWN : 2 * DRAWN])
        yield one, other
        yield other, one


def blocks() -> list[tuple[np.ndarray, np.ndarray]]:
    """Every ordered pair of disjoint contiguous blocks."""
    starts = range(0, POOL - BLOCK + 1, STEP)
    return [(np.arange(a, a + BLOCK), np.arange(b, b + BLOCK)) for a in starts for b in starts if abs(a - b) >= BLOCK]


def metric_of(level: float) -> str:
    """What a share at or below a level is called."""
    return f"p <= {level:g}"


def sheets(findings: list[Finding]) -> list[Sheet]:
    """One row per product, way of making nights, and references."""
    rows = []
    for product in PRODUCTS:
        for nights in ("drawn", "blocks"):
            for references in REFERENCES:
                case = {"product": product, "nights": nights, "references": references}
                shares = [find(findings, metric_of(level), **case) for level in LEVELS]
                if None in shares:
                    continue
                count = len(shares[0].values) if shares[0] else 0
                cells = [_share(share, level) for share, level in zip(shares, LEVELS, strict=True)]
                rest = [find(findings, metric, **case) for metric in ("warned", "defective")]
                rows.append((f"{product}, {nights}", references, str(count), *cells, *map(_percent, rest)))
    made = next((f.case for f in findings), {})
    caption = (
        f"{DINO.label}, {SIZE} px, blocks {'+'.join(map(str, LAYERS))}, default settings otherwise. Drawn: "
        f"{DRAWN} accepted and {DRAWN} other good cells of one pool of {POOL}; blocks: {BLOCK} and {BLOCK} contiguous "
        f"ones. Mean over the nights (lowest-highest night); ok: within {TOLERANCE:.0%} of the level. Defective: those "
        f"of {DEFECTIVE} with p <= {LEVELS[0]:g}. {made.get('precision', '')} scores."
    )
    header = ("nights", "references", "number", *map(metric_of, LEVELS), "drift warned of", "defective flagged")
    return [Sheet("p-values against an accepted night", caption, header, tuple(rows))]


def _share(found: Finding | None, level: float) -> str:
    if found is None:
        return ""
    inside = abs(found.mean - level) <= TOLERANCE * level
    return f"{found.mean:.2%} ({min(found.values):.1%}-{max(found.values):.1%}){' ok' if inside else ''}"


def _percent(found: Finding | None) -> str:
    return "" if found is None else f"{found.mean:.1%}"

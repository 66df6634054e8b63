"""What scoring actors are set up with, and what a block of a group's images gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from patchead.hashing import text_digest
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.group import Group
from patchead.plan.planned import GroupPlan
from patchead.runtime.executor import CallCounter
from patchead.runtime.pool import Pool
from patchead.samples.mask import ForegroundMask
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.burn_out import Evidence
from patchead.search.alike import night_sample
from patchead.search.bounded_group import SearchedFully


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Say how groups are scored."""

    aggregation: Aggregation
    precision: str
    memory_bytes: int
    grid: tuple[int, int]
    max_references: int | None = None
    seed: int = 0
    digest: str
    """Of everything that a staged score depends on besides the group's images and references."""
    mask: ForegroundMask | None = None
    subspace: bool = False
    """Whether `score_subspace` is filled."""
    has_side_arrays: bool = False
    """Whether the mask or the alignment left something with the embeddings."""

    def digest_of(self, compared: str) -> str:
        """Give the digest of all that a group's scores depend on; ``compared``: that of what is compared in it."""
        return text_digest(f"{self.digest} {compared}")

    def rule_of(self, plan: GroupPlan) -> Aggregation:
        """Make the aggregation of one group: without a window auto, where the plan has a reason against it."""
        return replace(self.aggregation, window=None) if plan.why_full else self.aggregation

    def panel(self, group: Group) -> np.ndarray | None:
        """Return the indices of the group's references, or None for all of it."""
        return group.panel(self.max_references, self.seed)


@dataclass(frozen=True)
class ScoreSpec:
    """Hold what every scoring actor is set up with."""

    store: EmbeddingStore
    folder: RunFolder
    settings: ScoreSettings
    pool: Pool
    counter: CallCounter


def told_of(plan: GroupPlan, search: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add to how a group was searched why that was full, where the plan has known it."""
    return SearchedFully(plan.why_full).facts(symmetric=search["multiplications"] < 1) if plan.why_full else search


def measured_of(group: Group) -> np.ndarray | None:
    """Choose which images tell whether parts lie alike: of the night, where others than its own are its references."""
    return night_sample(group.queries) if group.scored < len(group.image_ids) else None


class BlockScores(NamedTuple):
    """Hold what one block of a group's images gives."""

    scores: np.ndarray
    """float32 (B, P)."""
    evidence: Evidence | None = None
    """What they show of repeats."""
    exact: np.ndarray | None = None
    """bool (B,), images without an upper bound; None: all."""
    search: Mapping[str, Any] = MappingProxyType({})
    """How bound and refine went; empty where the search was full."""


def exact_of(blocks: Sequence[BlockScores]) -> np.ndarray | None:
    """Join `BlockScores.exact` of a group's blocks: bool (N,), None where all images are exact."""
    if all(block.exact is None for block in blocks):
        return None
    return np.concatenate(
        [np.ones(len(block.scores), bool) if block.exact is None else block.exact for block in blocks]
    )


def search_of(blocks: Sequence[BlockScores]) -> dict[str, Any]:
    """Put together how the blocks of a group were searched, each having chosen for itself; empty: all fully.

    Shares, and what each has measured, count each block by its images.
    """
    if not any(block.search for block in blocks):
        return {}
    images = np.array([len(block.scores) for block in blocks])
    chosen = sorted({block.search.get("generator", "full") for block in blocks})
    shares = {
        name: float(np.average([block.search.get(name, 1.0) for block in blocks], weights=images))
        for name in ("searched", "multiplications")
    }
    for name in ("offset", "alike"):  # of one sample for all blocks by a window, of a block's own by bounds
        known = [(block.search[name], len(block.scores)) for block in blocks if block.search.get(name) is not None]
        if known:
            values, weights = zip(*known, strict=True)
            shares[name] = float(np.average(values, weights=weights))
    return {"generator": " and ".join(chosen), **shares}

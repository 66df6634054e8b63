"""What was planned: how each group is scored, as plain values that travel. Without torch, as what loads blocks is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from patchead.batches import slices


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """Say how one group is scored. ``block_images`` of all images means one task on one actor."""

    group_id: str
    images: int
    references: int
    schedule: str  # symmetric | row_stationary | bounded | window | none (too few images)
    block_images: int
    flops: int = 0
    prompts: int = 0
    """References that are no images of the group: few-shot mode."""
    nulls: int = 0
    """Of ``images``: those that are scored with the group to know how normal images score (method.md §7.3)."""
    window: int = 0
    """Radius of the schedule ``window``."""
    shown: float = 0.0
    """Share of the images that will be shown: those that bound and refine has left bounds in are searched for that."""
    tries_bounds: bool = False
    """Whether it is tried first if bound and refine costs less than the planned full search."""
    why_full: str = ""
    """Why the search is full where bounds, or a window auto, were asked for; empty where nothing takes their place."""
    counted_as: str = ""
    """Full search whose FLOPs are counted, where bound and refine is presumed to save nothing: on a GPU, or with what
    will be shown."""
    pace: float = 1.0
    """Of the full search's rate, at which its multiplications are done."""
    evidence_bytes: int = 0
    """Of each image, beside its patch scores, where repeated defects are looked for."""

    @property
    def whole(self) -> bool:
        """Tell whether one task on one actor scores the group."""
        return self.block_images >= self.images

    @property
    def in_tiles(self) -> bool:
        """Tell whether the group is cut into tiles: none of them sees whole images, so actors cannot try bounds."""
        return self.schedule == "symmetric" and not self.whole

    @property
    def matching_tasks(self) -> int:
        """Count the tasks that compare images: the group, its tiles, or its query blocks."""
        if self.schedule == "none":
            return 0
        blocks = math.ceil(self.images / self.block_images)
        return blocks * (blocks + 1) // 2 if self.schedule == "symmetric" else blocks

    def blocks(self) -> list[slice]:
        """Return the images of each block of queries."""
        return slices(self.images, self.block_images)

    def reference_blocks(self) -> int:
        """Return into how many blocks the references are cut that stream past (row-stationary)."""
        return math.ceil(self.references / self.block_images)

    def tiles(self) -> list[tuple[int, int]]:
        """Return block pairs (a, b), a <= b, of the symmetric schedule; a block with itself, half the work, last."""
        count = range(len(self.blocks()))
        return [*combinations(count, 2), *((a, a) for a in count)]


class PromptCounts(NamedTuple):
    """Count what a group has of prompts: its references, and what is scored with it to know how normal images score."""

    references: int
    nulls: int
    views_of: int = 0
    """0, or of how many prompts the nulls are views; see `NullChoice`."""


@dataclass(frozen=True)
class Plan:
    """Hold all groups, the largest first, with the totals a person wants to see before the cluster is taken."""

    groups: tuple[GroupPlan, ...]
    n_patches: int
    dim: int
    actors: int = 0
    """That will do it, so that small groups can share a call; 0: each group has its own."""

    @property
    def scored(self) -> tuple[GroupPlan, ...]:
        """Give the groups that have images enough."""
        return tuple(group for group in self.groups if group.schedule != "none")

    @property
    def flops(self) -> int:
        """Add up the FLOPs of all groups."""
        return sum(group.flops for group in self.groups)

    def facts(self) -> dict[str, Any]:
        """Collect what the run record says of the plan."""
        return {
            "schedules": dict(Counter(group.schedule for group in self.groups)),
            "tasks": sum(group.matching_tasks for group in self.groups),
            "flops": self.flops,
            "groups_in_blocks": sum(not group.whole for group in self.scored),
            "references": {
                group.group_id: group.references
                for group in self.scored
                if group.prompts or group.references < group.images
            },
        }

    @property
    def embedding_bytes(self) -> int:
        """Add up the bytes of all stored embeddings, the prompts' included."""
        return sum(group.images + group.prompts for group in self.groups) * self.n_patches * self.dim * 2

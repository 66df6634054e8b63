"""What a night tells of its images, by night and product: metrics for Prometheus, a log record per unit and group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from patchead.nightly.accepted import drifted
from patchead.plan.planned import Plan
from patchead.runtime import logs, metrics

Labels = dict[str, str]
MOST_TOLD = 20
"""Groups that cannot be scored, or lack something, that the terminal names."""


class Brought(NamedTuple):
    """Say what a finished unit has brought: images embedded, images decoded, and bytes read for them."""

    unit_id: str
    group_id: str | None
    written: int
    decoded: int
    read_bytes: int


def labels_by_group(images: pa.Table) -> dict[str | None, Labels]:
    """Find the night and the product of each group: those of its first image, as text.

    Args:
        images: rows with ``group_id``, ``night`` and ``product``, such as those of the manifest.
    """
    first = images.group_by("group_id").aggregate([("night", "min"), ("product", "min")])
    found = first.to_pylist()
    return {row["group_id"]: _labels(row["night_min"], row["product_min"]) for row in found}


def count_images(name: str, images: pa.Table, stage: str) -> None:
    """Count rows with ``night`` and ``product`` under a metric, each under its own."""
    for row in images.group_by(["night", "product"]).aggregate([([], "count_all")]).to_pylist():
        metrics.count(name, row["count_all"], stage=stage, **_labels(row["night"], row["product"]))


def tell_unit(labels: Labels, brought: Brought, *, unread: int) -> None:
    """Count what one unit has brought, and how many of its images the storage did not give."""
    for name, more in (("embedded", brought.written), ("decoded", brought.decoded), ("unread", unread)):
        metrics.count(f"patchead_images_{name}", more, stage="embed", **labels)
    metrics.count("patchead_bytes_read", brought.read_bytes, stage="embed", **labels)
    text = f"unit ends: {brought.decoded} decoded, {brought.written} embedded, {unread} not given by the storage"
    logs.LOGGER.debug(text, extra={**labels, "group": brought.group_id, "unit": brought.unit_id})


@dataclass
class Scoring:
    """Count what is scored, and what is left of it."""

    labels: Mapping[str | None, Labels]
    """Of each group."""
    tasks: int
    """That compare images."""
    _left: dict[str, set[str]] = field(init=False)
    """Groups that are not scored, by product."""

    def __post_init__(self) -> None:
        self._left = {}
        for group, labels in self.labels.items():
            self._left.setdefault(labels.get("product", ""), set()).add(str(group))
        self._tell()

    @classmethod
    def of(cls, images: pa.Table, plan: Plan) -> Scoring:
        """Begin to count: rows with ``group_id``, ``night`` and ``product`` of the groups of a plan."""
        labels = labels_by_group(images)
        return cls({group.group_id: labels[group.group_id] for group in plan.scored}, plan.facts()["tasks"])

    def task_done(self, group_id: str, then: Callable[[], None] | None) -> None:
        """Count one task, and do what follows it."""
        self.tasks = max(self.tasks - 1, 0)
        metrics.count("patchead_tasks_done", stage="score", **self.labels.get(group_id, {}))
        self._tell()
        if then is not None:
            then()

    def group_done(self, group_id: str, images: int) -> None:
        """Count a group of so many images, and its product with its last group."""
        labels = self.labels.get(group_id, {})
        metrics.count("patchead_groups_done", stage="score", **labels)
        metrics.count("patchead_images_scored", images, stage="score", **labels)
        groups = self._left.get(labels.get("product", ""), set())
        groups.discard(group_id)
        metrics.gauge("patchead_in_hand", 1 if groups else 0, stage="score", **labels)
        if not groups:
            metrics.count("patchead_products_done", stage="score", **labels)
        logs.LOGGER.info(f"group is scored: {images} images", extra={**labels, "group": group_id})
        self._tell()

    def group_failed(self, group_id: str, why: str) -> None:
        """Count a group that cannot be scored."""
        labels = self.labels.get(group_id, {})
        metrics.count("patchead_groups_failed", stage="score", **labels)
        logs.LOGGER.error(f"group cannot be scored: {why}", extra={**labels, "group": group_id})

    def _tell(self) -> None:
        metrics.gauge("patchead_tasks_left", self.tasks, stage="score")
        metrics.gauge("patchead_groups_left", sum(map(len, self._left.values())), stage="score")


def tell_lacking(warn: Callable[[str], None], images: pa.Table, lacking: Mapping[str, str]) -> None:
    """Tell, and count, the groups of which verdict, regions, heatmaps or names are missing.

    Args:
        warn: is given a line for each of the first ones, and their number.
        images: rows with ``group_id``, ``night`` and ``product``.
        lacking: what is missing and why, by group.
    """
    labels = labels_by_group(images) if lacking else {}
    for number, (name, why) in enumerate(lacking.items()):
        metrics.count("patchead_groups_failed", stage="explain", **labels[name])
        logs.LOGGER.error(f"group lacks something: {why}", extra={**labels[name], "group": name})
        if number < MOST_TOLD:
            warn(f"warning: group {name}: {why}")
    if len(lacking) > MOST_TOLD:
        warn(f"warning: {len(lacking)} groups in all lack something")


def tell_published(scores: pa.Table, verdicts: pa.Table, nights: Iterable[str]) -> None:
    """Count the flagged images and the drifted groups of a published night, and say that it is published now."""
    count_images("patchead_images_flagged", scores.filter(pc.fill_null(scores["is_anomalous"], False)), "publish")
    moved = len(drifted(verdicts))
    for night in nights:
        metrics.gauge("patchead_groups_drifted", moved, night=night, stage="publish")
        metrics.gauge("patchead_last_success_timestamp_seconds", time.time(), night=night, stage="publish")


def _labels(night: object, product: str | None) -> Labels:
    found = {"night": "" if night is None else str(night), "product": product or ""}
    return {name: value for name, value in found.items() if value}

"""Thresholds of z that follow from what people said of images: precision and recall of each product."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.lake.tables import of_lane, read_rows
from patchead.review.judged_again import JudgedGroup, Rule, judged_groups
from patchead.review.labels import Labels, labels
from patchead.review.like_runs import LikeRuns
from patchead.review.rule_of_night import rule_of_night
from patchead.review.suggested import starts, suggestions
from patchead.schema import OK
from patchead.storage import Storage

FEWEST_GOOD, FEWEST_DEFECTS = 20, 5
"""Labels that a suggestion takes."""
_BOTH = ["run_id", "image_id", "content_hash", "group_id", "verdict_rule", "status"]
_SCORED = [*_BOTH, "score", "z", "p_value", "is_anomalous"]
_LABELLED = [*_BOTH, "night", "product", "encoder_id"]
_WORK = 3e7
"""Scores that are judged again for one product's suggestions, about: some seconds."""
_CALL = 1000
"""Scores that take as long as what each group takes, however few it has."""


@dataclass(frozen=True)
class Threshold:
    """Hold one threshold of a product and what it does to labelled images and to the last night."""

    what: str
    z: float | None
    """None: the verdicts as they are, of groups with several thresholds of z or none."""
    flag_top: float | None
    """In place of z, of the rule ``top``."""
    precision: float | None
    """Of the labelled images that it flags, the share of defects; None where it flags none."""
    recall: float | None
    """Share of the labelled defects that it flags; None where there is none."""
    flagged: int
    """Images of the last night that it flags."""


@dataclass(frozen=True)
class ProductThresholds:
    """Hold the thresholds of one product."""

    product: str | None
    night: Any
    images: int
    """Scored images of the last night."""
    rule: str
    """By which the last night was judged."""
    is_top: bool
    """Whether that is a fixed share of each group, so that no threshold of z has an effect."""
    by_rate: bool
    """Whether ``scoring.false_discovery`` decides in place of a threshold."""
    good: int
    defects: int
    """Labels, of images whose scores compare with the last night's."""
    left_out: tuple[tuple[int, str], ...]
    """Labels that do not count: how many, and of what images."""
    thresholds: tuple[Threshold, ...]
    """The present one, then the suggested ones, the best first; none is suggested where labels are missing."""

    @property
    def missing(self) -> tuple[int, int]:
        """Count the labels of good images and of defects that a suggestion lacks."""
        return max(0, FEWEST_GOOD - self.good), max(0, FEWEST_DEFECTS - self.defects)

    @property
    def suggested(self) -> Threshold | None:
        """Give the threshold with the best F1; None where none is suggested."""
        return next((each for each in self.thresholds if each.what == "best F1"), None)


@dataclass(frozen=True)
class _LastNight:
    night: Any
    verdicts: list[dict[str, Any]]
    rows: pa.Table
    """Of its scored images."""


@dataclass(frozen=True)
class Labelled:
    """Hold what people said of images, and the rows of these photos in the table of scores."""

    said: Labels
    rows: pa.Table
    """Of all lanes."""

    @classmethod
    def read(cls, lake_uri: str, storage: Storage) -> Labelled:
        """Read the labels of a lake and, once, the scores of their images. Raises `LakeError` where it cannot."""
        said = labels(lake_uri, storage)
        asked = [("image_id", "in", sorted(said.images))]
        rows = read_rows(lake_uri, storage, "scores", [*_LABELLED, "lane"], asked)
        counts = pa.array([said.of(*photo) is not None for photo in _photos(rows)], pa.bool_())
        return cls(said, rows.filter(counts))

    @property
    def unscored(self) -> int:
        """Count the labelled photos of which the table of scores has no row, so that no product counts them."""
        there = set(_photos(self.rows))
        there |= {(image, None) for image, _ in there}
        return len(self.said.said.keys() - there)


def thresholds(
    lake_uri: str, storage: Storage, products: Collection[str] = (), labelled: Labelled | None = None
) -> list[ProductThresholds]:
    """Compare the present thresholds with those that the labels suggest, for each product that was ever judged.

    The groups that have labels, and the last night, are judged again at each threshold by the last night's rule: in a
    group that is its own null z depends on the threshold (method.md §7.1).

    Args:
        lake_uri, storage: the lake.
        products: these alone; default: all.
        labelled: of the lake; default: it is read.

    Raises:
        LakeError: a table cannot be read.
    """
    columns = ["run_id", "night", "product", "group_id", "verdict_rule", "threshold_z", "accepted", "lane"]
    judged = of_lane(read_rows(lake_uri, storage, "verdicts", columns))
    judged = judged.filter(pc.is_valid(judged["verdict_rule"]))
    labelled = labelled or Labelled.read(lake_uri, storage)
    rows, said = of_lane(labelled.rows), labelled.said
    like = LikeRuns(lake_uri, storage)
    found = []
    for product in sorted(pc.unique(judged["product"]).to_pylist(), key=lambda name: name or ""):
        if products and (product or "") not in products:
            continue
        last = _last_night(lake_uri, storage, product, judged.filter(_equal(judged["product"], product)))
        if last is not None:
            theirs = rows.filter(_equal(rows["product"], product))
            found.append(_of_product(lake_uri, storage, product, last, theirs, said, like))
    return found


def _last_night(lake_uri: str, storage: Storage, product: str | None, judged: pa.Table) -> _LastNight | None:
    """The newest night of a product, its verdicts and its scored images; None where none is published.

    Verdicts of a run that is being published, or was ended before it was, are there: those that scores name count.
    """
    nights = pc.unique(judged["night"]).sort(order="descending", null_placement="at_end")
    for night in nights.to_pylist():
        filters = [("night", "=", night), ("product", "=", product)]
        known = [each for each in filters if each[2] is not None]
        rows = of_lane(read_rows(lake_uri, storage, "scores", [*_SCORED, "encoder_id", "lane"], known))
        named = judged.filter(pc.is_in(judged["run_id"], value_set=pc.unique(rows["run_id"])))
        if newest := named.filter(_equal(named["night"], night)).to_pylist():
            return _LastNight(night, newest, rows.filter(pc.equal(rows["status"], OK)))
    return None


def _of_product(
    lake_uri: str,
    storage: Storage,
    product: str | None,
    last: _LastNight,
    labelled: pa.Table,
    said: Labels,
    like: LikeRuns,
) -> ProductThresholds:
    run_id, encoder_id = like.newest(last.rows)
    config = like.config_of(run_id)
    rule = rule_of_night(config, run_id, product, last.verdicts, last.rows, lake_uri, storage)
    counted, left_out = like.counted(labelled, run_id, encoder_id, rule)
    groups = _groups_of(_rows_of(lake_uri, storage, counted), said)
    bad = np.concatenate([np.empty(0, bool), *(group.defects for group in groups)])
    by_rate = config is not None and config.scoring.false_discovery is not None and not rule.is_top
    limits = set() if by_rate else {row["threshold_z"] for row in last.verdicts}
    now = Threshold(
        "now",
        limits.pop() if len(limits) == 1 and not rule.is_top else None,
        rule.settings.flag_top if rule.is_top else None,
        *_measured(_flags(rule, groups), bad),
        pc.sum(last.rows["is_anomalous"]).as_py() or 0,
    )
    made = [now]
    if (~bad).sum() >= FEWEST_GOOD and bad.sum() >= FEWEST_DEFECTS and not by_rate:
        made += _suggested(rule, groups, last.rows, bad)
    return ProductThresholds(
        product=product,
        night=last.night,
        images=last.rows.num_rows,
        rule=", ".join(sorted({row["verdict_rule"] for row in last.verdicts})),
        is_top=rule.is_top,
        by_rate=by_rate,
        good=int((~bad).sum()),
        defects=int(bad.sum()),
        left_out=left_out,
        thresholds=tuple(made),
    )


def _suggested(rule: Rule, groups: list[JudgedGroup], last: pa.Table, bad: np.ndarray) -> Iterable[Threshold]:
    """Thresholds with what they do, by judging the groups again at each that is tried."""
    of_last = _groups_of(last, Labels({}))
    most = int(np.clip(_WORK / sum(len(group.scores) + _CALL for group in groups), 60, 200))
    z = np.concatenate([group.z[group.labelled] for group in groups])
    first = [value for value in starts(z, rule.is_top, 2 * most // 3) if rule.allows(value)]
    found = suggestions(lambda at: _flags(rule.at(at), groups), bad, first, most=most, falling=rule.is_top)
    for what, threshold in found:
        at = rule.at(threshold)
        if rule.allows(threshold):
            yield Threshold(
                what,
                None if rule.is_top else threshold,
                threshold if rule.is_top else None,
                *_measured(_flags(at, groups), bad),
                sum(int(at.flags(group).sum()) for group in of_last),
            )


def _flags(rule: Rule, groups: list[JudgedGroup]) -> np.ndarray:
    """Which of the labelled images of groups a rule flags."""
    return np.concatenate([np.empty(0, bool), *(rule.flags(group)[group.labelled] for group in groups)])


def _measured(flagged: np.ndarray, bad: np.ndarray) -> tuple[float | None, float | None]:
    """Precision and recall."""
    hits, defects = int((flagged & bad).sum()), int(bad.sum())
    return hits / int(flagged.sum()) if flagged.any() else None, hits / defects if defects else None


def _rows_of(lake_uri: str, storage: Storage, labelled: pa.Table) -> pa.Table:
    """Score rows of all scored images of the groups that labelled images are of."""
    filters: list[tuple[str, str, Any]] = []
    for name in ("night", "product", "run_id", "group_id"):  # the partition first
        wanted = pc.unique(labelled[name]).to_pylist()
        if None not in wanted:
            filters.append((name, "in", wanted))
    rows = of_lane(read_rows(lake_uri, storage, "scores", [*_SCORED, "lane"], [*filters, ("status", "=", OK)]))
    return rows.filter(pc.is_in(rows["group_id"], value_set=pc.unique(labelled["group_id"])))


def _groups_of(rows: pa.Table, said: Labels) -> list[JudgedGroup]:
    """Groups of each run: two may have one of the same name for another night."""
    runs = pc.unique(rows["run_id"]).to_pylist()
    return [group for run in runs for group in judged_groups(rows.filter(pc.equal(rows["run_id"], run)), said)]


def _photos(rows: pa.Table) -> Iterable[tuple[str, str | None]]:
    """Image id and content of score rows."""
    return zip(rows["image_id"].to_pylist(), rows["content_hash"].to_pylist(), strict=True)


def _equal(column: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    return pc.is_null(column) if value is None else pc.fill_null(pc.equal(column, value), False)

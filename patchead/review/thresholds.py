"""Thresholds of z that follow from what people said of images: precision and recall of each product."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.lake.tables import of_lane, read_rows
from patchead.review.labels import DEFECT, labels
from patchead.schema import OK
from patchead.storage import Storage

FEWEST_GOOD, FEWEST_DEFECTS = 20, 5
"""Labels that a suggestion takes."""
_COLUMNS = ["run_id", "image_id", "z", "is_anomalous", "verdict_rule", "status"]


@dataclass(frozen=True)
class Threshold:
    """Hold one threshold of a product and what it does to labelled images and to the last night."""

    what: str
    z: float | None
    """None: the verdicts as they are, of a rule without a threshold of z."""
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
    good: int
    defects: int
    """Labels, of images that the same rule judged."""
    other_rule: int
    """Labels of images that another rule judged, or that have no score: they do not count."""
    thresholds: tuple[Threshold, ...]
    """The present one, then the suggested ones, the best first; none is suggested where labels are missing."""

    @property
    def missing(self) -> tuple[int, int]:
        """Count the labels of good images and of defects that a suggestion lacks."""
        return max(0, FEWEST_GOOD - self.good), max(0, FEWEST_DEFECTS - self.defects)

    @property
    def suggested(self) -> Threshold | None:
        """Give the threshold with the best F1; None where none is suggested."""
        return self.thresholds[1] if len(self.thresholds) > 1 else None


def thresholds(lake_uri: str, storage: Storage, products: Collection[str] = ()) -> list[ProductThresholds]:
    """Compare the present thresholds with those that the labels suggest, for each product that was ever judged.

    Args:
        lake_uri, storage: the lake.
        products: these alone; default: all.

    Raises:
        LakeError: a table cannot be read.
    """
    columns = ["run_id", "night", "product", "verdict_rule", "threshold_z", "lane"]
    judged = of_lane(read_rows(lake_uri, storage, "verdicts", columns))
    judged = judged.filter(pc.is_valid(judged["verdict_rule"]))
    said = labels(lake_uri, storage)
    labelled = _labelled(lake_uri, storage, said)
    found = []
    for product in sorted(pc.unique(judged["product"]).to_pylist(), key=lambda name: name or ""):
        if products and (product or "") not in products:
            continue
        last = _last_night(lake_uri, storage, product, judged.filter(_equal(judged["product"], product)))
        if last is not None:
            found.append(_of_product(product, *last, labelled.filter(_equal(labelled["product"], product)), said))
    return found


def _last_night(
    lake_uri: str, storage: Storage, product: str | None, judged: pa.Table
) -> tuple[Any, list[dict[str, Any]], pa.Table] | None:
    """The newest night of a product, its verdicts and its scored images; None where none is published.

    Verdicts of a run that is being published, or was ended before it was, are there: those that scores name count.
    """
    nights = pc.unique(judged["night"]).sort(order="descending", null_placement="at_end")
    for night in nights.to_pylist():
        filters = [("night", "=", night), ("product", "=", product)]
        known = [each for each in filters if each[2] is not None]
        rows = of_lane(read_rows(lake_uri, storage, "scores", [*_COLUMNS, "lane"], known))
        named = judged.filter(pc.is_in(judged["run_id"], value_set=pc.unique(rows["run_id"])))
        if newest := named.filter(_equal(named["night"], night)).to_pylist():
            return night, newest, rows.filter(pc.equal(rows["status"], OK))
    return None


def suggestions(good: np.ndarray, defects: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yield thresholds that labelled images suggest: the best F1, all defects found, no good one flagged.

    Each lies between two z of labelled images, at two decimals where there is room. A threshold is above 0.

    Args:
        good, defects: float (n,) and (m,), z of labelled images; neither is empty.

    Examples:
        >>> list(suggestions(np.array([0.0, 0.5, 2.0]), np.array([1.5, 4.0])))
        [('best F1', 1.0), ('every defect', 1.0), ('no good one', 3.0)]
    """
    edges = np.unique(np.concatenate([good, defects]))
    lower = np.concatenate([[edges[0] - 1.0], edges[:-1]])
    hits = (defects[None, :] > lower[:, None]).sum(axis=1)
    false = (good[None, :] > lower[:, None]).sum(axis=1)
    f1 = 2 * hits / (hits + false + len(defects))
    widths = edges - lower
    best = max(range(len(edges)), key=lambda at: (round(float(f1[at]), 9), widths[at]))
    every = int(np.flatnonzero(hits == len(defects)).max())
    choices = [("best F1", best), ("every defect", every)]
    if (none := np.flatnonzero((false == 0) & (hits > 0))).size:
        choices.append(("no good one", int(none.min())))
    for what, at in choices:
        if edges[at] > 0:
            yield what, _between(max(float(lower[at]), 0.0), float(edges[at]))


def _of_product(
    product: str | None,
    night: Any,
    newest: list[dict[str, Any]],
    last: pa.Table,
    labelled: pa.Table,
    said: dict[str, str],
) -> ProductThresholds:
    rules = sorted({row["verdict_rule"] for row in newest})
    same = labelled.filter(pc.is_in(labelled["verdict_rule"], value_set=pa.array(rules)))
    bad = np.array([said[image] == DEFECT for image in same["image_id"].to_pylist()], bool)
    z, z_last = same["z"].to_numpy(), last["z"].to_numpy()
    limits = {row["threshold_z"] for row in newest}
    now = _measured(
        "now",
        limits.pop() if len(limits) == 1 else None,
        np.array(same["is_anomalous"].to_pylist(), bool),
        bad,
        pc.sum(last["is_anomalous"]).as_py() or 0,
    )
    made = [now]
    if (~bad).sum() >= FEWEST_GOOD and bad.sum() >= FEWEST_DEFECTS:
        made += [
            _measured(what, limit, z > limit, bad, int((z_last > limit).sum()))
            for what, limit in suggestions(z[~bad], z[bad])
        ]
    return ProductThresholds(
        product=product,
        night=night,
        images=last.num_rows,
        rule=", ".join(rules),
        good=int((~bad).sum()),
        defects=int(bad.sum()),
        other_rule=labelled.num_rows - same.num_rows,
        thresholds=tuple(made),
    )


def _measured(what: str, z: float | None, flagged: np.ndarray, bad: np.ndarray, last: int) -> Threshold:
    hits, defects = int((flagged & bad).sum()), int(bad.sum())
    precision = hits / int(flagged.sum()) if flagged.any() else None
    return Threshold(what, z, precision, hits / defects if defects else None, last)


def _labelled(lake_uri: str, storage: Storage, said: dict[str, str]) -> pa.Table:
    """Score rows of the images that people have judged."""
    columns = [*_COLUMNS, "product", "lane"]
    return of_lane(read_rows(lake_uri, storage, "scores", columns, [("image_id", "in", sorted(said))]))


def _equal(column: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    return pc.is_null(column) if value is None else pc.fill_null(pc.equal(column, value), False)


def _between(low: float, high: float) -> float:
    """A number with few decimals, at least ``low`` and below ``high``, near their middle."""
    middle = (low + high) / 2
    rounded = (round(middle, decimals) for decimals in (1, 2, 3, 4, 6))
    return next((value for value in rounded if low <= value < high and value > 0), middle)

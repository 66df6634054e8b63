"""Groups of published runs judged again, at a threshold that they were not judged with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import ndtr

from patchead.arrow_columns import by_group
from patchead.review.labels import DEFECT, Labels
from patchead.scoring.conformal import scores_needed
from patchead.scoring.verdict import FEW_PROMPTS, FEW_SHOT, MAD, REFERENCE, TOP, UPPER_FIT, VerdictSettings, judge

OF_GROUP, OF_PROMPTS = "group", "prompts"
"""What z may be measured against, but for rules that have a name of their own."""
_NULLS = {UPPER_FIT: OF_GROUP, MAD: OF_GROUP, FEW_SHOT: OF_PROMPTS, FEW_PROMPTS: OF_PROMPTS}
_MOST_Z = {OF_PROMPTS: 37.0, REFERENCE: 6.0}  # that the settings take
_ROUNDING = 1e-9  # relative, of a level, as `judge` allows it


@dataclass(frozen=True)
class JudgedGroup:
    """Hold the scored images of one group as a run judged them, and which of them people have judged."""

    rule: str
    """By which it was judged."""
    scores: np.ndarray
    """float64 (N,)."""
    z: np.ndarray
    """float64 (N,), NaN where there is none, as the p-values."""
    p_values: np.ndarray
    """float64 (N,)."""
    flagged: np.ndarray
    """bool (N,), as it was published."""
    labelled: np.ndarray
    """int (k,): which images people have judged."""
    defects: np.ndarray
    """bool (k,): which of these they called defects."""


@dataclass(frozen=True)
class Rule:
    """Judge groups by the rule of one night, at its own threshold or at another one."""

    settings: VerdictSettings
    """Of the night."""
    null: str
    """What z is measured against: rules with the same one judge alike."""
    accepted: int | None = None
    """Scores that the night was compared with, the fewest of any group, where they are an accepted run's."""

    @property
    def is_top(self) -> bool:
        """Tell whether it flags a share of each group, so that no z decides."""
        return self.null == TOP

    def fits(self, rule: str) -> bool:
        """Tell whether images that ``rule`` judged can be judged again by this one: by scores alone, or by their z."""
        return self.null in (OF_GROUP, TOP) or null_of(rule) == self.null

    def at(self, threshold: float) -> Rule:
        """Make the rule with another threshold of z; the rule ``top`` with another share."""
        now = self.settings
        if self.is_top:
            return replace(self, settings=replace(now, flag_top=threshold))
        return replace(self, settings=replace(now, threshold_z=threshold))

    def allows(self, threshold: float) -> bool:
        """Tell whether a run takes the threshold: p-values, of few accepted scores above all, end somewhere."""
        if threshold > _MOST_Z.get(self.null, np.inf):
            return False
        return self.accepted is None or scores_needed(float(ndtr(-threshold))) <= self.accepted

    def flags(self, group: JudgedGroup) -> np.ndarray:
        """Flag the images of a group, bool (N,), as a run with these settings does.

        The z of a group that is its own null depends on what is flagged (method.md §7.1), so it is judged anew. With
        prompts or an accepted run, of which the tables do not hold the scores, z stays as it is.
        """
        if self.null in (OF_GROUP, TOP):
            return judge(group.scores, self.settings).flagged
        limit = self.settings.threshold_z
        if limit is None:
            return group.flagged
        if self.null == REFERENCE:
            return group.p_values <= float(ndtr(-limit)) * (1 + _ROUNDING)
        return group.z > limit


def null_of(rule: str) -> str:
    """Say what a rule of the table `verdicts` measures z against."""
    return _NULLS.get(rule, rule)


def judged_groups(rows: pa.Table, said: Labels) -> list[JudgedGroup]:
    """Make the groups of score rows: image_id, content_hash, group_id, score, z, p_value, is_anomalous, verdict_rule.

    Args:
        rows: of scored images, each group of one run.
        said: what people said of images.
    """
    known = pa.array(sorted(said.images), pa.string())
    found = []
    for of_group in by_group(rows).values():
        places = np.flatnonzero(np.asarray(pc.is_in(of_group["image_id"], value_set=known)))
        photos = (of_group[name].take(pa.array(places)).to_pylist() for name in ("image_id", "content_hash"))
        verdicts = [said.of(image, content) for image, content in zip(*photos, strict=True)]
        found.append(
            JudgedGroup(
                rule=of_group["verdict_rule"][0].as_py(),
                scores=_floats(of_group["score"]),
                z=_floats(of_group["z"]),
                p_values=_floats(of_group["p_value"]),
                flagged=np.asarray(pc.fill_null(of_group["is_anomalous"], False)),
                labelled=places[[verdict is not None for verdict in verdicts]],
                defects=np.array([verdict == DEFECT for verdict in verdicts if verdict is not None], bool),
            )
        )
    return found


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(column, float("nan")), np.float64)

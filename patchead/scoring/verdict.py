"""Which images of a group are anomalous, by the rule that is asked for or fits the group (method.md §7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import ndtr

from patchead.errors import SettingsError, argument
from patchead.scoring.conformal import conformal_p_values, score_above, scores_needed
from patchead.scoring.prediction import PredictionInterval, z_of_p
from patchead.scoring.upper_fit import FLAT, Null, upper_fit

FEW = 60
"""Scored images below which the upper half of a group is too small to be fitted."""
UPPER_FIT, MAD, REFERENCE, TOP = "upper_fit", "mad", "reference", "top"
FEW_SHOT, FEW_PROMPTS = "few_shot", "few_prompts"
_DEFAULT_Z = {UPPER_FIT: 3.0, MAD: 3.5}
MAD_TO_SIGMA = 1.4826
"""Makes the median absolute deviation of a normal sample its standard deviation."""
MEAN_AD_TO_SIGMA = 1.2533
"""The same for the mean absolute deviation: sqrt(pi / 2)."""
_LEAST_DEVIATION = 0.25  # of normal images around one prompt, by the mean of its views' scores
_ROUNDING = 1e-9  # relative, of a level


@dataclass(frozen=True, kw_only=True)
class VerdictSettings:
    """Say how verdicts are made: the fields of the settings' `scoring` section."""

    verdict: Literal["auto", "upper_fit", "mad", "reference", "top"] = "auto"
    threshold_z: float | None = None
    """Above this z an image is anomalous; None is the rule's own: 3 of the upper fit, 3.5 of the MAD."""
    alpha: float = 0.01
    """Level of p-values, with prompts and against an accepted reference, where ``threshold_z`` is None."""
    flag_top: float = 0.01
    """What the rule ``top`` flags: a share below 1, of any group at least one image, or a count from 1."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Hold the verdict on the N images of a group, in its order, and how it came about."""

    rule: str
    z: np.ndarray
    """float64 (N,)."""
    flagged: np.ndarray
    """bool (N,)."""
    p_values: np.ndarray | None
    """float64 (N,); None where the rule has none."""
    centre: float
    scale: float
    threshold_z: float
    threshold_score: float
    """Scores above it are flagged (by ``top`` also the first of those equal to it); infinite where none can be."""

    @property
    def normal_score(self) -> float:
        """Say up to which score images are normal, though all are flagged; infinite where nothing tells, as by top."""
        return float("inf") if self.rule == TOP else self.threshold_score


def judge(
    scores: np.ndarray,
    settings: VerdictSettings,
    *,
    reference: np.ndarray | None = None,
    level: float | None = None,
    null_scores: np.ndarray | None = None,
    views_of: int = 0,
) -> Verdict:
    """Judge every image of a group by its score.

    Args:
        scores: float (N,), linear and finite.
        settings: of the run.
        reference: float (n,): scores of the accepted run. The rule ``reference`` needs them; ``top`` takes z and p from
            them; with ``upper_fit`` and ``mad``, which flag by the group's own z, they give p alone.
        level: of the rule ``reference``, in place of the settings': what a false-discovery rule found for the whole
            night (`benjamini_hochberg`); 0 flags none.
        null_scores: float (k,): the prompts' leave-one-out scores; given in few-shot mode, where ``auto`` is
            Student's prediction interval of them (method.md §7.3).
        views_of: 1 or 2 where ``null_scores`` are those of views of so many prompts, which stand in for more.

    Raises:
        SettingsError: the rule needs a reference that is not there, or one larger than it is.
        ValueError: a score is not finite.

    Examples:
        >>> night = np.concatenate([np.linspace(0.10, 0.12, 90), np.full(10, 0.2)])
        >>> verdict = judge(night, VerdictSettings())
        >>> verdict.rule, int(verdict.flagged.sum()), verdict.flagged[-10:].all().item()
        ('upper_fit', 10, True)
    """
    scores = np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.sum(~np.isfinite(scores))} of {len(scores)} scores are not finite: leave them out")
    if settings.verdict == REFERENCE:
        return _by_reference(scores, settings, reference, level)
    if null_scores is not None and settings.verdict in ("auto", TOP):
        verdict = _by_prompts(scores, settings, null_scores, views_of)
    elif settings.verdict == TOP and reference is not None:
        verdict = _by_reference(scores, settings, reference, level=0.0)  # needs none: the share flags
    else:
        verdict = _by_group(scores, settings)
        if reference is not None:
            verdict = replace(verdict, p_values=conformal_p_values(scores, reference))
    return _top(scores, settings, verdict) if settings.verdict == TOP else verdict


def mad_null(scores: np.ndarray) -> Null:
    """Take a group's median and 1.4826 · MAD as its null (method.md §7.2).

    Where more than half of the group is equal, so that the MAD is 0, the mean absolute deviation takes its place.

    Args:
        scores: float (n,), finite; none gives a null of scale 0.

    Examples:
        >>> mad_null(np.array([0.1, 0.2, 0.3, 0.4, 0.5])).score_at(0).__round__(3)
        0.3
    """
    if not len(scores):
        return Null(0.0, 0.0)
    centre = float(np.median(scores))
    deviation = np.abs(scores - centre)
    mad = float(np.median(deviation))
    if mad > FLAT:
        return Null(centre, MAD_TO_SIGMA * mad)
    return Null(centre, MEAN_AD_TO_SIGMA * float(deviation.mean()) if deviation.max() > FLAT else 0.0)


def _by_group(scores: np.ndarray, settings: VerdictSettings) -> Verdict:
    """The group is its own null."""
    rule = settings.verdict if settings.verdict in _DEFAULT_Z else UPPER_FIT if len(scores) >= FEW else MAD
    limit, null = _null(scores, rule, settings)
    if null.scale == 0 and mad_null(scores).scale > 0:  # the middle is equal and gives no line, but not all are
        rule = MAD
        limit, null = _null(scores, rule, settings)
    z = null.z(scores)
    return Verdict(
        rule=rule,
        z=z,
        flagged=z > limit,
        p_values=None,
        centre=null.centre,
        scale=null.scale,
        threshold_z=limit,
        threshold_score=null.score_at(limit),
    )


def _null(scores: np.ndarray, rule: str, settings: VerdictSettings) -> tuple[float, Null]:
    limit = _DEFAULT_Z[rule] if settings.threshold_z is None else settings.threshold_z
    return limit, upper_fit(scores, limit) if rule == UPPER_FIT else mad_null(scores)


def _top(scores: np.ndarray, settings: VerdictSettings, verdict: Verdict) -> Verdict:
    """A fixed share or count of the group instead; z and p as they are."""
    top = settings.flag_top
    count = int(top) if top >= 1 else max(1, int(np.floor(top * len(scores) + 0.5)))
    flagged = np.zeros(len(scores), bool)
    flagged[np.argsort(-scores, kind="stable")[:count]] = True
    return replace(
        verdict,
        rule=TOP,
        flagged=flagged,
        threshold_z=_limit_of(verdict.z, flagged),
        threshold_score=_limit_of(scores, flagged),
    )


def _limit_of(values: np.ndarray, flagged: np.ndarray) -> float:
    """The largest of ``values`` that is not flagged; where all are, what lies just below them."""
    if not flagged.all():
        return float(values[~flagged].max())
    return float(np.nextafter(values.min(), -np.inf)) if len(values) else float("inf")


def _by_prompts(scores: np.ndarray, settings: VerdictSettings, null_scores: np.ndarray, views_of: int) -> Verdict:
    # Views of one prompt against itself say nothing of how other normal images differ.
    interval = PredictionInterval.of(null_scores, _LEAST_DEVIATION if views_of == 1 else 0.0)
    p = interval.p_values(scores)
    z, limit = z_of_p(p), _limit(settings)
    return Verdict(
        rule=FEW_PROMPTS if views_of else FEW_SHOT,
        z=z,
        flagged=z > limit,
        p_values=p,
        centre=interval.centre,
        scale=interval.scale,
        threshold_z=limit,
        threshold_score=interval.score_at(float(ndtr(-limit))),
    )


def _by_reference(
    scores: np.ndarray, settings: VerdictSettings, reference: np.ndarray | None, level: float | None
) -> Verdict:
    n, limit = 0 if reference is None else len(reference), _limit(settings)
    alpha = float(ndtr(-limit))
    if reference is None or (level is None and n < scores_needed(alpha)):
        remedy = f"raise {argument('alpha')}" if settings.threshold_z is None else f"lower {argument('threshold_z')}"
        raise SettingsError(
            f"the verdict by an accepted reference needs at least {scores_needed(alpha)} scores at level {alpha:g}; "
            f"got {n}. Accept a larger run, or {remedy}."
        )
    if level is not None:
        alpha, limit = level, float(z_of_p(np.array([level]))[0]) if level > 0 else float("inf")
    p, null = conformal_p_values(scores, reference), mad_null(reference)
    return Verdict(
        rule=REFERENCE,
        z=z_of_p(p),
        flagged=p <= alpha * (1 + _ROUNDING),  # p is a whole multiple of 1 / (n + 1), so it can be the level itself
        p_values=p,
        centre=null.centre,
        scale=null.scale,
        threshold_z=limit,
        threshold_score=score_above(reference, alpha),
    )


def _limit(settings: VerdictSettings) -> float:
    """The z of the level, unless one is given."""
    given = settings.threshold_z
    return float(z_of_p(np.array([settings.alpha]))[0]) if given is None else given

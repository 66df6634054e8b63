"""Settings that were given and change nothing, as the others are: nobody shall wait for an effect of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from patchead.errors import nearest_name
from patchead.settings.method import ScoringConfig
from patchead.settings.model import Config


class WithoutUse(NamedTuple):
    """Hold why a setting has no effect, its default as a file has it, and what else to do."""

    why: str
    default: str
    instead: str = ""

    def told(self, key: str) -> str:
        """Write the sentence that refuses it."""
        instead = f"; or {self.instead}" if self.instead else ""
        return f"{key} has no effect: {self.why}. Remove it, or set its default, {self.default}{instead}."


def without_use(config: Config) -> dict[str, WithoutUse]:
    """Find the settings that are not at their default and decide nothing: by dotted name.

    A default is none of them, even if it was given: settings that were written out whole are read again.
    """
    scoring, few_shot = config.scoring, config.scoring.mode == "few_shot"
    found = {"scoring.repeats": _why_no_repeats(scoring, few_shot=few_shot)} if scoring.repeats else {}
    for name in ("subspace", "position_level"):
        if getattr(scoring, name) and few_shot:
            found[f"scoring.{name}"] = WithoutUse("with prompts the group is not looked at as a whole", "false")
    if scoring.alpha != _default("alpha"):
        found["scoring.alpha"] = _why_no_level(scoring, few_shot=few_shot)
    if scoring.verdict == "top":
        why = "scoring.verdict top flags the highest scores of every group, whatever their z"
        if scoring.threshold_z is not None:
            found["scoring.threshold_z"] = WithoutUse(why, "null", "take another verdict")
        if scoring.thresholds:
            found["scoring.thresholds"] = WithoutUse(why, "{}", "take another verdict")
    elif scoring.flag_top != _default("flag_top"):
        why = f"it is for scoring.verdict top, and that is {scoring.verdict}"
        found["scoring.flag_top"] = WithoutUse(why, f"{_default('flag_top')}", "set scoring.verdict top")
    return {key: why for key, why in found.items() if why is not None}


def thresholds_of_others(config: Config, products: Sequence[str]) -> list[str]:
    """Say which products have a threshold of their own and are not in the night: another one may have them.

    Args:
        config: of the run; products that it leaves out (``archive.products``) are not missed.
        products: of the night.
    """
    wanted = set(config.archive.products) or set(config.scoring.thresholds)
    return [
        f"scoring.thresholds has {name}, which is no product of this run.{nearest_name(name, products)}"
        for name in config.scoring.thresholds
        if name in wanted and name not in products
    ]


def _why_no_repeats(scoring: ScoringConfig, *, few_shot: bool) -> WithoutUse | None:
    if few_shot:
        return WithoutUse("images are compared with prompts alone, among which no image hides", "false")
    if scoring.references == "accepted":
        return WithoutUse("images are compared with accepted ones, among which none of the night hides", "false")
    if scoring.aggregate == "farthest":
        why = "by scoring.aggregate farthest those that share a defect do not hide each other"
        return WithoutUse(why, "false", "set scoring.aggregate nearest")
    return None


def _why_no_level(scoring: ScoringConfig, *, few_shot: bool) -> WithoutUse | None:
    default = f"{_default('alpha')}"
    if scoring.by_accepted or (few_shot and scoring.verdict == "auto"):
        for name in ("false_discovery", "threshold_z"):
            if getattr(scoring, name) is not None:
                return WithoutUse(f"scoring.{name} takes its place", default, f"remove scoring.{name}")
        return None
    if scoring.verdict == "top":
        return WithoutUse("scoring.verdict top flags scoring.flag_top of every group", default)
    where = f"scoring.verdict {scoring.verdict}{'' if few_shot else ' without prompts'}"
    return WithoutUse(f"{where} flags by no p-value", default, "set scoring.threshold_z, its limit")


def _default(name: str) -> object:
    return ScoringConfig.model_fields[name].get_default()

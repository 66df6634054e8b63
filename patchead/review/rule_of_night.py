"""The rule that judged a night, from its run's settings, or from its verdicts where these are not recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.keys import without_night
from patchead.lake.accepted import list_accepted
from patchead.review.judged_again import OF_GROUP, Rule, null_of
from patchead.scoring.verdict import REFERENCE, TOP, VerdictSettings
from patchead.settings.model import Config
from patchead.storage import Storage

_BY_NAME: dict[str, Literal["upper_fit", "mad"]] = {"upper_fit": "upper_fit", "mad": "mad"}


def rule_of_night(
    config: Config | None,
    run_id: str,
    product: str | None,
    verdicts: Sequence[dict[str, Any]],
    rows: pa.Table,
    lake_uri: str,
    storage: Storage,
) -> Rule:
    """Make the rule that judged a product's night.

    Args:
        config, run_id: of its run, the newest of several; the settings are None where they are not known.
        product: of the groups.
        verdicts: rows of the table `verdicts` of the night, at least one.
        rows: score rows of the night.
        lake_uri, storage: the lake.

    Raises:
        LakeError: the table of accepted runs cannot be read.
    """
    rules = {row["verdict_rule"] for row in verdicts}
    limits = {row["threshold_z"] for row in verdicts}
    limit = limits.pop() if len(limits) == 1 else None
    null = null_of(next(row for row in verdicts if row["run_id"] == run_id)["verdict_rule"])
    if config is not None:
        scoring, own = config.scoring, config.scoring.thresholds.get(product or "")
        if null in (OF_GROUP, TOP):
            limit = scoring.threshold_z if own is None else own.z  # each rule's own where it is None
        elif scoring.false_discovery is not None:
            limit = None  # each night has a level of its own: what it flagged stays
        settings = VerdictSettings(verdict=scoring.verdict, threshold_z=limit, flag_top=scoring.flag_top)
    elif null == TOP:
        share = (pc.sum(rows["is_anomalous"]).as_py() or 0) / max(rows.num_rows, 1)
        settings = VerdictSettings(verdict="top", flag_top=share)
    else:
        settings = VerdictSettings(verdict=_BY_NAME.get("".join(rules), "auto"), threshold_z=limit)
    return Rule(settings, null, _fewest_accepted(verdicts, lake_uri, storage) if null == REFERENCE else None)


def _fewest_accepted(verdicts: Sequence[dict[str, Any]], lake_uri: str, storage: Storage) -> int | None:
    """The fewest accepted scores that a group was compared with; None where none is accepted any more."""
    wanted = {(row["accepted"], without_night(row["group_id"])) for row in verdicts if row["accepted"]}
    there = list_accepted(lake_uri, storage, keys={keys for _, keys in wanted})
    return min((row.values["n"] for row in there if (row.name, row.keys) in wanted), default=None)

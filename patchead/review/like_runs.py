"""Which labels of a lake are of scores that compare with those of its last night."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from patchead.lake.tables import read_rows
from patchead.review.judged_again import Rule
from patchead.schema import OK
from patchead.settings.model import Config
from patchead.storage import Storage

_NAMED = 3
_NO_SCORE = {"run", "lake", "report", "retention", "storage", "resources", "explain", "naming", "preset"}
_VERDICTS = {"verdict", "threshold_z", "thresholds", "alpha", "flag_top", "accepted", "false_discovery"}
_WHICH_IMAGES = ("uri", "night", "products", "limit")


class LikeRuns:
    """Compare runs by what they are recorded with; each is read once."""

    def __init__(self, lake_uri: str, storage: Storage) -> None:
        self._lake = lake_uri, storage
        self._rows: dict[str, dict[str, Any]] = {}
        self._configs: dict[str, Config | None] = {}

    def newest(self, rows: pa.Table) -> tuple[str, str | None]:
        """Give the run that ended last of those that score rows name, at least one, and its encoder.

        Raises:
            LakeError: the table of runs cannot be read.
        """
        of_each = rows.group_by("run_id").aggregate([("encoder_id", "min")]).to_pylist()
        encoders = {row["run_id"]: row["encoder_id_min"] for row in of_each}
        self._read(encoders)
        run_id = max(encoders, key=lambda run: (str(self._rows.get(run, {}).get("finished_at") or ""), run))
        return run_id, encoders[run_id]

    def config_of(self, run_id: str) -> Config | None:
        """Give the settings of a run; None where they are not recorded, or are of another version."""
        if run_id not in self._configs:
            self._read([run_id])
            self._configs[run_id] = _config(self._text_of(run_id))
        return self._configs[run_id]

    def counted(
        self, labelled: pa.Table, run_id: str, encoder_id: str | None, rule: Rule
    ) -> tuple[pa.Table, tuple[tuple[int, str], ...]]:
        """Choose the labelled images whose scores compare with those of a run, and say why the others do not.

        Args:
            labelled: score rows of labelled images.
            run_id, encoder_id: of the run.
            rule: that judges them again.

        Returns:
            The rows that count, and of the others how many, and of what images, the most first.

        Raises:
            LakeError: the table of runs cannot be read.
        """
        self._read(pc.unique(labelled["run_id"]).to_pylist())
        columns = (labelled[name].to_pylist() for name in ("run_id", "encoder_id", "status", "verdict_rule"))
        why_not: dict[tuple[Any, ...], str | None] = {}
        counts: dict[str, int] = defaultdict(int)
        runs: dict[str, set[str]] = defaultdict(set)
        keep = []
        for run, encoder, status, judged_by in zip(*columns, strict=True):
            row = run, encoder, status, judged_by
            if row not in why_not:
                why_not[row] = self._why_not(run, encoder, status, judged_by, run_id, encoder_id, rule)
            why = why_not[row]
            keep.append(why is None)
            if why is not None:
                counts[why] += 1
                runs[why].add(run)
        told = sorted(((count, f"of {_named(runs[why])}: {why}") for why, count in counts.items()), reverse=True)
        return labelled.filter(pa.array(keep, pa.bool_())), tuple(told)

    def _why_not(
        self, run: str, encoder: str | None, status: str, judged_by: str | None, here: str, encoder_id: str | None,
        rule: Rule,
    ) -> str | None:  # fmt: skip
        """Why a label does not count: of an image of ``run``, against the run ``here``; None where it does."""
        if status != OK:
            return "no score"
        if run != here or encoder != encoder_id:
            config, ours = self.config_of(run), self.config_of(here)
            if config is not None and ours is not None:
                if encoder != encoder_id or _compared(config) != _compared(ours):
                    from patchead.review.same_scores import deciding, unlike  # torch, which takes seconds

                    there, at_night = (json.loads(json.dumps(deciding(each))) for each in (config, ours))
                    if told := unlike(there, encoder, at_night, encoder_id):
                        return told
            elif encoder != encoder_id:
                return f"encoder {encoder} there, {encoder_id} here"
            elif self._text_of(run) is not None and self._text_of(here) is not None:
                return "recorded by another version of patchead, so that its settings cannot be compared"
        if not rule.fits(judged_by or ""):
            return f"judged by {judged_by}, whose z says nothing of another rule"
        return None

    def _text_of(self, run_id: str) -> str | None:
        return self._rows.get(run_id, {}).get("config_json")

    def _read(self, runs: Collection[str]) -> None:
        if lacking := sorted(set(runs) - set(self._rows)):
            columns = ["run_id", "config_json", "finished_at"]
            rows = read_rows(*self._lake, "runs", columns, [("run_id", "in", lacking)])
            self._rows |= {run: {} for run in lacking} | {row["run_id"]: row for row in rows.to_pylist()}


def _named(runs: Collection[str]) -> str:
    named = ", ".join(sorted(runs)[:_NAMED])
    return f"run {named}" if len(runs) == 1 else f"{len(runs)} runs ({named}{', …' if len(runs) > _NAMED else ''})"


def _compared(config: Config) -> Mapping[str, Any]:
    """All settings but those that surely decide no score: where they are equal, nothing more need be asked."""
    given = config.model_dump(exclude={**dict.fromkeys(_NO_SCORE, True), "scoring": _VERDICTS})
    return given | {"archive": {name: value for name, value in given["archive"].items() if name not in _WHICH_IMAGES}}


def _config(text: str | None) -> Config | None:
    if text is None:
        return None
    try:
        return Config.model_validate(json.loads(text))
    except (ValidationError, json.JSONDecodeError):
        return None

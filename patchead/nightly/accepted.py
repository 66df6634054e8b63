"""The accepted run of a night: which accepted group each of its groups is compared with, and its embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from patchead.errors import SettingsError
from patchead.lake.accepted import Accepted
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.group import GroupPrompts
from patchead.nightly.own_scores import contents_of_run, others_than, require_left
from patchead.plan.planned import PromptCounts
from patchead.printed import say
from patchead.review.references import choose, embeddings_of, recorded_bits, require_scores
from patchead.review.same_scores import other_prompts
from patchead.runtime.executor import RunTasks
from patchead.scoring.conformal import benjamini_hochberg, conformal_p_values
from patchead.scoring.drift import Drift
from patchead.settings.model import Config
from patchead.settings.modes import accepted_references, fewest_images
from patchead.settings.resolve import level_of, needs_accepted
from patchead.storage import Storage

_NAMED = 5


@dataclass(frozen=True)
class AcceptedGroups:
    """Hold the accepted group of each group of a night; empty where the settings need none."""

    groups: Mapping[str, Accepted]
    references: Mapping[str, pa.Table]
    """Rows of the accepted images that are the references; empty where the night itself is."""
    bits: Mapping[str, int] = field(default_factory=dict)
    """How many the accepted 16-bit images of a group use, where ``archive.bit_depth`` left that to them."""

    def counts(self, groups: Iterable[str]) -> dict[str, PromptCounts] | None:
        """Count the references of groups for the plan; None where they are of the night itself."""
        return {name: of.counts for name, of in self.images(groups).items()} or None

    def images(self, groups: Iterable[str]) -> dict[str, GroupPrompts]:
        """Give groups what they are compared with in place of themselves; empty where it is themselves."""
        found = {name: self.references[name] for name in groups if name in self.references}
        return {name: GroupPrompts(rows, _none_of(rows), 0) for name, rows in found.items()}

    def on_their_scale(self, found: Mapping[str, int]) -> dict[str, int]:
        """Give 16-bit images the bits of the accepted ones that they are compared with.

        Args:
            found: bits that the night's images use, by group.

        Returns:
            By group; those without accepted bits are as they were.

        Raises:
            SettingsError: a group uses more than its accepted one; the text names both.
        """
        for name in sorted(self.bits.keys() & found.keys()):
            row, there = self.groups[name], self.bits[name]
            if found[name] > there:
                raise SettingsError(
                    f"{name} cannot be compared with {row.name!r} (run {row.run_id}): with archive.bit_depth=auto its "
                    f"16-bit images use {found[name]} bits, and the accepted ones were read as {there}, on another "
                    f"scale of brightness. Set archive.bit_depth={found[name]}, score the accepted night with it under "
                    "a new run id, and accept that run."
                )
        return {name: self.bits.get(name, bits) for name, bits in found.items()}

    def require_prompts(self, contents: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse prompts that are not those of the accepted scores.

        Args:
            contents: of the night's prompts, see `prompt_contents`, by their group.

        Raises:
            SettingsError: naming the group and both.
        """
        for name, row in self.groups.items():
            if told := other_prompts(row, contents.get(row.keys)):
                raise SettingsError(
                    f"{name} cannot be compared with {row.name!r} (run {row.run_id}): {told}. Accept a night that was "
                    "scored with tonight's, let prompts.uri hold those of then, or name an accepted run of tonight's "
                    "with scoring.accepted."
                )

    def facts(self) -> dict[str, Any]:
        """Collect what the run record says of them, by group."""
        return {
            name: {"name": row.name, "run_id": row.run_id, "scores": len(row.scores)}
            for name, row in self.groups.items()
        }

    def without_own(
        self, groups: Mapping[str, pa.Table], config: Config, storage: Storage, console: Console
    ) -> AcceptedGroups:
        """Leave out the accepted scores of a night's own images: they would be its own ranks (method.md §7.4).

        Args:
            groups: images of the night by group, with image_id and content_hash.
            config, storage: of the run.
            console: is told how many are left out.

        Returns:
            What can be sent to workers; without a group of which nothing is left, where its verdict needs no p-value.

        Raises:
            SettingsError: of a group too few are left for its level.
            LakeError: the receipts of an accepted run cannot be read.
        """
        judged = self.groups.keys() & _scored(groups, config)
        contents = {
            run_id: contents_of_run(config.lake.uri, storage, run_id)
            for run_id in sorted({self.groups[name].run_id for name in judged})
        }
        found, own, of = dict(self.groups), 0, 0
        for name, row in self.groups.items():
            others = others_than(row, groups[name], contents[row.run_id]) if name in judged else row
            if others is not row:
                require_left(name, row, others, level_of(config, row.values["product"]))
                found[name], own, of = others, own + len(row.scores) - len(others.scores), of + len(row.scores)
        if own:
            say(console, f"         {own} of {of} accepted scores are of tonight's own images: left out")
        return replace(self, groups={name: row.without_images() for name, row in found.items() if len(row.scores)})


def find_accepted(
    config: Config, storage: Storage, groups: Mapping[str, pa.Table], encoder_id: str, store: EmbeddingStore
) -> AcceptedGroups:
    """Find the accepted groups that the settings ask for, and all that is needed of them, before anything is embedded.

    A group that is too small to be scored needs none.

    Raises:
        SettingsError: a group has none of its encoder and settings, or too few scores for its level.
        LakeError: the receipts or the embeddings of an accepted run are gone, or cannot be read.
    """
    if not needs_accepted(config):
        return AcceptedGroups({}, {})
    lake = config.lake.uri
    found = choose(config, lake, storage, _scored(groups, config), encoder_id)
    require_scores(found, config)
    embeddings, bits = {}, {}
    if config.archive.bit_depth == "auto":
        bits = recorded_bits(found, lake, storage)
    if accepted_references(config):
        scoring = config.scoring
        embeddings = embeddings_of(
            found, lake, storage, store, max_references=scoring.max_references, seed=scoring.seed
        )
    return AcceptedGroups(found, embeddings, bits)


def level_of_night(
    groups: Iterable[str], accepted: AcceptedGroups, folder: RunFolder, rate: float, *, map_tasks: RunTasks
) -> float:
    """Find the level of p-values at which at most ``rate`` of what the whole night flags is good (method.md §7.4).

    Args:
        groups: ids of those that are scored.
        accepted: what each is compared with.
        folder: of the run, with the staged scores.
        rate: of Benjamini and Hochberg's rule.
        map_tasks: what runs a function on many items.

    Returns:
        The largest p-value that is flagged; 0 where none is.

    Raises:
        LakeError: staged scores cannot be read.
    """
    items = [(name, accepted.groups[name].scores) for name in groups]
    found = np.concatenate([np.empty(0), *(p for _, p in map_tasks(partial(_p_values, folder=folder), items))])
    flagged = benjamini_hochberg(found, rate)
    return float(found[flagged].max()) if flagged.any() else 0.0


def drifted(verdicts: pa.Table) -> list[str]:
    """List the groups whose good images no longer score like the accepted ones, by VERDICTS of a night."""
    found = _drifts(verdicts)
    return [group for group, each in found.items() if each.drifted(len(found))]


def drift_warnings(verdicts: pa.Table) -> list[str]:
    """Write what a person is told of groups whose good images no longer score like the accepted ones: a line, or none.

    Args:
        verdicts: VERDICTS of a night.
    """
    found = _drifts(verdicts)
    moved = sorted((each.p, group) for group, each in found.items() if each.drifted(len(found)))
    if not moved:
        return []
    told = [
        f"{group} (centre {found[group].shift:+.2f} scales, scale x {found[group].scale:.2f}, p = {p:.1g})"
        for p, group in moved[:_NAMED]
    ]
    more = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    return [
        f"drift: in {len(moved)} of {len(found)} groups the images that are not flagged no longer score like the "
        f"accepted ones, so that p-values do not hold: {', '.join(told)}{more}. Look at them, and accept a new night "
        "where they are good."
    ]


def _scored(groups: Mapping[str, pa.Table], config: Config) -> list[str]:
    """The groups that have enough images for scores."""
    return [name for name, rows in groups.items() if rows.num_rows >= fewest_images(config)]


def _none_of(rows: pa.Table) -> pa.Table:
    """No images: how normal ones score is known from the accepted scores."""
    return rows.slice(0, 0).append_column("role", pa.nulls(0, pa.string()))


def _p_values(group: tuple[str, np.ndarray], *, folder: RunFolder) -> np.ndarray:
    name, reference = group
    return conformal_p_values(folder.read_scores(name), reference)


def _drifts(verdicts: pa.Table) -> dict[str, Drift]:
    known = verdicts.filter(pc.is_valid(verdicts["drift_p"])).to_pylist()
    return {row["group_id"]: Drift(row["drift_p"], row["drift_shift"], row["drift_scale"]) for row in known}

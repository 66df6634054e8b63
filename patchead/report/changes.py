"""What is different from the night before, group by group, and in sentences; the most important first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchead.archive.keys import without_night

FAR = 1.0
"""Scales of the night before by which a median must have moved to be told in a sentence."""
NOTHING = "Nothing stands out"
_MORE_FLAGGED = 3  # standard deviations of a count


@dataclass(frozen=True)
class GroupChange:
    """Hold one group's verdict and that of its like on the night before."""

    key: str
    """The group without its night: what it is called on every night."""
    product: str | None
    now: Mapping[str, Any]
    """Its row of the table of verdicts."""
    before: Mapping[str, Any] | None
    """The one of the newest night before on which there was such a group; None for a new one."""

    @property
    def share(self) -> float | None:
        """Give the flagged share of the images with a score; None without one."""
        return share_of(self.now)

    @property
    def shift(self) -> float | None:
        """Give how far the median went, in scales of the night before; None where that says nothing."""
        if self.before is None or not self.before["scale"] or self.other_encoder:
            return None
        if self.now["median"] is None or self.before["median"] is None:
            return None
        return float((self.now["median"] - self.before["median"]) / self.before["scale"])

    @property
    def other_encoder(self) -> bool:
        """Tell whether the night before was scored by another encoder: its scores do not compare."""
        return self.before is not None and self.before["encoder_id"] != self.now["encoder_id"]

    @property
    def flags_more(self) -> bool:
        """Tell whether more images are flagged than the share of the night before explains."""
        return self.before is not None and flags_more(self.now, self.before)


def flags_more(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Tell whether more images are flagged than the share of the night before explains; not where either has none."""
    if not now["scored"] or not before["scored"]:
        return False
    expected = before["flagged"] / before["scored"] * now["scored"]
    return bool(now["flagged"] > expected + _MORE_FLAGGED * max(1.0, expected) ** 0.5)


def share_of(verdict: Mapping[str, Any]) -> float | None:
    """Give the flagged share of a group's images with a score; None without one."""
    return verdict["flagged"] / verdict["scored"] if verdict["scored"] else None


LikeGroups = Mapping[tuple[str, str | None], Sequence[Mapping[str, Any]]]
"""Verdicts of the same group on several nights, by the group without its night and its product."""


def like_groups(history: Iterable[Mapping[str, Any]]) -> LikeGroups:
    """Put the verdicts of each group together, in the order in which they come."""
    found: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for row in history:
        found.setdefault((without_night(row["group_id"]), row["product"]), []).append(row)
    return found


def group_changes(verdicts: Iterable[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> list[GroupChange]:
    """Pair each group with its like on the newest night before; the largest flagged share first.

    Args:
        verdicts: rows of the night.
        history: of this and earlier nights, oldest first.
    """
    found, earlier = [], like_groups(history)
    for row in verdicts:
        key, night = without_night(row["group_id"]), row["night"]
        like = [each for each in earlier.get((key, row["product"]), ()) if night is not None and each["night"] < night]
        found.append(GroupChange(key, row["product"], row, like[-1] if like else None))
    return sorted(found, key=lambda group: (-(group.share or 0.0), group.key))


def gone(
    groups: Iterable[GroupChange], history: Iterable[Mapping[str, Any]], before: dt.date | None
) -> list[Mapping[str, Any]]:
    """List the verdicts of the night before whose groups have no image on this one."""
    here = {(group.key, group.product) for group in groups}
    last = [row for row in history if before is not None and row["night"] == before]
    return [row for row in last if (without_night(row["group_id"]), row["product"]) not in here]


def sentences(
    groups: Sequence[GroupChange],
    missing: Sequence[Mapping[str, Any]],
    failed: Mapping[dt.date | None, int],
    night: dt.date | None,
    before: dt.date | None,
) -> list[tuple[str, str]]:
    """Say what changed since the night before, as (``alert`` or ``note``, sentence); the alerts first.

    Args:
        groups, missing: of `group_changes` and `gone`.
        failed: images that failed, by night.
        night, before: this night and the one before; None where there is none.
    """
    if before is None:
        return [("note", "This is the first night in this lake: there is none before it to compare with.")]
    told = [("alert", f"{group_name(row)} has no image; it had {row['scored']} on {before}.") for row in missing]
    for group in groups:
        told += _of_group(group)
    lost, lost_before = failed.get(night, 0), failed.get(before, 0)
    if lost != lost_before:
        told.append(("alert" if lost > lost_before else "note", f"{lost} images failed; {lost_before} on {before}."))
    told.sort(key=lambda one: one[0])
    return told or [("note", f"{NOTHING} against {before}: flagged shares and medians are as they were.")]


def _of_group(group: GroupChange) -> Iterable[tuple[str, str]]:
    name, now, before = group_name(group.now), group.now, group.before
    if before is None:
        yield "note", f"{name} is new: no earlier night has such a group."
        return
    if not now["scored"]:
        yield "alert", f"{name} has no score; on {before['night']} {before['scored']} of its images had one."
        return
    if group.flags_more:
        yield (
            "alert",
            f"{name}: {now['flagged']} of {now['scored']} flagged ({_percent(group.share)}), on {before['night']} "
            f"{before['flagged']} of {before['scored']} ({_percent(share_of(before))}).",
        )
    if group.other_encoder:
        yield "note", f"{name} was scored by another encoder on {before['night']}: the scores do not compare."
    elif (shift := group.shift) is not None and abs(shift) >= FAR:
        which = "higher" if shift > 0 else "lower"
        yield (
            "alert",
            f"{name}: the median score is {abs(shift):.1f} scales {which} than on {before['night']}. All images "
            "changed, not a few: look for another lamp, lot or focus.",
        )


def group_name(row: Mapping[str, Any]) -> str:
    """Name a group as people do: its product, and further keys behind it."""
    return without_night(row["group_id"] or "").removeprefix("product=") or row["product"] or "all images"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"

"""How the groups of a plan were searched on the last published night: what `auto` will choose is not known yet."""

from __future__ import annotations

from typing import Any

from patchead.lake.tables import read_rows
from patchead.nightly import wiring
from patchead.plan.planned import Plan
from patchead.settings.model import Config

_COLUMNS = ["night", "product", "group_id", "search", "search_share"]
_MOST = 5


def searched_before(config: Config, plan: Plan) -> list[str]:
    """Write how groups of the same keys but the night were searched last: a line, or none where it is not known.

    Raises:
        LakeError: the lake cannot be read.
    """
    open_ones = {_keys(group.group_id) for group in plan.scored if group.tries_bounds or group.schedule == "bounded"}
    if not open_ones:
        return []
    config = wiring.absolute(config)
    rows = read_rows(config.lake.uri, wiring.storage(config), "verdicts", _COLUMNS).to_pylist()
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted((row for row in rows if row["search"]), key=lambda row: str(row["night"])):
        newest[_keys(row["group_id"])] = row
    known = [f"{row['group_id']} {_how(row)}" for keys, row in sorted(newest.items()) if keys in open_ones]
    if not known:
        return []
    more = f" and {len(known) - _MOST} more" * (len(known) > _MOST)
    return [f"         searched last time: {', '.join(known[:_MOST])}{more}"]


def _how(row: dict[str, Any]) -> str:
    share = row["search_share"]
    full = row["search"].startswith("full") or share is None
    return row["search"] + f" ({share:.1%} of the multiplications)" * (not full)


def _keys(group_id: str) -> str:
    """The group's id without its night."""
    return "/".join(part for part in group_id.split("/") if not part.startswith("night="))

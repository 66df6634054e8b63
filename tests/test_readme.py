"""What the README says exists, and that it stays short."""

from __future__ import annotations

import re

import pytest
from helpers.documents import ROOT

from patchead.lake.views import ADDRESSES
from patchead.schema import SCORES

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 180
MOST_ROWS = 10


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("heading", ["How good", "How fast"])
def test_a_table_of_figures_is_short_and_says_on_what(heading: str) -> None:
    part = re.search(rf"## {heading}\n(.*?)(?:\n## |\n\*\*|\Z)", TEXT, re.DOTALL)
    assert part is not None
    rows = [line for line in part[1].splitlines() if line.startswith("|")][2:]
    assert 3 <= len(rows) <= MOST_ROWS
    assert "Intel" in part[1] or "AMD" in part[1] or "the same machine" in part[1]


def test_every_file_of_the_tree_exists() -> None:
    tree = re.search(r"## Where things are\n+```\n(.*?)```", TEXT, re.DOTALL)
    assert tree is not None
    names, folder = [], ROOT
    for line in tree[1].splitlines():
        if not line.startswith(" "):
            folder = ROOT / line.split("/")[0]
            names.append(folder)
        elif line.startswith("  ") and not line.startswith("   "):
            names += [folder / name for name in re.split(r" {2,}", line.strip())[0].split()]
    assert len(names) > 20
    assert [name for name in names if not name.exists()] == []


def test_every_room_and_job_is_in_the_tree() -> None:
    rooms = {path.name for path in (ROOT / "patchead").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert [room for room in rooms if f"\n  {room}/ " not in TEXT] == []


def test_the_query_uses_columns_of_the_table() -> None:
    query = re.search(r"```sql\n(.*?)```", TEXT, re.DOTALL)
    assert query is not None
    words = set(re.findall(r"\b[a-z_]+\b", re.sub(r"--.*|'[^']*'", "", query[1])))
    assert words - {"scores"} <= {*SCORES.names, *ADDRESSES}


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in TEXT

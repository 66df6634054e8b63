"""What the README says exists: settings with their defaults and meanings, files, commands, columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patchead.schema import SCORES
from patchead.settings.load import iter_fields

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FIELDS = dict(iter_fields())
ROWS = re.findall(r"^\| `(\w+\.\w+)` \| (.*?) \| (.*) \|$", TEXT, re.MULTILINE)


def test_there_is_a_table_of_settings() -> None:
    assert len(ROWS) >= 10


@pytest.mark.parametrize(("key", "default", "meaning"), ROWS, ids=[key for key, _, _ in ROWS])
def test_a_setting_is_as_in_the_code(key: str, default: str, meaning: str) -> None:
    value = FIELDS[key].get_default()
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)
    assert default == (shown or "none")
    assert meaning == FIELDS[key].description


def test_every_setting_that_is_mentioned_exists() -> None:
    sections = {key.partition(".")[0] for key in FIELDS}
    mentioned = set(re.findall(rf"`((?:{'|'.join(sections)})\.\w+)", TEXT)) - {"run.json", "run.py"}
    assert mentioned - set(FIELDS) == set()


def test_every_file_of_the_tree_exists() -> None:
    tree = re.search(r"## Where things are\n+```\n(.*?)```", TEXT, re.DOTALL)
    assert tree is not None
    names = [name for line in tree[1].splitlines() for name in re.split(r" {2,}", line.strip())[0].split()]
    assert len(names) > 20
    folders = [*(path for top in ("jobs", "patchead", "cluster", "tests") for path in (ROOT / top).rglob("*"))]
    known = {path.name for path in folders} | {"jobs", "patchead", "cluster", "tests"}
    assert [name for name in names if "*" not in name and name.rstrip("/") not in known] == []


def test_every_make_target_that_is_mentioned_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE))
    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_query_uses_columns_of_the_table() -> None:
    query = re.search(r"```sql\n(.*?)```", TEXT, re.DOTALL)
    assert query is not None
    words = set(re.findall(r"\b[a-z_]+\b", re.sub(r"--.*|'[^']*'", "", query[1])))
    assert words - {"scores"} <= set(SCORES.names)


def test_pictures_exist() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert pictures
    assert [picture for picture in pictures if not (ROOT / picture).is_file()] == []


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in TEXT

"""The documents of the repository as the tests see them: texts, headings, links, and the commands they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "cluster").rglob("*.md")])
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_STARTS = ("make", "patchead", "python", "ray")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The text without fenced blocks."""
    return _FENCE.sub("", text_of(page))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, '' for none."""
    return [body for name, body in _FENCE.findall(text_of(page)) if name == language]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+?)\s*$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[str, str]]:
    """(file, anchor) of every relative link, '' where there is none."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
    parts = (target.partition("#") for target in targets if "://" not in target)
    return [(file, anchor) for file, _, anchor in parts]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command that a page shows, in a block or in backticks, without its comment."""
    lines = [line for language in ("", "bash", "sh") for block in blocks(page, language) for line in block.splitlines()]
    for text in [*lines, *re.findall(r"`([^`\n]+)`", prose(page))]:
        command = re.split(r"\s#\s|\s{3,}|…$", text.strip())[0]
        if command.split(" ")[0] in _STARTS or command.startswith("jobs/"):
            yield shlex.split(command)

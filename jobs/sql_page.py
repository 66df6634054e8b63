"""Run every statement of docs/sql.md over a lake, and write what it answers below it.

    python jobs/sql_page.py /tmp/patchead-demo/lake      # the lake that `make demo` prints

A path of the lake's machine is written as …/.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from patchead.commands.query_formats import print_table
from patchead.lake.query import query_all
from patchead.storage import Storage

PAGE = Path(__file__).parent.parent / "docs/sql.md"
_BLOCK = re.compile(r"```sql\n(?P<sql>.*?)```\n(?:\n```text\n.*?```\n)?", re.DOTALL)
_OF_AN_ENGINE = re.compile(r"```sql ?(?P<engine>[a-z]*)\n(?P<sql>.*?)```\n", re.DOTALL)
_WIDTH = 112


def statements(page: str, engine: str = "duckdb") -> list[str]:
    """List the statements of the page, in its order; where an engine has a form of its own, that."""
    found = dict[int, str]()
    for block in _OF_AN_ENGINE.finditer(page):
        if block["engine"] in ("", engine):
            found[len(found) + 1 if not block["engine"] else len(found)] = block["sql"]
    return list(found.values())


def answered(page: str, lake: str) -> str:
    """Give the page with what each statement answers over ``lake``."""
    root = str(Path(lake).resolve().parent)

    def with_answer(found: re.Match[str]) -> str:
        (result,) = query_all(lake, Storage(), found["sql"])
        sink = io.StringIO()
        print_table(result, Console(file=sink, width=_WIDTH))
        lines = (line.rstrip() for line in sink.getvalue().replace(root, "…").splitlines())
        return f"```sql\n{found['sql']}```\n\n```text\n{chr(10).join(lines)}\n```\n"

    return _BLOCK.sub(with_answer, page)


def main(lake: Annotated[str, typer.Argument(help="Folder of a lake.")]) -> None:
    """Run every statement of docs/sql.md over a lake, and write what it answers below it."""
    PAGE.write_text(answered(PAGE.read_text(encoding="utf-8"), lake), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    typer.run(main)

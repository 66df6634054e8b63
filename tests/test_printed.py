"""Names from archives reach the terminal as what they are: no escape sequence, no direction mark, no markup."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import patchead
from patchead.markdown import markdown_table
from patchead.printed import add_cells, cell, plain, say, tell

PACKAGE = Path(patchead.__file__).parent
HOSTILE = [
    "\x1b]0;owned\x07\x1b[2J.png",
    "\x9b31mred.png",
    "safe\u202egnp.exe",
    "a\u2066b\u2069c",
    "line\rover.png",
    "back\x08\x08.png",
    "sep\u2028line",
    "lone\udce9.png",
    "tag\U000e0041.png",
    "hidden\u200b\ufeff.png",
]
MARKUP = ["[red]x[/red].png", "[/].png", "[link=http://h]x[/link]", ":smile:.png", "[bold", "\\[x]"]


def shown(what: str) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    table = Table("name")
    add_cells(table, [what])
    console.print(table)
    say(console, f"cannot read {what}: it is damaged")
    return out.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_that_steers_a_terminal_passes(name: str) -> None:
    text = shown(name)
    passed = {c for c in text if not (c.isprintable() or c == "\n")}
    assert not passed, passed
    text.encode()


@pytest.mark.parametrize("name", MARKUP)
def test_markup_is_shown_and_not_obeyed(name: str) -> None:
    assert shown(name).count(name) == 2


def test_honest_names_of_any_script_stay_as_they_are() -> None:
    for name in ("schräg_äöü.png", "ネジ/001.png", "क्\u200dष.png", "न\u200cय.png", "été (1) [x].png"):
        assert plain(name) == name
        assert plain(name) in shown(name)


def test_a_newline_in_a_name_makes_no_line_of_its_own() -> None:
    assert plain("a\nerror: forged") == r"a\nerror: forged"
    assert plain("two\nlines", keep="\n") == "two\nlines"
    assert "\x1b" not in markdown_table(["a"], [["\x1b[2J|x\ny"]])


def test_cells_and_lines_hold_no_secret() -> None:
    assert "Zx9" not in str(cell("s3://K:Zx9@b")) + shown("s3://K:Zx9@b")
    assert str(cell(None)) == ""


def test_every_print_of_the_package_goes_through_the_one_place() -> None:
    """No module prints a text to a console or fills a table's row by itself; whole tables are printed as they are."""
    for path in PACKAGE.rglob("*.py"):
        if path.name == "printed.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr != "add_row", f"{path}:{node.lineno}: use printed.add_cells"
                if node.func.attr == "print":
                    whole = isinstance(node.args[0], ast.Name | ast.Call) and not ast.unparse(node.args[0]).startswith(
                        ("str(", "repr(")
                    )
                    assert whole, f"{path}:{node.lineno}: use printed.say"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno}: use printed.say"


def test_sentences_end_between_words_in_a_terminal_and_are_one_line_in_a_pipe() -> None:
    text = "lake     ./lake: it holds /a/path/that/is/longer/than/the/whole/line and so-called words\nnext"
    shown = {}
    for terminal in (True, False):
        out = io.StringIO()
        tell(Console(file=out, force_terminal=terminal, width=40, color_system=None), text)
        shown[terminal] = out.getvalue().splitlines()
    assert shown[False] == text.splitlines()
    assert shown[True] == [
        "lake     ./lake: it holds",
        "         /a/path/that/is/longer/than/the/whole/line",
        "         and so-called words",
        "next",
    ]


def test_a_quiet_console_is_told_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("run 1: published", "warning: 3 files ignored"):
        say(Console(quiet=True), text)
    assert capsys.readouterr() == ("", "warning: 3 files ignored\n")

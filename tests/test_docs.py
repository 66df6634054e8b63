"""What the documents say is there: pages made from the code are current, links resolve, commands and settings exist."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers.documents import PAGES, ROOT, anchors, blocks, commands, links, named, prose, text_of
from write_pages import DOCS
from write_pages import PAGES as MADE

import patchead
from patchead import errors
from patchead.cli import PUBLISHED_WITH_FAILURES, whole_command
from patchead.evaluation.datasets.registry import DATASETS
from patchead.lake.views import ADDRESSES
from patchead.schema import DICTIONARY
from patchead.settings.load import iter_fields

FIELDS = dict(iter_fields())
ROOMS = ("patchead", "jobs", "tests", "cluster")
CODE = sorted({file for room in ROOMS for file in (ROOT / room).rglob("*.py")} - {Path(__file__)})
SECTION = r"§\d+(?:\.\d+)?"
JOBS_OF_THE_CLI = {"nightly": "score", "evaluate": "evaluate"}
HOSTS = {"127.0.0.1", "seaweedfs"}
every_page = pytest.mark.parametrize("page", PAGES, ids=named)


@pytest.mark.parametrize("name", MADE)
def test_a_page_made_from_the_code_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == MADE[name](), "run `make pages` and commit what it writes"


@every_page
def test_every_relative_link_and_its_anchor_resolve(page: Path) -> None:
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{file} is not there"
        assert not anchor or anchor in anchors(target), f"{file} has no heading #{anchor}"


def sections(document: str) -> set[str]:
    """The numbers that a document's headings and bold leads begin with: §5, §3.7."""
    found = re.findall(r"^(?:#+ |\*\*)(\d+(?:\.\d+)?)\.? ", text_of(ROOT / "docs" / document), re.MULTILINE)
    return {f"§{number}" for number in found}


@pytest.mark.parametrize("document", ["method.md", "design.md"])
def test_every_section_that_the_code_names_is_there(document: str) -> None:
    there = sections(document)
    assert len(there) > 5
    mentions = [(file, found) for file in CODE for found in re.findall(rf"(?i)\b{document}\b(.*)", file.read_text())]
    assert mentions
    for file, after in mentions:
        cited = re.match(rf" {SECTION}(?:(?:, | and | to ){SECTION})*", after)
        assert cited, f"{file}: write `{document} §n`, not `{document}{after[:30]}`"
        assert set(re.findall(SECTION, cited[0])) <= there, f"{file}: {cited[0]}"


def test_the_code_names_no_document_that_is_not_in_the_repository() -> None:
    for file in (file for file in CODE if file.parts[len(ROOT.parts)] != "tests"):
        for name in set(re.findall(r"\b([\w/-]+\.md)\b", file.read_text())) - {"output/NAME.md"}:
            places = (ROOT / name, ROOT / "docs" / name, file.parent / name)
            assert any(place.exists() for place in places), f"{file}: {name}"


@every_page
def test_every_command_exists(page: Path) -> None:
    for words in commands(page):
        _check_command(words)


def _check_command(words: list[str]) -> None:
    """Of a command that runs another one (`ray job submit -- …`) that one is looked at."""
    if "--" in words:
        _check_command(words[words.index("--") + 1 :])
        words = words[: words.index("--")]
    line = " ".join(words)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words[1:] if "=" not in word), line
    elif words[0] == "patchead" and len(words) > 1:
        subcommands, named_here = whole_command().commands, [word for word in re.split(r"[ |]+", line) if word]
        if "|" in line:  # `patchead score | plan`: names alone
            assert set(named_here[1:]) <= set(subcommands), line
        else:
            assert words[1] in subcommands, line
            command, rest = subcommands[words[1]], words[2:]
            if hasattr(command, "commands") and rest:  # of a group: `patchead cluster render`
                command, rest = command.commands[rest[0]], rest[1:]
            _check_options(command, rest, line)
    elif words[0] == "python" and not words[1].startswith("-"):
        _check_job(words[1:], line)
    elif words[0].startswith("jobs/") and words[0].endswith(".py"):
        _check_job(words, line)


def _check_job(words: list[str], line: str) -> None:
    job = ROOT / words[0]
    assert job.is_file() or words[0].startswith("/home/ray/"), line
    if job.stem in JOBS_OF_THE_CLI:
        _check_options(whole_command().commands[JOBS_OF_THE_CLI[job.stem]], words[1:], line)
    elif job.parent.name == "jobs" and len(words) > 1:
        of_its_own = typer.Typer()
        of_its_own.command()(importlib.import_module(job.stem).main)
        _check_options(typer.main.get_command(of_its_own), words[1:], line)


def _check_options(command: Any, words: list[str], line: str) -> None:
    known = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    for word, value in zip(words, [*words[1:], ""], strict=False):
        if word.startswith("--"):
            assert word in known, f"{line}: {word}"
        key = value.partition("=")[0]
        if word in ("--set", "--sweep") and "…" not in key:
            assert key in {*FIELDS, "SECTION.KEY", "section.key"}, f"{line}: {key}"
        if word in ("--config", "-c"):
            assert (ROOT / value).is_file() or value == "…" or value.startswith("/home/ray/"), f"{line}: {value}"
        if word == "--dataset":
            assert value in DATASETS or value == "…", f"{line}: {value}"


@every_page
def test_every_option_that_is_mentioned_alone_exists(page: Path) -> None:
    known = {option for command in whole_command().commands.values() for part in command.params for option in part.opts}
    of_others = {"--full", "--write", "--stop", "--no-deps"}  # of jobs/benchmark.py and study.py, ray exec, pip
    mentioned = set(re.findall(r"`(--[a-z-]+)", prose(page)))
    assert mentioned - of_others <= known


@every_page
def test_every_setting_that_is_mentioned_exists(page: Path) -> None:
    top = {key.partition(".")[0] for key in FIELDS}
    mentioned = re.findall(rf"`((?:{'|'.join(top)})\.[a-z_0-9]+)\b", prose(page))
    files = {"run.json", "run.py", "lake.py"}
    assert set(mentioned) - files - set(FIELDS) == set()


@every_page
def test_every_file_in_backticks_exists(page: Path) -> None:
    tops = "patchead|jobs|tests|cluster|docs"
    for name in re.findall(rf"`((?:{tops})/[\w./-]*\w/?)`", prose(page)):
        if page.name != "CHANGELOG.md":  # it tells what was
            assert (ROOT / name).exists(), name


@every_page
def test_no_address_of_a_machine_or_a_registry(page: Path) -> None:
    text = text_of(page)
    assert re.findall(r"/(?:work|tmp|root)/\S+|/home/(?!ray/)\S+", text) == []
    assert set(re.findall(r"\b(?:https?|git)://([\w.-]+)", text)) <= HOSTS


def test_python_in_the_documents_calls_what_is_there() -> None:
    parameters = inspect.signature(patchead.score).parameters
    found = [ast.parse(block) for page in PAGES for block in blocks(page, "python")]
    assert found
    for tree in found:
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "patchead.score":
                assert {keyword.arg for keyword in call.keywords} <= set(parameters)


def test_sql_in_the_documents_names_columns_that_are_there() -> None:
    columns = {name for described in DICTIONARY.values() for name, _, _ in described.columns} | {*ADDRESSES}
    others = [page for page in PAGES if page.name != "sql.md"]  # whose statements are run: e2e/test_sql.py
    found = [block for page in others for block in blocks(page, "sql")]
    assert found
    for block in found:
        words = set(re.findall(r"\b[a-z_]+\b", re.sub(r"--.*|'[^']*'", "", block)))
        assert words <= columns | set(DICTIONARY)


def test_every_exit_code_is_told() -> None:
    kinds: list[Any] = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.PatcheadError)} | {0, PUBLISHED_WITH_FAILURES}
    told = re.search(r"## Exit codes\n(.*?)\n## ", text_of(DOCS / "operations.md"), re.DOTALL)
    assert told is not None
    assert {int(code) for code in re.findall(r"^\| (\d) \|", told[1], re.MULTILINE)} == codes


@pytest.mark.parametrize("page", ["README.md", "docs/choosing.md"])
def test_figures_are_those_of_the_pages_that_the_commands_write(page: str) -> None:
    text = text_of(ROOT / page)
    start = text.index("## How good") if page == "README.md" else 0
    known = "".join(text_of(DOCS / name) for name in ("results.md", "performance.md"))
    figures = re.findall(r"(?<![\d.])(?<!arXiv )\d+\.\d{3,}(?![\d.])", text[start:])
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in known] == []


def test_a_row_of_the_readmes_results_is_a_row_of_the_results() -> None:
    """Cell by cell, without the range of the splits in brackets."""
    part = text_of(ROOT / "README.md").partition("## How good")[2].partition("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")][2:]
    there = [re.sub(r" \([^)]*\)", "", line) for line in text_of(DOCS / "results.md").splitlines()]
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert any(all(f"| {cell} |" in line for cell in cells) for line in there), row

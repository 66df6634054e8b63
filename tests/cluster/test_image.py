"""cluster/Dockerfile: what is copied exists, versions are the pinned ones, and it is all that is sent."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def instructions(root: Path) -> list[tuple[str, str]]:
    text = (root / "cluster/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def copied(instructions: list[tuple[str, str]]) -> list[str]:
    words = [arguments.split() for name, arguments in instructions if name == "COPY"]
    return [source for line in words for source in line[1:-1]]


def test_copies_the_package_and_nothing_else(instructions: list[tuple[str, str]], root: Path) -> None:
    sources = copied(instructions)
    assert sorted(sources) == ["README.md", "constraints.txt", "jobs", "patchead", "pyproject.toml"]
    assert all((root / source).exists() for source in sources)
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["readme"] in sources  # the build reads it


def test_only_what_is_copied_is_sent(instructions: list[tuple[str, str]], root: Path) -> None:
    rules = (root / "cluster/Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    assert sorted(rule.removeprefix("!") for rule in rules if rule.startswith("!")) == sorted(copied(instructions))


def test_dependencies_come_from_pyproject_by_the_constraints(
    instructions: list[tuple[str, str]], root: Path, constraints: dict[str, str]
) -> None:
    (step,) = [arguments for name, arguments in instructions if name == "RUN" and "tomllib" in arguments]
    assert "-r /tmp/requirements.txt -c constraints.txt" in step
    program = re.search(r'python -c "(.+?)" > /tmp/requirements.txt', step)
    assert program is not None
    printed = subprocess.run([sys.executable, "-c", program[1]], cwd=root, capture_output=True, text=True, check=True)
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras["report"][0] == "patchead[query]"
    needed = [*project["dependencies"], *extras["cluster"], *extras["query"], *extras["report"][1:]]
    assert printed.stdout.splitlines() == needed
    names = {re.split(r"[\[<>=]", requirement)[0].lower().replace("-", "_") for requirement in needed}
    assert names <= {name.lower().replace("-", "_") for name in constraints}


def test_ends_as_an_ordinary_user(instructions: list[tuple[str, str]]) -> None:
    assert [arguments for name, arguments in instructions if name == "USER"][-1] == "1000:100"

"""The command line: help, settings, exit codes that need no run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from patchead.settings import iter_fields

PATCHEAD = Path(sys.executable).parent / "patchead"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PATCHEAD, *arguments], capture_output=True, text=True, check=False, env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    "command", [[*name, "--help"] for name in ([], ["score"], ["plan"], ["calibrate"], ["query"], ["settings"])]
)
def test_help(command: list[str]) -> None:
    done = run(*command)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_help_names_the_exit_codes_and_imports_neither_ray_nor_torch() -> None:
    assert "3 published but some images failed" in " ".join(run("score", "--help").stdout.split())
    code = "import sys, patchead.cli; print({'ray', 'torch', 'duckdb'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_settings_lists_every_setting() -> None:
    printed = run("settings").stdout
    assert [key for key, _ in iter_fields() if key not in printed] == []


def test_missing_settings_are_exit_code_2_with_one_message() -> None:
    done = run("score")
    assert done.returncode == 2
    assert "archive.uri is required" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_flag_is_exit_code_2() -> None:
    assert run("score", "--nigth", "2026-11-21").returncode == 2


def test_a_query_of_an_empty_lake_is_one_message(tmp_path: Path) -> None:
    done = run("query", "SELECT 1", "--lake", str(tmp_path))
    assert done.returncode == 1
    assert "nothing is published" in done.stderr
    assert "Traceback" not in done.stderr

"""The command line: help, settings, exit codes that need no run."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from patchead.cli import app
from patchead.encoders.registry import REGISTRY
from patchead.errors import TooManyFailuresError
from patchead.nightly.run_record import RunRecord
from patchead.settings.load import iter_fields
from patchead.settings.model import Config
from tests.helpers.command import patchead

COMMANDS = ["score", "plan", "calibrate", "query", "evaluate", "encoders", "settings"]
COMMANDS += ["accept", "accepted", "feedback", "thresholds"]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_encoders_lists_every_name() -> None:
    printed = patchead("encoders").out
    assert [name for name in REGISTRY if name not in printed] == []


@pytest.mark.parametrize(("outcome", "code"), [(0, 0), (2, 3), (TooManyFailuresError("most of them"), 4)])
def test_how_the_images_went_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, outcome: int | Exception, code: int
) -> None:
    def run_night(config: Config, console: Console, executor: object, until: str) -> RunRecord:
        if isinstance(outcome, Exception):
            raise outcome
        state = "published" if until == "publish" else f"stopped after {until}"
        return RunRecord("run", config, state=state, images=5, ok=5 - outcome, failed=outcome)

    monkeypatch.setattr("patchead.nightly.run.run_night", run_night)
    done = patchead("score", "--archive", "a", "--lake", "b")
    assert done.code == code
    assert ("most of them" in done.err) == (code == 4)
    if code == 3:  # nothing is published by then
        assert patchead("score", "--archive", "a", "--lake", "b", "--until", "embed").code == 0


def test_help_names_the_exit_codes_and_imports_neither_ray_nor_torch() -> None:
    assert "3 published but some images failed" in " ".join(patchead("score", "--help").out.split())
    code = "import sys, patchead.cli; print({'ray', 'torch', 'duckdb'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_settings_lists_every_setting() -> None:
    printed = patchead("settings").out
    assert [key for key, _ in iter_fields() if key not in printed] == []
    assert "preset patchead: encoder.image_size=448, encoder.layers=last" in printed
    assert "preset musc: encoder.name=clip-l14-336, encoder.image_size=518, encoder.layers=quarters" in printed


def test_missing_settings_are_exit_code_2_with_one_message() -> None:
    """The console script itself, as a process."""
    script = Path(sys.executable).parent / "patchead"
    done = subprocess.run([script, "score"], capture_output=True, text=True, check=False, env={"COLUMNS": "200"})
    assert done.returncode == 2
    assert "archive.uri is required" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_flag_is_exit_code_2() -> None:
    assert patchead("score", "--nigth", "2026-11-21").code == 2


def test_a_query_of_an_empty_lake_is_one_message(tmp_path: Path) -> None:
    done = patchead("query", "SELECT 1", "--lake", str(tmp_path))
    assert done.code == 1
    assert "nothing is published" in done.err
    assert done.err.count("\n") == 1


def test_the_version_is_printed() -> None:
    assert patchead("--version") == (0, f"patchead {version('patchead')}\n", "")


def test_the_shell_completes_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_PATCHEAD_COMPLETE", "complete_bash"), ("COMP_WORDS", "patchead sql"), ("COMP_CWORD", "1")):
        monkeypatch.setenv(name, value)
    ended = CliRunner().invoke(app, [], prog_name="patchead")
    assert (ended.exit_code, ended.output.split()) == (0, ["sql-setup"])


@pytest.mark.parametrize(
    "command", ["watch --every", "watch --bytes-every", "runs --every", "submit --entrypoint-cpus"]
)
def test_options_take_finite_numbers(command: str) -> None:
    name, option = command.split()
    where = ["--address", "http://127.0.0.1:1"] if name == "submit" else ["--lake", "nowhere"]
    for value in ("nan", "inf"):
        done = patchead(name, *where, option, value)
        assert done.code == 2 and option in done.err, done.err

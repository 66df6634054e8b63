"""Imports go one way: jobs, cli → forecast, nightly → report, review, runtime, plan → the method, the data → base."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "patchead"
BASE = {"schema", "errors", "storage", "threads", "transfers", "atomic_files", "batches", "arrow_columns", "files"}
BASE |= {"hashing", "markdown"}
BASE |= {"redaction", "printed", "patient_s3", "retries", "kept_tables", "result_tables"}
NUMERICS = {"scoring", "search", "samples", "maps", "naming"}
ROOMS = NUMERICS | {"archive", "encoders", "lake"}
ALLOWED = {
    "result_tables": set(),
    "schema": {"result_tables"},
    "kept_tables": {"schema"},
    "states": {"schema"},
    "errors": set(),
    "threads": set(),
    "transfers": {"batches"},
    "atomic_files": set(),
    "batches": set(),
    "hashing": set(),
    "markdown": {"printed"},
    "redaction": set(),
    "printed": {"redaction"},
    "arrow_columns": {"hashing", "redaction"},
    "storage": {"errors", "patient_s3"},
    "patient_s3": {"errors", "retries"},
    "retries": set(),
    "files": {"atomic_files", "errors", "storage"},
    "scoring": BASE,
    "search": BASE | {"scoring"},
    "maps": BASE,
    "naming": BASE | {"scoring"},
    "archive": BASE,
    "encoders": BASE,
    "lake": BASE,
    "samples": BASE | {"archive", "encoders", "scoring", "search"},
    "settings": BASE | ROOMS,
    "local_samples": BASE | ROOMS,
    "local": BASE | ROOMS | {"local_samples"},
    "local_prompts": BASE | ROOMS | {"local", "local_samples"},
    "tuning": BASE | {"encoders", "naming"},
    "scored": BASE | ROOMS,
    "notebook": BASE | ROOMS | {"local", "local_prompts", "local_samples", "scored", "settings"},
    "evaluation": BASE | ROOMS | {"local", "local_prompts", "local_samples", "settings"},
    "plan": BASE | ROOMS,
    "runtime": BASE,
    "nightly": BASE | ROOMS | {"plan", "report", "review", "runtime", "settings", "tuning"},
    "forecast": BASE | ROOMS | {"plan", "review", "runtime", "settings", "nightly"},
    "report": BASE | ROOMS | {"settings"},
    "review": BASE | ROOMS | {"settings"},
    "commands": BASE | ROOMS | {"evaluation", "forecast", "nightly", "report", "review", "runtime", "settings"},
    "cli": BASE | ROOMS | {"commands", "evaluation", "forecast", "nightly", "runtime", "settings"},
    "__init__": {"notebook"},
    "__main__": {"cli"},
}
RAY = {"runtime", "nightly", "forecast"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


@lru_cache
def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names if name.split(".")[0] == "patchead"]
    top = {part[1] if len(part) > 1 else "__init__" for part in parts}
    return {
        name for name in top if name == "__init__" or (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_point_downwards(module: Path) -> None:
    upwards = own(imported(module)) - ALLOWED[room(module)] - {"__init__", room(module)}
    assert not upwards, f"{room(module)} may not import {sorted(upwards)}"


def test_ray_stays_in_its_rooms() -> None:
    users = {
        str(module.relative_to(PACKAGE))
        for module in MODULES
        if any(n.split(".")[0] == "ray" for n in imported(module))
    }
    strangers = {u for u in users if u.split("/")[0] not in RAY or (u.startswith("forecast") and "calibrate" not in u)}
    assert not strangers, f"Ray is for runtime/, nightly/ and forecast/calibrate: {sorted(strangers)}"


def test_numerics_do_no_input_or_output() -> None:
    barred = {"fsspec", "pyarrow", "deltalake", "PIL", "duckdb", "s3fs"}
    for module in MODULES:
        if room(module) in NUMERICS:
            assert not {name.split(".")[0] for name in imported(module)} & barred, module


def test_the_tasks_of_workers_start_without_what_they_do_not_need() -> None:
    """Every worker of a cluster imports the module of its task once: torch takes more than a second of it."""
    tasks = ", ".join(
        f"patchead.nightly.{name}" for name in ("bit_depth", "decode", "twins", "group", "explain", "explain_drawing")
    )
    heavy = {"torch", "timm", "ray", "scipy.stats", "scipy.cluster"}
    code = (
        f"import sys, {tasks}; print(*sorted({heavy} & set(sys.modules)))\n"
        "import patchead.runtime.ray_worker; print(*sorted({'ray.data', 's3fs', 'torch'} & set(sys.modules)))"
    )
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not started.stdout.strip()


def test_actors_start_without_the_parts_of_scipy_that_few_need() -> None:
    """The special functions take 0.3 s, sparse matrices, clusters and statistics as much again and more."""
    for module in MODULES:
        if room(module) in NUMERICS:
            at_once = ast.Module(ast.parse(module.read_text(encoding="utf-8")).body, [])
            at_once.body = [node for node in at_once.body if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {getattr(node, "module", None) or node.names[0].name for node in at_once.body}
            assert {name for name in names if name.split(".")[0] == "scipy"} <= {"scipy.special"}, module


def test_commands_that_need_a_lake_alone_start_without_torch_and_ray(tmp_path: Path) -> None:
    """The analyst waits for what she asked, not for three seconds of imports; one process has all imports of these."""
    commands = ["query SELECT", "runs", "accepted", "feedback labels.csv", "thresholds", "report"]
    code = (
        "import sys; from patchead.cli import main\n"
        f"for command in {commands}:\n"
        f"    sys.argv = ['patchead', *command.split(), '--lake', {str(tmp_path)!r}]\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        "    print(command, *sorted({'torch', 'timm', 'ray', 'scipy.stats'} & set(sys.modules)))"
    )
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line for line in started.stdout.splitlines() if line.startswith(tuple(commands))] == commands


def test_modules_are_small() -> None:
    lengths = sorted(len(module.read_text().splitlines()) for module in MODULES)
    assert lengths[-1] <= 300
    assert lengths[len(lengths) // 2] < 150


def test_no_room_is_a_hall() -> None:
    """A room of more than a sixth of the house is two rooms."""
    lines: dict[str, int] = {}
    for module in MODULES:
        lines[room(module)] = lines.get(room(module), 0) + len(module.read_text().splitlines())
    largest = max(lines, key=lines.__getitem__)
    assert lines[largest] <= 0.16 * sum(lines.values()), (
        f"{largest} has {lines[largest]} of {sum(lines.values())} lines"
    )


def test_no_two_test_files_have_one_name() -> None:
    """Pytest imports them by their names alone: the second of two is not collected in a fresh clone."""
    names = sorted(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]

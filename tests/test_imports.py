"""Imports go one way: jobs, cli → {pipeline, evaluation, notebook} → {encoders, archive, lake, numerics} → base."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "patchead"
BASE = {"schema", "errors", "storage", "threads"}
LAYERS = {"encoders", "archive", "lake", "numerics"}
ALLOWED = {
    "schema": set(),
    "errors": set(),
    "threads": set(),
    "storage": {"errors"},
    "config": {"errors"},
    "settings": {"config", "errors"},
    **{layer: BASE | {layer} for layer in LAYERS},
    "rules": BASE | LAYERS | {"config"},
    "sampling": BASE | LAYERS,
    "embedding": BASE | LAYERS | {"sampling"},
    "local": BASE | LAYERS | {"sampling", "embedding"},
    "notebook": BASE | LAYERS | {"local", "rules"},
    "evaluation": BASE | LAYERS | {"config", "settings", "local", "rules", "evaluation", "__init__"},
    "pipeline": BASE | LAYERS | {"config", "sampling", "embedding", "rules", "pipeline", "__init__"},
    "cli": {"settings", "pipeline", "evaluation", "errors", "config", "lake", "encoders"},
    "__init__": {"notebook"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def unit(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


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
    upwards = own(imported(module)) - ALLOWED[unit(module)] - {"__init__"}
    assert not upwards, f"{unit(module)} may not import {sorted(upwards)}"


def test_only_the_pipeline_knows_ray() -> None:
    users = {unit(module) for module in MODULES if any(n.split(".")[0] == "ray" for n in imported(module))}
    assert users == {"pipeline"}


def test_numerics_do_no_input_or_output() -> None:
    barred = {"fsspec", "pyarrow", "deltalake", "PIL", "duckdb", "s3fs"}
    for module in MODULES:
        if unit(module) == "numerics":
            assert not {name.split(".")[0] for name in imported(module)} & barred, module


def test_modules_are_small() -> None:
    lengths = sorted(len(module.read_text().splitlines()) for module in MODULES)
    assert lengths[-1] <= 400
    assert lengths[len(lengths) // 2] < 150

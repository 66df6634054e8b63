"""What the files in cluster/ name exists: versions, images, paths, flags, settings files, environment variables."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = (
    *("README.md", "Dockerfile", "aws.yaml", "kubernetes/rayjob.yaml", "kubernetes/cronjob.yaml"),
    *("kubernetes/launch.py", "local/two_nodes.py", "iam-policy.json", "observability/prometheus.yaml"),
    *("observability/podmonitor.yaml", "observability/rules.yaml", "observability/rules_test.yaml"),
    *("observability/dashboard.json", "values.yaml", "values/cpu.yaml", "values/spot.yaml", "Dockerfile.weights"),
)


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    return {name: (root / "cluster" / name).read_text(encoding="utf-8") for name in FILES}


def test_every_file_is_checked_and_described(root: Path, texts: dict[str, str]) -> None:
    found = {path.relative_to(root / "cluster").as_posix() for path in (root / "cluster").rglob("*") if path.is_file()}
    assert {name for name in found if "__pycache__" not in name} == {*FILES, "Dockerfile.dockerignore"}
    assert all(f"`{name}`" in texts["README.md"] for name in FILES if name != "README.md")


def test_images_have_the_pinned_versions(texts: dict[str, str], constraints: dict[str, str], root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    images = {image for text in texts.values() for image in re.findall(r"[\w./]+/(?:ray|patchead):[\w.-]+", text)}
    assert images == {
        f"rayproject/ray:{constraints['ray']}-py311-cu129",
        f"rayproject/ray:{constraints['ray']}-py311-cpu",
        *(f"registry.example.com/patchead:{project['version']}{variant}" for variant in ("", "-baked")),
    }
    assert not any(":latest" in text for text in texts.values())
    assert yaml.safe_load(texts["kubernetes/rayjob.yaml"])["spec"]["rayClusterSpec"]["rayVersion"] == constraints["ray"]
    assert f"Ray {constraints['ray']}, Python 3.11" in texts["README.md"]


@pytest.mark.parametrize("name", FILES)
def test_paths_exist(root: Path, texts: dict[str, str], name: str) -> None:
    roots = r"(?:cluster|jobs|patchead|tests)"
    paths = set(re.findall(rf"(?<![\w./:-])({roots}/[\w./-]*\w)(?![\w:])", texts[name]))
    # The same files as they lie in the image, on a node, and in the ConfigMap.
    paths |= set(re.findall(rf"(?:/opt|/home/ray)/patchead/({roots}/[\w./-]*\w)", texts[name]))
    paths -= {"patchead/night"}  # a label
    assert [path for path in sorted(paths) if not (root / path).exists()] == []


def test_job_has_the_flags(root: Path, texts: dict[str, str], commands: list[str]) -> None:
    helped = subprocess.run(
        [sys.executable, root / "jobs/nightly.py", "--help"],
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=True,
    )
    known = set(re.findall(r"(?<!\S)--[a-z-]+", helped.stdout))
    entrypoint = yaml.safe_load(texts["kubernetes/rayjob.yaml"])["spec"]["entrypoint"]
    used = [entrypoint, *(command for command in commands if "jobs/nightly.py" in command)]
    assert len(used) == 3
    for line in used:
        flags = set(re.findall(r"(?<!\S)--[a-z-]+", line.split("jobs/nightly.py")[1]))
        assert "--config" in flags
        assert flags <= known


def ray_flags(*names: str) -> set[str]:
    command: click.Command = importlib.import_module("ray.scripts.scripts").cli
    for name in names:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return {flag for parameter in command.params for flag in parameter.opts}


def test_ray_has_the_commands_and_flags(texts: dict[str, str], commands: list[str]) -> None:
    config: dict[str, Any] = yaml.safe_load(texts["aws.yaml"])
    lines = [*commands, *config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    seen = set()
    for line in lines:
        for name, rest in re.findall(r"\bray (job submit|exec|down|start|stop|get-auth-token)(.*?)(?= -- |\"|$)", line):
            seen.add(name)
            assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= ray_flags(*name.split()), line
    assert seen == {"job submit", "exec", "down", "start", "stop", "get-auth-token"}


def test_environment_variables_are_read_somewhere(root: Path, texts: dict[str, str]) -> None:
    package = "".join(path.read_text(encoding="utf-8") for path in (root / "patchead").rglob("*.py"))
    launcher = texts["kubernetes/launch.py"]
    ray = inspect.getsource(importlib.import_module("ray._private.authentication.authentication_token_setup"))
    named = set(re.findall(r"\b(?:AWS|RAY)_[A-Z_]+\b", "".join(texts.values())))
    assert named >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "RAY_AUTH_MODE"}
    assert all(name in package for name in named if name.startswith("AWS_"))
    # RAY_AUTH_TOKEN is read by Ray's C++ core: test_two_nodes.py sees that it counts. RAY_HEAD_IP is set by `ray up`.
    assert {name for name in named if name.startswith("RAY_")} - {"RAY_AUTH_TOKEN", "RAY_HEAD_IP"} == {"RAY_AUTH_MODE"}
    assert '"RAY_AUTH_MODE"' in ray
    assert "NIGHT=2026-11-20" in texts["README.md"]
    assert 'environ.get("NIGHT")' in launcher


def test_hand_made_rayjob_is_the_launchers(texts: dict[str, str], commands: list[str], rayjob: dict[str, Any]) -> None:
    (sed,) = [command for command in commands if command.startswith("sed ")]
    expression = sed.split("'")[1].replace("2026-11-20", "2026-11-21")
    done = subprocess.run(
        ["sed", expression], input=texts["kubernetes/rayjob.yaml"], capture_output=True, text=True, check=True
    )
    assert yaml.safe_load(done.stdout) == rayjob


def test_shell_lines_parse(root: Path, commands: list[str]) -> None:
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    for step in re.findall(r"^RUN (.+)$", (root / "cluster/Dockerfile").read_text().replace("\\\n", " "), re.M):
        subprocess.run(["sh", "-n", "-c", step], check=True)

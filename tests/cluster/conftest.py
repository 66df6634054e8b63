from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
NIGHT = "2026-11-21"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def rayjob_template() -> str:
    return (ROOT / "cluster/kubernetes/rayjob.yaml").read_text(encoding="utf-8")


@pytest.fixture
def rayjob(rayjob_template: str) -> dict[str, Any]:
    return yaml.safe_load(rayjob_template.replace("${NIGHT}", NIGHT))


@pytest.fixture
def manifests() -> dict[str, dict[str, Any]]:
    """The objects of cronjob.yaml by kind."""
    documents = list(yaml.safe_load_all((ROOT / "cluster/kubernetes/cronjob.yaml").read_text(encoding="utf-8")))
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


@pytest.fixture(scope="session")
def commands() -> list[str]:
    """The shell lines of cluster/README.md."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "cluster/README.md").read_text(encoding="utf-8"), re.S)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture(scope="session")
def constraints() -> dict[str, str]:
    """Pinned versions for the Python of the images, 3.11."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": "3.11"})]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}

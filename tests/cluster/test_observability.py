"""Alert rules, their cases and the dashboard name what is really exported; promtool finds no fault in them (slow)."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from patchead.runtime.metrics import METRICS, OF_A_LAKE, exported_name
from tests.helpers.prometheus import tool

RAYS_OWN = {"ray_node_gpus_utilization", "ray_node_cpu_utilization", "ray_spill_manager_objects_bytes"}


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "cluster/observability"


@pytest.fixture(scope="module")
def rules(folder: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((folder / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def panels(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "dashboard.json").read_text(encoding="utf-8"))["panels"]


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:ray|patchead)_\w+", expression))


def test_every_metric_that_is_asked_for_is_exported(rules: list[dict[str, Any]], panels: list[dict[str, Any]]) -> None:
    known = {exported_name(name) for name in METRICS} | set(OF_A_LAKE) | RAYS_OWN
    asked = [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]
    named = set[str]().union(*map(metrics_in, asked))
    assert named <= known, named - known
    assert known <= named, f"nobody looks at {known - named}"
    agent = inspect.getsource(importlib.import_module("ray.dashboard.modules.reporter.reporter_agent"))
    assert all(f'"{name.removeprefix("ray_")}"' in agent for name in RAYS_OWN if "node" in name)


def test_there_are_alerts_for_what_goes_wrong_each_with_a_case(folder: Path, rules: list[dict[str, Any]]) -> None:
    alerts = [rule["alert"] for rule in rules]
    assert len(alerts) == len(set(alerts)) >= 10
    assert all(rule["labels"]["severity"] in ("warning", "critical") for rule in rules)
    tests = yaml.safe_load((folder / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case.get("exp_alerts")) == fires} == set(alerts)


def test_panels_do_not_overlap_and_have_one_data_source(panels: list[dict[str, Any]]) -> None:
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert {target["datasource"]["uid"] for panel in panels for target in panel["targets"]} == {"${datasource}"}


def test_pods_are_scraped_where_they_listen(folder: Path) -> None:
    monitor = yaml.safe_load((folder / "podmonitor.yaml").read_text(encoding="utf-8"))
    assert monitor["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": "patchead"}
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


@pytest.mark.slow  # Debian's prometheus, which `make test-slow` fetches; what the rules name is checked above
@pytest.mark.parametrize(
    "words",
    [("check", "config", "prometheus.yaml"), ("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")],
)
def test_promtool_finds_no_fault(folder: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run([tool("promtool"), *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_promtool_sees_a_wrong_limit(folder: Path, tmp_path: Path) -> None:
    for name in ("rules.yaml", "rules_test.yaml"):
        text = (folder / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("> 14400", "> 144000"), encoding="utf-8")
    command = [tool("promtool"), "test", "rules", "rules_test.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0

"""`patchead cluster render` for three values files, against the schemas of Kubernetes and of KubeRay."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from patchead.commands.cluster_values import Values, read_values
from patchead.errors import SettingsError
from patchead.settings.load import load_config
from tests.cluster.test_kubernetes import RAYJOB, VERSIONS
from tests.helpers.command import patchead

FILES = {"gpu": "values.yaml", "cpu": "values/cpu.yaml", "spot": "values/spot.yaml"}
_LABELLED = {"type": "object", "required": ["name", "namespace", "labels"]}
_ENDPOINT = {
    "type": "object",
    "required": ["port"],
    "additionalProperties": False,
    "properties": {"port": {"type": "string"}, "interval": {"type": "string"}, "metricRelabelings": {"type": "array"}},
}
#: The operator's own kinds, whose schemas no package carries: the fields that are used, and no others.
MONITORS = {
    "PodMonitor": {
        "type": "object",
        "required": ["selector", "podMetricsEndpoints"],
        "additionalProperties": False,
        "properties": {"selector": {"type": "object"}, "podMetricsEndpoints": {"type": "array", "items": _ENDPOINT}},
    },
    "PrometheusRule": {
        "type": "object",
        "required": ["groups"],
        "additionalProperties": False,
        "properties": {"groups": {"type": "array", "items": {"type": "object", "required": ["name", "rules"]}}},
    },
}


class Rendered:
    """The objects of one values file."""

    def __init__(self, folder: Path) -> None:
        names = ("cronjob.yaml", "extras.yaml", "configmap.yaml")
        found = [each for name in names for each in yaml.safe_load_all((folder / name).read_text(encoding="utf-8"))]
        self.objects = {f"{each['kind']}/{each['metadata']['name']}": each for each in found}
        assert len(self.objects) == len(found)
        self.template = (folder / "rayjob.yaml").read_text(encoding="utf-8")
        self.rayjob = yaml.safe_load(self.template.replace("${NIGHT}", "2026-11-21"))
        self.aws = yaml.safe_load((folder / "aws.yaml").read_text(encoding="utf-8"))
        self.data = self.objects["ConfigMap/patchead-nightly"]["data"]

    @property
    def pods(self) -> dict[str, dict[str, Any]]:
        cluster = self.rayjob["spec"]["rayClusterSpec"]
        (workers,) = cluster["workerGroupSpecs"]
        return {"head": cluster["headGroupSpec"]["template"], "workers": workers["template"]}


@pytest.fixture(scope="module")
def rendered(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rendered]:
    found = {}
    for name, file in FILES.items():
        folder = tmp_path_factory.mktemp(name) / "out"
        words = ("cluster", "render", str(folder), "--values", str(root / "cluster" / file))
        ended = patchead(*words, "--templates", str(root / "cluster"))
        assert ended.code == 0, ended.err
        assert len(ended.out.splitlines()) == 5
        found[name] = Rendered(folder)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_every_object_is_valid(rendered: dict[str, Rendered], name: str, version: str) -> None:
    of = rendered[name]
    for key, each in of.objects.items():
        if (kind := key.split("/")[0]) in MONITORS:
            jsonschema.validate(each["metadata"], _LABELLED)
            jsonschema.validate(each["spec"], MONITORS[kind])
        else:
            kubernetes_validate.validate(each, version, strict=True)
    jsonschema.validate(of.rayjob, RAYJOB)
    for pod in of.pods.values():
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": pod}
        kubernetes_validate.validate(template, version, strict=True)


@pytest.mark.parametrize("name", FILES)
def test_settings_scripts_and_aws_are_what_their_readers_take(
    rendered: dict[str, Rendered], name: str, tmp_path: Path, root: Path
) -> None:
    of = rendered[name]
    (tmp_path / "nightly.yaml").write_text(of.data["nightly.yaml"], encoding="utf-8")
    config = load_config(tmp_path / "nightly.yaml")
    workers = of.rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    gpus = 0 if name == "cpu" else workers["replicas"]
    assert config.resources.expect_gpus == (gpus or None)
    assert of.data["rayjob.yaml"] == of.template
    assert of.data["launch.py"] == (root / "cluster/kubernetes/launch.py").read_text(encoding="utf-8")
    assert "${NIGHT}" in of.template
    validate_config(prepare_config(of.aws))
    assert of.aws["max_workers"] == workers["replicas"]


def test_the_built_in_values_are_those_of_the_file(root: Path) -> None:
    assert read_values(root / "cluster/values.yaml") == Values() == read_values(None)


def test_with_gpus_the_template_is_as_it_was_but_for_what_the_values_add(
    rendered: dict[str, Rendered], rayjob: dict[str, Any]
) -> None:
    found = rendered["gpu"].rayjob
    added = {"priorityClassName": "patchead-nightly", "terminationGracePeriodSeconds": 60}
    for pod in rendered["gpu"].pods.values():
        for key, value in added.items():
            assert pod["spec"].pop(key) == value
    assert found == rayjob


def test_without_gpus_nothing_asks_for_one_and_the_weights_are_in_the_image(rendered: dict[str, Rendered]) -> None:
    of = rendered["cpu"]
    assert "nvidia" not in of.template
    assert "weights: /opt/patchead/weights/encoder.safetensors" in of.data["nightly.yaml"]
    for pod in of.pods.values():
        (container,) = pod["spec"]["containers"]
        assert container["image"].endswith(":0.1.0-baked")
        assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container["env"]
    assert of.aws["available_node_types"]["gpu"]["resources"] == {"CPU": 16}
    assert of.aws["docker"]["image"].endswith("-cpu")
    assert not [key for key in of.objects if key.startswith(("PodMonitor", "PrometheusRule", "Deployment"))]


def test_spot_machines_are_a_preference_and_keys_an_identity(rendered: dict[str, Rendered]) -> None:
    of = rendered["spot"]
    pod = of.pods["workers"]["spec"]
    assert set(pod["affinity"]["nodeAffinity"]) == {"preferredDuringSchedulingIgnoredDuringExecution"}
    assert {"key": "spot", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert "affinity" not in of.pods["head"]["spec"]  # losing the head loses the night
    account = of.objects["ServiceAccount/patchead-node"]
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
    pods = [*of.pods.values(), of.objects["Deployment/patchead-watch"]["spec"]["template"]]
    for each in pods:
        (container,) = each["spec"]["containers"]
        assert each["spec"]["serviceAccountName"] == "patchead-node"
        assert "envFrom" not in container
        assert re.fullmatch(r"[\w./:-]+@sha256:[0-9a-f]{64}", container["image"])
    assert "patchead-s3" not in of.template
    assert of.aws["available_node_types"]["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in of.aws["available_node_types"]["head"]["node_config"]


def test_nobody_else_reaches_the_nodes(rendered: dict[str, Rendered]) -> None:
    policy = rendered["cpu"].objects["NetworkPolicy/patchead"]["spec"]
    own, operator, monitoring = policy["ingress"]
    assert own["from"] == [{"podSelector": policy["podSelector"]}]
    assert [port["port"] for port in operator["ports"]] == [8265]
    assert [port["port"] for port in monitoring["ports"]] == [8080]
    assert all("namespaceSelector" in each["from"][0] for each in (operator, monitoring))
    assert {port["port"] for port in policy["egress"][-1]["ports"]} == {443, 6443, 8333}
    labels = rendered["cpu"].pods["head"]["metadata"]["labels"].items()
    assert labels >= policy["podSelector"]["matchLabels"].items()


def test_budgets_and_priority(rendered: dict[str, Rendered]) -> None:
    objects = rendered["gpu"].objects
    assert objects["PodDisruptionBudget/patchead-head"]["spec"]["maxUnavailable"] == 0
    assert objects["PodDisruptionBudget/patchead-workers"]["spec"]["maxUnavailable"] == 1
    assert objects["PriorityClass/patchead-nightly"]["preemptionPolicy"] == "Never"


def test_metrics_ports_are_those_that_are_scraped(rendered: dict[str, Rendered]) -> None:
    of = rendered["gpu"]
    (endpoint,) = of.objects["PodMonitor/patchead"]["spec"]["podMetricsEndpoints"]
    for pod in [*of.pods.values(), of.objects["Deployment/patchead-watch"]["spec"]["template"]]:
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert ports[endpoint["port"]] == 8080


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("worker: {replicas: 2}", "worker: Extra inputs"),
        ("workers: {replicas: 0}", "workers.replicas"),
        ("schedule: '*/5 * * * *'", "MINUTE HOUR"),
        ("image: {digest: sha256:12}", "image.digest"),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "values.yaml").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(told)):
        read_values(tmp_path / "values.yaml")
    ended = patchead("cluster", "render", str(tmp_path / "out"), "--templates", str(tmp_path))
    assert (ended.code, "--templates" in ended.err) == (2, True)

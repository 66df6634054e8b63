"""The Kubernetes objects against the published schemas, KubeRay's v1 types and rules, and each other."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

VERSIONS = ("1.31", kubernetes_validate.latest_version())
GIB = 2**30

# KubeRay's ray.io/v1 types: what RayJobSpec, RayClusterSpec, HeadGroupSpec and WorkerGroupSpec may hold, as far as a
# job that brings its own cluster can use it. Everything else is refused, as the API server refuses (or drops) it.
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_TEMPLATE = {"type": "object", "required": ["spec"]}  # checked as a pod template below


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


_HEAD = _object(["rayStartParams", "template"], rayStartParams=_STRINGS, template=_TEMPLATE, serviceType={})
_WORKERS = _object(
    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
    groupName={"type": "string"},
    replicas={"type": "integer"},
    minReplicas={"type": "integer"},
    maxReplicas={"type": "integer"},
    numOfHosts={"type": "integer"},
    rayStartParams=_STRINGS,
    template=_TEMPLATE,
)
_CLUSTER = _object(
    ["headGroupSpec"],
    rayVersion={"type": "string"},
    authOptions=_object([], mode={"enum": ["disabled", "token"]}, secretName={"type": "string"}),
    enableInTreeAutoscaling={"type": "boolean"},
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
_SPEC = _object(
    ["entrypoint", "rayClusterSpec"],
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypoint={"type": "string"},
    runtimeEnvYAML={"type": "string"},
    jobId={"type": "string"},
    metadata=_STRINGS,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    backoffLimit={"type": "integer", "minimum": 0},
    activeDeadlineSeconds={"type": "integer", "exclusiveMinimum": 0},
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished={"type": "integer", "minimum": 0},
    suspend={"type": "boolean"},
    rayClusterSpec=_CLUSTER,
)
RAYJOB = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_object(["name"], name={"type": "string"}, namespace={"type": "string"}, labels=_STRINGS),
    spec=_SPEC,
)


def groups(rayjob: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    return {"head": cluster["headGroupSpec"], "workers": workers}


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return only


@pytest.mark.parametrize("version", VERSIONS)
def test_built_in_objects_are_valid(manifests: dict[str, dict[str, Any]], version: str) -> None:
    assert set(manifests) == {"Namespace", "ServiceAccount", "Role", "RoleBinding", "CronJob"}
    for document in manifests.values():
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_of_the_rayjob_are_valid(rayjob: dict[str, Any], version: str) -> None:
    for group in groups(rayjob).values():
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
        kubernetes_validate.validate(template, version, strict=True)
        broken = copy.deepcopy(template)
        broken["template"]["spec"]["containers"][0]["volumeMount"] = []
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, version, strict=True)


def test_rayjob_has_the_fields_of_kuberay(rayjob: dict[str, Any]) -> None:
    jsonschema.validate(rayjob, RAYJOB)
    rayjob["spec"]["ttlSecondsAfterFinish"] = 60
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(rayjob, RAYJOB)


def test_rayjob_ends_its_cluster(rayjob: dict[str, Any]) -> None:
    spec = rayjob["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 600
    assert 0 < spec["activeDeadlineSeconds"] < 24 * 3600
    assert spec["backoffLimit"] >= 1


def test_rayjob_name_fits(rayjob: dict[str, Any]) -> None:
    # KubeRay: at most 47 characters, a DNS 1035 label; the launcher adds a dash and 8 characters.
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", rayjob["metadata"]["name"])
    assert len(rayjob["metadata"]["name"]) + 9 <= 47


def test_head_takes_no_work_and_workers_are_a_fixed_number(rayjob: dict[str, Any]) -> None:
    head, workers = groups(rayjob).values()
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert not any("gpu" in resource for resource in container(head)["resources"]["limits"])
    assert container(workers)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] > 1
    assert rayjob["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is False
    assert rayjob["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", ["head", "workers"])
def test_every_node_has_keys_settings_and_shared_memory(rayjob: dict[str, Any], name: str) -> None:
    group = groups(rayjob)[name]
    ray = container(group)
    assert ray["envFrom"] == [{"secretRef": {"name": "patchead-s3"}}]
    assert ray["resources"]["requests"] == ray["resources"]["limits"]
    mounts = {mount["mountPath"]: mount["name"] for mount in ray["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
    assert set(mounts.values()) == set(volumes)
    shared = volumes[mounts["/dev/shm"]]["emptyDir"]
    assert shared["medium"] == "Memory"
    # Ray's object store takes 30 % of the memory unless /dev/shm is smaller: then it would spill to disk.
    assert 0.3 <= gib(shared["sizeLimit"]) / gib(ray["resources"]["limits"]["memory"]) <= 0.5
    assert volumes[mounts["/etc/patchead"]]["configMap"]["name"] == "patchead-nightly"


def gib(quantity: str) -> float:
    assert quantity.endswith("Gi")
    return float(quantity.removesuffix("Gi"))


@pytest.mark.parametrize(("job", "shell"), [(0, 0), (3, 0), (1, 1), (2, 1), (4, 1), (137, 1)])
def test_entrypoint_ends_well_only_when_published(rayjob: dict[str, Any], tmp_path: Path, job: int, shell: int) -> None:
    # Ray runs an entrypoint as subprocess.Popen(entrypoint, shell=True).
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nexit {job}\n')
    python.chmod(0o755)
    entrypoint = rayjob["spec"]["entrypoint"]
    done = subprocess.run(entrypoint, shell=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    assert done.returncode == shell
    assert (tmp_path / "arguments").read_text().split() == [
        *("/opt/patchead/jobs/nightly.py", "--config", "/etc/patchead/nightly.yaml"),
        *("--night", "2026-11-21", "--run-id", "nightly-2026-11-21"),
    ]


def test_shells_in_between_would_break_the_mapping(rayjob: dict[str, Any]) -> None:
    # K8sJobMode and SidecarMode put the entrypoint, unquoted, at the end of a `ray job submit` line in a shell.
    assert rayjob["spec"]["submissionMode"] == "HTTPMode"


def test_cronjob_lets_no_two_nights_overlap(manifests: dict[str, dict[str, Any]]) -> None:
    spec = manifests["CronJob"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["timeZone"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", spec["schedule"])
    assert 600 <= spec["startingDeadlineSeconds"] < 24 * 3600
    job = spec["jobTemplate"]["spec"]
    # A deadline of the Job's own would end the waiting, and with it Forbid, before the RayJob has ended.
    assert "activeDeadlineSeconds" not in job
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # what podFailurePolicy requires


def test_launcher_reads_what_the_configmap_holds(
    manifests: dict[str, dict[str, Any]], rayjob: dict[str, Any], commands: list[str], root: Path
) -> None:
    (create,) = [command for command in commands if command.startswith("kubectl create configmap")]
    assert create.split()[3:6] == ["patchead-nightly", "-n", "patchead"]
    files = {Path(path).name: root / path for path in re.findall(r"--from-file=(\S+)", create)}
    assert set(files) == {"rayjob.yaml", "launch.py", "nightly.yaml"}
    assert all(path.is_file() for path in files.values())

    pod = manifests["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (launch,) = pod["containers"]
    (mount,) = launch["volumeMounts"]
    (volume,) = pod["volumes"]
    assert volume == {"name": mount["name"], "configMap": {"name": "patchead-nightly"}}
    assert launch["command"] == ["python", *(f"{mount['mountPath']}/{name}" for name in ("launch.py", "rayjob.yaml"))]
    for group in groups(rayjob).values():
        (settings,) = [volume for volume in group["template"]["spec"]["volumes"] if "configMap" in volume]
        assert {item["key"] for item in settings["configMap"]["items"]} == {"nightly.yaml"} <= set(files)


def test_everything_is_in_one_namespace(manifests: dict[str, dict[str, Any]], rayjob: dict[str, Any]) -> None:
    namespace = manifests["Namespace"]["metadata"]["name"]
    for document in [*manifests.values(), rayjob]:
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == namespace
    binding, account = manifests["RoleBinding"], manifests["ServiceAccount"]["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    assert binding["roleRef"]["name"] == manifests["Role"]["metadata"]["name"]
    pod = manifests["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account

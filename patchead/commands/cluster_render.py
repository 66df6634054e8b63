"""From values to the files of one cluster: the templates of cluster/, with what differs filled in."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from patchead.commands.cluster_parts import extras
from patchead.commands.cluster_values import Values
from patchead.errors import SettingsError

Object = dict[str, Any]
NAME = "app.kubernetes.io/name"
FILES = ("cronjob.yaml", "rayjob.yaml", "extras.yaml", "configmap.yaml", "aws.yaml")
"""What is written; cronjob, extras and configmap are for `kubectl apply`, the RayJob lies in the ConfigMap."""


def render(values: Values, templates: Path) -> dict[str, str]:
    """Make the files of a cluster, by name, as YAML.

    Args:
        values: of the cluster.
        templates: the folder cluster/ of the repository.

    Raises:
        SettingsError: a template is missing.
    """
    texts = {
        name: _read(templates / name) for name in ("kubernetes/rayjob.yaml", "kubernetes/cronjob.yaml", "aws.yaml")
    }
    launcher = _read(templates / "kubernetes/launch.py")
    rules = yaml.safe_load(_read(templates / "observability/rules.yaml"))
    monitor = yaml.safe_load(_read(templates / "observability/podmonitor.yaml"))
    settings = _dumped(settings_of(values, yaml.safe_load(_read(templates.parent / "jobs/configs/nightly.yaml"))))
    rayjob = _dumped(_rayjob(values, yaml.safe_load(texts["kubernetes/rayjob.yaml"])))
    objects = [_cronjob(values, each) for each in yaml.safe_load_all(texts["kubernetes/cronjob.yaml"])]
    configmap = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "patchead-nightly", "namespace": values.namespace, "labels": {NAME: "patchead"}},
        "data": {"rayjob.yaml": rayjob, "launch.py": launcher, "nightly.yaml": settings},
    }
    return {
        "cronjob.yaml": _all(objects),
        "rayjob.yaml": rayjob,
        "extras.yaml": _all(extras(values, rules, monitor)),
        "configmap.yaml": _dumped(configmap),
        "aws.yaml": _dumped(_aws(values, yaml.safe_load(texts["aws.yaml"]))),
    }


def settings_of(values: Values, nightly: Mapping[str, Any]) -> Object:
    """Lay the settings of the values over those of the nightly job."""
    found: Object = copy.deepcopy(dict(nightly))
    gpus = values.workers.replicas * values.workers.gpus
    found["resources"] = {"expect_gpus": gpus} if gpus else {"cpus_per_actor": min(4, values.workers.size.cpu)}
    if values.weights == "baked":
        found.setdefault("encoder", {})["weights"] = "/opt/patchead/weights/encoder.safetensors"
    for key, value in values.settings.items():
        section, _, name = key.partition(".")
        within = found.setdefault(section, {}) if name else found
        if value is None:
            within.pop(name or section, None)
        else:
            within[name or section] = value
    return found


def _rayjob(values: Values, rayjob: Object) -> Object:
    rayjob["metadata"]["namespace"] = values.namespace
    spec = rayjob["spec"]
    spec["activeDeadlineSeconds"] = int(3600 * values.hours)
    cluster = spec["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    _pod(values, head["template"]["spec"], values.head.cpu, values.head.memory_gib, values.head.shared_memory, gpus=0)
    size, count = values.workers.size, values.workers.replicas
    pod = workers["template"]["spec"]
    _pod(values, pod, size.cpu, size.memory_gib, size.shared_memory, gpus=values.workers.gpus)
    workers |= {"groupName": "gpu" if values.workers.gpus else "cpu"}
    workers |= dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), count)
    if not values.workers.gpus:
        pod.pop("tolerations")
    if values.workers.node_selector:
        pod["nodeSelector"] = dict(values.workers.node_selector)
    if values.workers.spot.enabled:
        _prefer_spot(values, pod)
    return rayjob


def _pod(values: Values, pod: Object, cpu: int, memory_gib: int, shared: str, *, gpus: int) -> None:
    (container,) = pod["containers"]
    container["image"] = values.image.reference
    resources: Object = {"cpu": str(cpu), "memory": f"{memory_gib}Gi"}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
    container["resources"] = {"requests": dict(resources), "limits": dict(resources)}
    if values.access.secret:
        container["envFrom"] = [{"secretRef": {"name": values.access.secret}}]
    else:
        container.pop("envFrom")
    if values.weights == "baked":
        container["env"] = [{"name": "HF_HUB_OFFLINE", "value": "1"}]
    if values.access.service_account:
        pod["serviceAccountName"] = values.access.service_account
    if values.image.pull_secret:
        pod["imagePullSecrets"] = [{"name": values.image.pull_secret}]
    if values.priority:
        pod["priorityClassName"] = values.priority.name
    # SIGTERM lets a run finish its unit: run.grace_seconds, and some for the raylet.
    pod["terminationGracePeriodSeconds"] = 60
    for volume in pod["volumes"]:
        if "emptyDir" in volume:
            volume["emptyDir"] = {"medium": "Memory", "sizeLimit": shared}


def _prefer_spot(values: Values, pod: Object) -> None:
    """Machines that may be taken away first; where there are none, the others: a preference, no condition."""
    spot = values.workers.spot
    match = {"key": spot.node_label, "operator": "In", "values": [spot.value]}
    preferred = [{"weight": 100, "preference": {"matchExpressions": [match]}}]
    pod["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    if spot.taint:
        tolerated = {"key": spot.taint, "operator": "Exists", "effect": "NoSchedule"}
        pod["tolerations"] = [*pod.get("tolerations", []), tolerated]


def _cronjob(values: Values, each: Object) -> Object:
    if each["kind"] == "Namespace":
        each["metadata"]["name"] = values.namespace
        return each
    each["metadata"]["namespace"] = values.namespace
    if each["kind"] == "RoleBinding":
        each["subjects"][0]["namespace"] = values.namespace
    if each["kind"] == "CronJob":
        each["spec"] |= {"schedule": values.schedule, "timeZone": values.time_zone}
        pod = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        pod["containers"][0]["image"] = values.image.reference
        if values.image.pull_secret:
            pod["imagePullSecrets"] = [{"name": values.image.pull_secret}]
    return each


def _aws(values: Values, config: Object) -> Object:
    config["provider"]["region"] = values.aws.region
    config["max_workers"] = config["upscaling_speed"] = values.workers.replicas
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    head["node_config"] |= {"InstanceType": values.aws.head_type, "ImageId": values.aws.ami}
    gpu |= dict.fromkeys(("min_workers", "max_workers"), values.workers.replicas)
    gpu["node_config"] |= {"InstanceType": values.aws.worker_type, "ImageId": values.aws.ami}
    gpu["resources"] = {"CPU": values.workers.size.cpu}
    if values.workers.gpus:
        gpu["resources"]["GPU"] = values.workers.gpus
    if values.workers.spot.enabled:
        gpu["node_config"]["InstanceMarketOptions"] = {"MarketType": "spot"}
    if not values.workers.gpus:
        config["docker"]["image"] = config["docker"]["image"].replace("-cu129", "-cpu")
    return config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise SettingsError(
            f"cannot read the template {path}: {exc.strerror}. Name the folder cluster/ of the repository: --templates."
        ) from exc


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out: an anchor is of no use to who reads the result."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Quote what is filled in later: a night without quotes would be a date, and no text."""
    style = '"' if "${" in text and "\n" not in text else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)


def _dumped(value: Any) -> str:
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


def _all(objects: Iterator[Object] | list[Object]) -> str:
    return "---\n".join(map(_dumped, objects))

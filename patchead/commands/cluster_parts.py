"""The objects of a cluster beside its nights: who may talk to whom, who goes first, who watches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patchead.commands.cluster_values import Values

Object = dict[str, Any]
_LABELS = {"app.kubernetes.io/name": "patchead"}
_NAMESPACE = "kubernetes.io/metadata.name"
METRICS_PORT, DASHBOARD_PORT = 8080, 8265


def extras(values: Values, rules: Object, monitor: Object) -> Iterator[Object]:
    """Make the objects, each only where the values want it.

    Args:
        values: of the cluster.
        rules: of cluster/observability/rules.yaml.
        monitor: cluster/observability/podmonitor.yaml.
    """
    if values.priority:
        yield {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": values.priority.name, "labels": dict(_LABELS)},
            "value": values.priority.value,
            "preemptionPolicy": "PreemptLowerPriority" if values.priority.preempts else "Never",
            "description": "Nights of patchead",
        }
    if values.access.service_account:
        account = _object(values, "v1", "ServiceAccount", values.access.service_account)
        account["metadata"]["annotations"] = dict(values.access.annotations)
        yield account
    # Nobody drains the head while a night runs; a worker at a time may go, and its units are done by the others.
    yield _budget(values, "patchead-head", "head", 0)
    yield _budget(values, "patchead-workers", "worker", 1)
    if values.network_policy:
        yield _network_policy(values)
    if values.monitoring.enabled:
        yield _watch(values)
        monitor["metadata"]["namespace"] = values.namespace
        monitor["metadata"]["labels"] |= values.monitoring.rule_labels
        yield monitor
        rule = _object(values, "monitoring.coreos.com/v1", "PrometheusRule", "patchead")
        rule["metadata"]["labels"] |= values.monitoring.rule_labels
        yield rule | {"spec": rules}


def _object(values: Values, version: str, kind: str, name: str) -> Object:
    metadata = {"name": name, "namespace": values.namespace, "labels": dict(_LABELS)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _budget(values: Values, name: str, node: str, most: int) -> Object:
    selector = {"matchLabels": {**_LABELS, "ray.io/node-type": node}}
    budget = _object(values, "policy/v1", "PodDisruptionBudget", name)
    return budget | {"spec": {"maxUnavailable": most, "selector": selector}}


def _network_policy(values: Values) -> Object:
    """Nodes talk to each other; Prometheus reads metrics, the operator submits; out goes DNS, HTTPS and the store."""
    own = {"podSelector": {"matchLabels": dict(_LABELS)}}

    def of(namespace: str) -> Object:
        return {"namespaceSelector": {"matchLabels": {_NAMESPACE: namespace}}}

    def ports(*numbers: int, protocol: str = "TCP") -> list[Object]:
        return [{"protocol": protocol, "port": number} for number in numbers]

    endpoint = str(values.settings.get("storage.endpoint_url", ""))
    store = endpoint.rpartition(":")[2].split("/")[0]
    outside = [443, 6443, *([int(store)] if store.isdigit() else [])]  # 6443: the API server, for the launcher
    spec = {
        "podSelector": {"matchLabels": dict(_LABELS)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [own]},
            {"from": [of(values.operator_namespace)], "ports": ports(DASHBOARD_PORT)},
            {"from": [of(values.monitoring.namespace)], "ports": ports(METRICS_PORT)},
        ],
        "egress": [
            {"to": [own]},
            {"to": [{"namespaceSelector": {}}], "ports": ports(53, protocol="UDP") + ports(53)},
            {"ports": ports(*outside)},
        ],
    }
    return _object(values, "networking.k8s.io/v1", "NetworkPolicy", "patchead") | {"spec": spec}


def _watch(values: Values) -> Object:
    """`patchead watch`: a small pod that outlives the nights."""
    lake = str(values.settings.get("lake.uri", "s3://factory-lake/patchead"))
    words = ["patchead", "watch", "--lake", lake, "--host", "0.0.0.0", "--port", str(METRICS_PORT)]
    if endpoint := values.settings.get("storage.endpoint_url"):
        words += ["--set", f"storage.endpoint_url={endpoint}"]
    container: Object = {
        "name": "watch",
        "image": values.image.reference,
        "command": words,
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if values.access.secret:
        container["envFrom"] = [{"secretRef": {"name": values.access.secret}}]
    pod: Object = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if values.access.service_account:
        pod["serviceAccountName"] = values.access.service_account
    if values.image.pull_secret:
        pod["imagePullSecrets"] = [{"name": values.image.pull_secret}]
    labels = {**_LABELS, "app.kubernetes.io/component": "watch"}
    watch = _object(values, "apps/v1", "Deployment", "patchead-watch")
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": dict(labels)},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return watch | {"spec": spec}

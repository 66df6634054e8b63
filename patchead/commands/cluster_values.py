"""What a platform engineer chooses of a cluster: `cluster/values.yaml`, checked as a whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from patchead.errors import SettingsError
from patchead.settings.yaml_text import parse_yaml

Text = dict[str, str]
Count = Annotated[int, Field(ge=1)]


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Image(_Values):
    """Name the image of every pod."""

    repository: str = "registry.example.com/patchead"
    tag: str = "0.1.0"
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """Pins the image, whatever the tag is moved to; `docker buildx imagetools inspect` prints it."""
    pull_secret: str | None = None
    """Name of a Secret of type kubernetes.io/dockerconfigjson."""

    @property
    def reference(self) -> str:
        """Give the image as a pod names it."""
        return f"{self.repository}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


class Size(_Values):
    """Say what one pod takes."""

    cpu: Count
    memory_gib: Count

    @property
    def shared_memory(self) -> str:
        """Give the size of /dev/shm: Ray's object store takes 30 % of the memory."""
        return f"{-(-self.memory_gib * 5 // 16)}Gi"


class Spot(_Values):
    """Prefer machines that may be taken away; the others are what is left."""

    enabled: bool = False
    node_label: str = "karpenter.sh/capacity-type"
    value: str = "spot"
    taint: str | None = None
    """Key of a taint of such machines that has to be tolerated."""


class Workers(_Values):
    """Describe the nodes that embed and score: a fixed number."""

    replicas: Count = 4
    size: Size = Size(cpu=8, memory_gib=32)
    gpus: Annotated[int, Field(ge=0)] = 1
    """Of each; 0 is the variant without GPUs."""
    node_selector: Text = {}
    spot: Spot = Spot()


class Priority(_Values):
    """Put the nights before or behind other pods: a PriorityClass."""

    name: str = "patchead-nightly"
    value: Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000)] = 1000
    preempts: bool = False
    """Whether a night may end pods of a lower priority."""


class Access(_Values):
    """Say how pods reach archive and lake: keys of a Secret, or an identity of their own."""

    secret: str | None = "patchead-s3"
    service_account: str | None = None
    annotations: Text = {}
    """Of that account, e.g. eks.amazonaws.com/role-arn, iam.gke.io/gcp-service-account."""


class Monitoring(_Values):
    """Give the Prometheus operator what it scrapes, and have a process watch the lake."""

    enabled: bool = True
    namespace: str = "monitoring"
    """Where Prometheus runs: its pods may read metrics."""
    rule_labels: Text = {"release": "prometheus"}
    """By which the operator finds the rules and the monitor."""


class Aws(_Values):
    """Describe the cluster of virtual machines that `ray up` makes."""

    region: str = "eu-central-1"
    ami: str = "ami-00000000000000000"
    head_type: str = "m7i.xlarge"
    worker_type: str = "g6.2xlarge"


class Values(_Values):
    """Hold everything that differs between two clusters."""

    namespace: str = Field(default="patchead", pattern=r"^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$")
    schedule: str = "30 2 * * *"
    time_zone: str = "Etc/UTC"
    hours: Annotated[float, Field(gt=0, lt=24)] = 8.0
    """After which a night is given up."""
    image: Image = Image()
    head: Size = Size(cpu=4, memory_gib=16)
    workers: Workers = Workers()
    access: Access = Access()
    priority: Priority | None = Priority()
    network_policy: bool = True
    operator_namespace: str = "kuberay-system"
    """Where the KubeRay operator runs: it submits through the dashboard's port."""
    monitoring: Monitoring = Monitoring()
    weights: Literal["hub", "baked"] = "hub"
    """baked: an image of Dockerfile.weights; pods never ask a hub."""
    settings: dict[str, Any] = {}
    """Over jobs/configs/nightly.yaml, by dotted name, e.g. archive.uri: s3://…; null takes one away."""
    aws: Aws = Aws()

    @field_validator("schedule")
    @classmethod
    def _once_a_day(cls, text: str) -> str:
        if not re.fullmatch(r"\d+ \d+ \* \* \*", text):
            raise ValueError("must be MINUTE HOUR * * *: the night is the day before")
        return text


def read_values(path: Path | None) -> Values:
    """Read values; without a file, the defaults.

    Raises:
        SettingsError: the file cannot be read, or a value cannot be used.
    """
    try:
        text = path.read_bytes() if path else b"{}"
    except OSError as exc:
        raise SettingsError(f"cannot read the values {path}: {exc.strerror}.") from exc
    try:
        return Values.model_validate(parse_yaml(text, f"the values {path}") or {})
    except ValidationError as exc:
        told = [f"{'.'.join(map(str, fault['loc'])) or 'values'}: {fault['msg']}" for fault in exc.errors()]
        raise SettingsError(f"the values {path} cannot be used. " + "; ".join(told)) from exc

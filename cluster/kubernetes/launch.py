"""Creates one night's RayJob, waits for its end and ends with its result. Runs in the CronJob's pod.

    python launch.py rayjob.yaml        (environment: NAMESPACE, JOB_NAME; NIGHT to choose the night by hand)

The night is the day before the date of the Job's scheduled time, in the CronJob's time zone. The RayJob is named after
the night and the Job and belongs to the Job: a pod that is started again finds the same RayJob and waits on, and
whoever deletes the Job deletes the RayJob and its cluster.

Exit code: 0 the RayJob succeeded; 1 it failed, was deleted or outlived its own deadline; 2 wrong set-up.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiClient, ApiException, BatchV1Api, Configuration, CustomObjectsApi, V1ObjectMeta
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import InClusterConfigLoader
from urllib3.exceptions import HTTPError

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
ENDED = ("Complete", "Failed", "ValidationFailed")
POLL_S = 10.0
REQUEST_TIMEOUT_S = 30
PATIENCE_S = 900  # how long the API server may be away
GRACE_S = 1800  # beyond the RayJob's own deadlines: for starting and stopping its clusters

log = logging.getLogger("launch")


class SetupError(Exception):
    """Something a person must put right: exit code 2."""


class Api:
    """What the launcher asks of the Kubernetes API server, as the pod's service account."""

    def __init__(self, namespace: str, credentials: Path = CREDENTIALS, poll: float = POLL_S) -> None:
        configuration = Configuration()
        configuration.retries = False  # `_answer` asks again, and says so
        try:
            InClusterConfigLoader(str(credentials / "token"), str(credentials / "ca.crt")).load_and_set(configuration)
        except ConfigException as exc:
            raise SetupError(f"this is no pod with a service account in {credentials}: {exc}") from exc
        client = ApiClient(configuration)
        self._jobs, self._objects, self.poll = BatchV1Api(client), CustomObjectsApi(client), poll
        self._namespace = {"namespace": namespace}
        self._rayjobs = {"group": "ray.io", "version": "v1", "plural": "rayjobs", **self._namespace}

    def job(self, name: str) -> V1ObjectMeta:
        """Read the metadata of a Job."""
        return self._answer(self._jobs.read_namespaced_job, **self._namespace, name=name).metadata

    def create(self, rayjob: dict[str, Any]) -> bool:
        """Create a RayJob; False where there is one of its name."""
        create = self._objects.create_namespaced_custom_object
        return self._answer(create, **self._rayjobs, body=rayjob, none_at=HTTPStatus.CONFLICT) is not None

    def rayjob(self, name: str) -> dict[str, Any] | None:
        """Read a RayJob; None where there is none."""
        read = self._objects.get_namespaced_custom_object
        return self._answer(read, **self._rayjobs, name=name, none_at=HTTPStatus.NOT_FOUND)

    def delete(self, name: str) -> None:
        """Delete a RayJob; it may be gone already."""
        delete = self._objects.delete_namespaced_custom_object
        self._answer(delete, **self._rayjobs, name=name, none_at=HTTPStatus.NOT_FOUND)

    def _answer(self, ask: Callable[..., Any], none_at: int | None = None, **arguments: Any) -> Any:
        """Ask until the server answers, for up to PATIENCE_S; overload and server errors count as no answer."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask(**arguments, _request_timeout=REQUEST_TIMEOUT_S)
            except ApiException as exc:
                if none_at is not None and exc.status == none_at:
                    return None
                reason = f"{exc.status}: {_message(exc)}"
                # 0: TLS failed, which a server that is starting does as well.
                if exc.status and exc.status != HTTPStatus.TOO_MANY_REQUESTS and exc.status < 500:
                    raise SetupError(f"the API server answered {reason}") from exc
            except (HTTPError, OSError, ConfigException) as exc:  # the last: the token is being renewed
                reason = f"{type(exc).__name__}: {exc}"
            if time.monotonic() > deadline:
                raise SetupError(f"{ask.__name__}: no answer for {PATIENCE_S} s, last: {reason}")
            log.warning("%s: %s; asking again", ask.__name__, reason)
            time.sleep(self.poll)


def _message(refusal: ApiException) -> str:
    """What the server says in its Status object, else the whole body."""
    try:
        return json.loads(refusal.body)["message"]
    except (TypeError, ValueError, KeyError):
        return str(refusal.body or refusal.reason)


def night_of(job: V1ObjectMeta, chosen: str | None) -> str:
    """The night as YYYY-MM-DD: the one chosen by hand, else the day before the date of the scheduled time."""
    if chosen:
        try:
            return dt.date.fromisoformat(chosen).isoformat()
        except ValueError as exc:
            raise SetupError(f"NIGHT must be a date such as 2026-11-21; got {chosen!r}.") from exc
    scheduled = (job.annotations or {}).get(SCHEDULED)
    if scheduled is None:
        raise SetupError(f"Job {job.name} was not made by the CronJob's schedule: set NIGHT=YYYY-MM-DD.")
    # RFC 3339 in the CronJob's time zone; before Python 3.11 fromisoformat does not know the Z.
    return (dt.datetime.fromisoformat(scheduled.replace("Z", "+00:00")).date() - dt.timedelta(days=1)).isoformat()


def rayjob_of(template: str, night: str, job: V1ObjectMeta) -> dict[str, Any]:
    """The template for ``night``, named after and owned by ``job``."""
    rayjob: dict[str, Any] = yaml.safe_load(template.replace("${NIGHT}", night))
    rayjob["metadata"]["name"] += f"-{job.uid[:8]}"
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": job.uid}
    rayjob["metadata"]["ownerReferences"] = [owner]
    return rayjob


def seconds_allowed(rayjob: dict[str, Any]) -> float:
    spec = rayjob["spec"]
    return spec["activeDeadlineSeconds"] * (spec.get("backoffLimit", 0) + 1) + GRACE_S


def wait(api: Api, rayjob: dict[str, Any]) -> int:
    """Report every change of status until the RayJob has ended; past its time, delete it."""
    name, last = rayjob["metadata"]["name"], None
    while True:
        found = api.rayjob(name)
        if found is None:
            log.error("the RayJob was deleted before it ended")
            return 1
        state = found.get("status", {})
        now = tuple(state.get(key, "") for key in ("jobDeploymentStatus", "jobStatus", "rayClusterName"))
        if now != last:
            log.info("deployment %s, job %s, cluster %s", *(part or "-" for part in now))
            last = now
        if now[0] in ENDED:
            done = now[:2] == ("Complete", "SUCCEEDED")
            log.log(logging.INFO if done else logging.ERROR, "%s %s", state.get("reason", ""), state.get("message", ""))
            return 0 if done else 1
        created = dt.datetime.fromisoformat(found["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
        if (dt.datetime.now(dt.timezone.utc) - created).total_seconds() > seconds_allowed(rayjob):
            log.error("the RayJob has not ended within %.0f s: deleting it", seconds_allowed(rayjob))
            api.delete(name)
            return 1
        time.sleep(api.poll)


def launch(template: str, api: Api, job_name: str, night: str | None) -> int:
    job = api.job(job_name)
    rayjob = rayjob_of(template, night_of(job, night), job)
    made = api.create(rayjob)
    log.info("RayJob %s %s", rayjob["metadata"]["name"], "created" if made else "found")
    return wait(api, rayjob)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("template", type=Path, help="the RayJob, with ${NIGHT} for the night")
    parser.add_argument("--credentials", type=Path, default=CREDENTIALS, help="folder of the service account")
    parser.add_argument("--poll", type=float, default=POLL_S, help="seconds between questions (default 10)")
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        api = Api(os.environ["NAMESPACE"], arguments.credentials, arguments.poll)
        template = arguments.template.read_text(encoding="utf-8")
        return launch(template, api, os.environ["JOB_NAME"], os.environ.get("NIGHT"))
    except SetupError as exc:
        log.error("%s", exc)
        return 2


if __name__ == "__main__":
    sys.exit(main())

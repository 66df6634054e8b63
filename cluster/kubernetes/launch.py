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
import http.client
import json
import logging
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

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
    """The Kubernetes API server as a pod sees it; answers as (status, body)."""

    def __init__(self, credentials: Path = CREDENTIALS, poll: float = POLL_S) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self.url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self.token = credentials / "token"
        self.context = ssl.create_default_context(cafile=str(credentials / "ca.crt"))
        self.poll = poll

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Ask until the server answers, for up to PATIENCE_S; overload and server errors count as no answer."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                status, answer = self._once(method, path, body)
                if status != HTTPStatus.TOO_MANY_REQUESTS and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return status, answer
                reason = f"{status} {answer.get('message', '')}"
            except (OSError, http.client.HTTPException) as exc:
                reason = f"{type(exc).__name__}: {exc}"
            if time.monotonic() > deadline:
                raise SetupError(f"{method} {path}: no answer for {PATIENCE_S} s, last: {reason}")
            log.warning("%s %s: %s; asking again", method, path, reason)
            time.sleep(self.poll)

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        # The token is read every time: Kubernetes renews the file.
        headers = {"Authorization": f"Bearer {self.token.read_text()}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S, context=self.context) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            text = exc.read().decode(errors="replace")
            try:
                return exc.code, json.loads(text)
            except json.JSONDecodeError:
                return exc.code, {"message": text}


def night_of(job: dict[str, Any], chosen: str | None) -> str:
    """The night as YYYY-MM-DD: the one chosen by hand, else the day before the date of the scheduled time."""
    if chosen:
        try:
            return dt.date.fromisoformat(chosen).isoformat()
        except ValueError as exc:
            raise SetupError(f"NIGHT must be a date such as 2026-11-21; got {chosen!r}.") from exc
    scheduled = job["metadata"].get("annotations", {}).get(SCHEDULED)
    if scheduled is None:
        raise SetupError(f"Job {job['metadata']['name']} was not made by the CronJob's schedule: set NIGHT=YYYY-MM-DD.")
    # RFC 3339 in the CronJob's time zone; before Python 3.11 fromisoformat does not know the Z.
    return (dt.datetime.fromisoformat(scheduled.replace("Z", "+00:00")).date() - dt.timedelta(days=1)).isoformat()


def rayjob_of(template: str, night: str, job: dict[str, Any]) -> dict[str, Any]:
    """The template for ``night``, named after and owned by ``job``."""
    rayjob: dict[str, Any] = yaml.safe_load(template.replace("${NIGHT}", night))
    owner = job["metadata"]
    rayjob["metadata"]["name"] += f"-{owner['uid'][:8]}"
    rayjob["metadata"]["ownerReferences"] = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": owner["name"], "uid": owner["uid"]}
    ]
    return rayjob


def seconds_allowed(rayjob: dict[str, Any]) -> float:
    spec = rayjob["spec"]
    return spec["activeDeadlineSeconds"] * (spec.get("backoffLimit", 0) + 1) + GRACE_S


def wait(api: Api, path: str, rayjob: dict[str, Any]) -> int:
    """Report every change of status until the RayJob has ended; past its time, delete it."""
    last = None
    while True:
        status, found = api.request("GET", path)
        if status == HTTPStatus.NOT_FOUND:
            log.error("the RayJob was deleted before it ended")
            return 1
        check(status, found, (HTTPStatus.OK,))
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
            check(*api.request("DELETE", path), (HTTPStatus.OK, HTTPStatus.ACCEPTED))
            return 1
        time.sleep(api.poll)


def check(status: int, answer: dict[str, Any], expected: tuple[int, ...]) -> None:
    if status not in expected:
        raise SetupError(f"the API server answered {status}: {answer.get('message', answer)}")


def launch(template: str, api: Api) -> int:
    namespace, name = os.environ["NAMESPACE"], os.environ["JOB_NAME"]
    status, job = api.request("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    check(status, job, (HTTPStatus.OK,))
    rayjob = rayjob_of(template, night_of(job, os.environ.get("NIGHT")), job)
    rayjobs = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    status, answer = api.request("POST", rayjobs, rayjob)
    check(status, answer, (HTTPStatus.CREATED, HTTPStatus.CONFLICT))
    log.info("RayJob %s %s", rayjob["metadata"]["name"], "created" if status == HTTPStatus.CREATED else "found")
    return wait(api, f"{rayjobs}/{rayjob['metadata']['name']}", rayjob)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("template", type=Path, help="the RayJob, with ${NIGHT} for the night")
    parser.add_argument("--credentials", type=Path, default=CREDENTIALS, help="folder of the service account")
    parser.add_argument("--poll", type=float, default=POLL_S, help="seconds between questions (default 10)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return launch(arguments.template.read_text(encoding="utf-8"), Api(arguments.credentials, arguments.poll))
    except SetupError as exc:
        log.error("%s", exc)
        return 2


if __name__ == "__main__":
    sys.exit(main())

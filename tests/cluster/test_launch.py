"""cluster/kubernetes/launch.py and the client it uses, against a stand-in for the API server over TLS."""

from __future__ import annotations

import datetime as dt
import importlib.util
import io
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

FOLDER = Path(__file__).parents[2] / "cluster/kubernetes"
SPEC = importlib.util.spec_from_file_location("launch", FOLDER / "launch.py")
assert SPEC is not None and SPEC.loader is not None
launch = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(launch)

JOBS = "/apis/batch/v1/namespaces/patchead/jobs"
RAYJOBS = "/apis/ray.io/v1/namespaces/patchead/rayjobs"
NAME = "patchead-2026-11-21-0a1b2c3d"
TOKEN = "the token of the service account"
HANG_UP = 0  # among faults: the connection ends without an answer


def state(deployment: str, job: str = "", **more: str) -> dict[str, str]:
    return {"jobDeploymentStatus": deployment, "jobStatus": job, "rayClusterName": "c", **more}


RUNNING = state("Running", "RUNNING")
SUCCEEDED = state("Complete", "SUCCEEDED")


class ApiServer(ThreadingHTTPServer):
    """One Job; RayJobs are kept. ``states`` are answered in turn, the last one for good; ``faults`` come first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.credentials = folder
        (folder / "token").write_text(TOKEN)
        self._certify(folder)
        self.annotations = {"batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-11-22T02:30:00Z"}
        self.states: list[dict[str, str] | None] = [{}, state("Initializing"), RUNNING, RUNNING, SUCCEEDED]
        self.faults: list[int] = []
        self.created = dt.datetime.now(dt.timezone.utc)
        self.rayjobs: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.log = ""

    def _certify(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
        now = dt.datetime.now(dt.timezone.utc)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(hours=1))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / "ca.crt").write_bytes(certificate.public_bytes(pem))
        (folder / "key").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "ca.crt", folder / "key")
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        self.calls.append((method, path))
        if self.faults:
            return self.faults.pop(0), {"message": "not now"}
        if (method, path) == ("GET", f"{JOBS}/nightly-29"):
            uid = "0a1b2c3d-0000-4000-8000-000000000000"
            metadata = {"name": "nightly-29", "uid": uid, "annotations": self.annotations}
            return 200, {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
        if (method, path) == ("POST", RAYJOBS):
            assert body is not None
            name = body["metadata"]["name"]
            if name in self.rayjobs:
                return 409, {"reason": "AlreadyExists"}
            body["metadata"]["creationTimestamp"] = self.created.strftime("%Y-%m-%dT%H:%M:%SZ")
            self.rayjobs[name] = body
            return 201, body
        name = path.removeprefix(f"{RAYJOBS}/")
        if method == "DELETE":
            return 200, self.rayjobs.pop(name)
        return self._status(name)

    def _status(self, name: str) -> tuple[int, dict[str, Any]]:
        status = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if status is None or name not in self.rayjobs:
            return 404, {"reason": "NotFound"}
        return 200, {**self.rayjobs[name], "status": status}

    def environment(self) -> dict[str, str]:
        return {
            "KUBERNETES_SERVICE_HOST": "localhost",
            "KUBERNETES_SERVICE_PORT": str(self.server_address[1]),
            "NAMESPACE": "patchead",
            "JOB_NAME": "nightly-29",
        }

    def words(self) -> list[str]:
        return [str(FOLDER / "rayjob.yaml"), "--credentials", str(self.credentials), "--poll", "0.02"]

    def process(self) -> subprocess.Popen[str]:
        """A launcher as its pod runs it."""
        command = [sys.executable, str(FOLDER / "launch.py"), *self.words()]
        return subprocess.Popen(command, env=os.environ | self.environment(), stderr=subprocess.PIPE, text=True)

    def launch(self, **environment: str) -> int:
        """The exit code of a launcher in this process: the client's import takes a second."""
        log = io.StringIO()
        handler = logging.StreamHandler(log)
        launch.log.addHandler(handler)
        launch.log.setLevel(logging.INFO)
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in (self.environment() | environment).items():
                    patch.setenv(name, value)
                return launch.main(self.words())
        finally:
            launch.log.removeHandler(handler)
            self.log = log.getvalue()


class Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        if self.headers["Authorization"].partition(" ")[::2] != ("bearer", TOKEN):
            status, answer = 401, {"message": "Unauthorized"}
        else:
            status, answer = self.server.answer(self.command, self.path, body)
        if status == HANG_UP:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path) as api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield api
        api.shutdown()
        thread.join()


def test_creates_the_nights_rayjob_and_waits_for_it(server: ApiServer, rayjob: dict[str, Any]) -> None:
    process = server.process()
    _, server.log = process.communicate()
    assert process.returncode == 0
    made = server.rayjobs[NAME]
    assert made["spec"] == rayjob["spec"]
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"][:8]) == ("Job", "nightly-29", "0a1b2c3d")
    assert made["metadata"]["labels"]["patchead/night"] == "2026-11-21"
    assert "Complete, job SUCCEEDED" in server.log
    assert server.states == [SUCCEEDED]


@pytest.mark.parametrize(
    ("scheduled", "night"),
    [
        ("2026-11-22T02:30:00Z", "2026-11-21"),
        ("2026-11-22T00:10:00+01:00", "2026-11-21"),  # in UTC this is still the 21st
        ("2027-01-01T02:30:00-08:00", "2026-12-31"),
    ],
)
def test_night_is_the_day_before_in_the_cronjobs_zone(server: ApiServer, scheduled: str, night: str) -> None:
    server.annotations = dict.fromkeys(server.annotations, scheduled)
    assert server.launch() == 0
    (made,) = server.rayjobs.values()
    assert f"--night {night} --run-id nightly-{night} " in made["spec"]["entrypoint"]


def test_a_job_made_by_hand_must_name_its_night(server: ApiServer) -> None:
    server.annotations = {"cronjob.kubernetes.io/instantiate": "manual"}
    assert server.launch() == 2
    assert "set NIGHT=" in server.log
    assert server.launch(NIGHT="yesterday") == 2
    assert "'yesterday'" in server.log
    assert not server.rayjobs
    assert server.launch(NIGHT="2026-11-20") == 0
    assert list(server.rayjobs) == ["patchead-2026-11-20-0a1b2c3d"]


@pytest.mark.parametrize(
    "ended",
    [
        state("Failed", "FAILED", reason="AppFailed", message="exit code 4"),
        state("Failed", "RUNNING", reason="DeadlineExceeded", message="too long"),
        state("ValidationFailed", message="bad name"),
        state("Complete", "STOPPED", message="stopped by hand"),
        None,
    ],
)
def test_a_night_that_fails_fails_the_pod(server: ApiServer, ended: dict[str, str] | None) -> None:
    server.states = [RUNNING, state("Retrying"), RUNNING, ended]
    assert server.launch() == 1
    assert (ended["message"] if ended else "was deleted") in server.log


def test_a_second_pod_waits_on_for_the_same_rayjob(server: ApiServer) -> None:
    server.states = [RUNNING]
    first = server.process()
    while len(server.calls) < 5 and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    server.states = [RUNNING, SUCCEEDED]
    assert server.launch() == 0
    assert list(server.rayjobs) == [NAME]
    assert f"{NAME} found" in server.log


def test_server_errors_are_waited_out(server: ApiServer) -> None:
    server.faults = [503, 429, 500]
    assert server.launch() == 0
    assert server.log.count("asking again") == 3


def test_refusal_is_said_at_once(server: ApiServer) -> None:
    (server.credentials / "token").write_text("another token")
    assert server.launch() == 2
    assert "401: Unauthorized" in server.log


def test_a_server_that_is_away_is_waited_for(server: ApiServer) -> None:
    server.faults = [HANG_UP, HANG_UP]
    assert server.launch() == 0
    assert server.log.count("asking again") == 2


def test_outside_of_a_pod_it_says_so(server: ApiServer) -> None:
    assert server.launch(KUBERNETES_SERVICE_HOST="") == 2
    assert "no pod with a service account" in server.log
    (server.credentials / "token").unlink()
    assert server.launch() == 2
    assert "Service token file does not exist" in server.log
    assert server.calls == []


def test_past_all_deadlines_the_rayjob_is_deleted(server: ApiServer, rayjob: dict[str, Any]) -> None:
    spec = rayjob["spec"]
    server.states = [RUNNING]
    server.created -= dt.timedelta(seconds=spec["activeDeadlineSeconds"] * (spec["backoffLimit"] + 1))
    process = server.process()  # still within the time for starting and stopping
    while server.calls.count(("GET", f"{RAYJOBS}/{NAME}")) < 3 and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.communicate()
    server.rayjobs[NAME]["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert server.launch() == 1
    assert not server.rayjobs
    assert "deleting it" in server.log


def test_role_allows_exactly_what_is_asked(server: ApiServer, manifests: dict[str, dict[str, Any]]) -> None:
    server.states = [RUNNING]
    server.created = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    assert server.launch() == 1
    verbs = {"GET": "get", "POST": "create", "DELETE": "delete"}
    asked = {(path.split("/")[2], path.split("/")[6], verbs[method]) for method, path in server.calls}
    allowed = {
        (group, resource, verb)
        for rule in manifests["Role"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert asked == allowed


def test_pod_gives_the_launcher_its_environment(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    paths = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in pod["containers"][0]["env"]}
    assert paths == {
        "NAMESPACE": "metadata.namespace",
        "JOB_NAME": "metadata.labels['batch.kubernetes.io/job-name']",
    }

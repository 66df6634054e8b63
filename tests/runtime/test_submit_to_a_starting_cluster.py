"""Ray's own client, to a job server that says at first what the one of a cluster says while it starts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from patchead.errors import PatcheadError
from patchead.runtime import submit
from patchead.runtime.submit import SUBMITTED, JobRequest, Jobs

REFUSED = "No available agent to submit job, please try again later."


@contextmanager
def job_server(answers: list[tuple[int, str]]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the ids that were submitted; each gets the next of ``answers``, the last for ever."""
    asked = list[str]()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            versions = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
            self._answer(200, json.dumps([] if self.path.startswith("/api/jobs") else versions))

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["submission_id"])
            self._answer(*answers[min(len(asked), len(answers)) - 1])

        def _answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow  # it imports all of Ray's client; a cluster is submitted to in e2e/test_patchead_submit.py
def test_a_cluster_that_is_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = json.dumps({"job_id": "a", "submission_id": "a"})
    request = JobRequest(submission_id="a", entrypoint="true")
    with job_server([(500, REFUSED), (500, REFUSED), (200, taken)]) as (address, asked):
        assert Jobs(address).submit(request) == SUBMITTED
        assert asked == ["a"] * 3
    with job_server([(500, "another fault")]) as (address, asked):
        with pytest.raises(PatcheadError, match=r"cannot submit to .*another fault"):
            Jobs(address).submit(request)
        assert asked == ["a"]
    monkeypatch.setattr(submit, "_STARTING_S", 0.0)
    with job_server([(500, REFUSED)]) as (address, _), pytest.raises(PatcheadError, match="No available agent"):
        Jobs(address).submit(request)

"""A proxy on loopback in front of an S3 server that answers some requests wrongly, as it is told."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.session import Session

from patchead.storage import Storage

Rule = Callable[[str, str], str | None]
"""From method and path to a fault: "503", "500", "404", "403", "reset", "cut", "stall", "unconditional" (the condition
``If-None-Match`` is passed over, as some stores do), or None for a true answer."""

_DROPPED = {"connection", "transfer-encoding", "keep-alive", "date", "server"}


def some_of(faults: tuple[str, ...], share: float, seed: int) -> Rule:
    """A share of all requests, by a seeded draw, gets one of the faults."""
    rng, lock = random.Random(seed), threading.Lock()

    def rule(method: str, path: str) -> str | None:
        with lock:
            return rng.choice(faults) if rng.random() < share else None

    return rule


class FaultyProxy:
    """``with FaultyProxy(endpoint, rule) as proxy:``; ``rule`` may be replaced at any time; ``seen`` counts answers."""

    def __init__(self, endpoint: str, rule: Rule, stall_s: float = 60.0) -> None:
        self.rule, self.stall_s, self.seen = rule, stall_s, Counter[str]()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, urlsplit(endpoint).netloc))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def storage(self, like: Storage, **changes: object) -> Storage:
        """A storage that goes through this proxy."""
        return replace(like, endpoint_url=self.endpoint, **changes)  # type: ignore[arg-type]

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *ended: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy: FaultyProxy, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.rule(self.command, self.path)
            proxy.seen[fault or "well"] += 1
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            if fault == "stall":
                time.sleep(proxy.stall_s)
                self.close_connection = True
                return
            if fault is not None and fault.isdigit():
                self._send(int(fault), {}, _XML.get(fault, "").encode())
                return
            headers = dict(self.headers.items())
            if fault == "unconditional":
                headers = _without_condition(self.command, f"http://{upstream}{self.path}", headers, body)
            connection = http.client.HTTPConnection(upstream, timeout=600)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            answered = {name: value for name, value in answer.getheaders() if name.lower() not in _DROPPED}
            self._send(answer.status, answered, data, cut=fault == "cut" and self.command == "GET")

        def _send(self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if not any(name.lower() == "content-length" for name in headers):
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    for method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._answer)
    return Handler


def _without_condition(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """The headers of the same request without the condition, which was signed: signed again, by the process's keys."""
    left_out = {"if-none-match", "authorization", "host"}
    kept = {name: value for name, value in headers.items() if name.lower() not in left_out}
    request = AWSRequest(method, url, data=body, headers=kept)
    S3SigV4Auth(Session().get_credentials(), "s3", "us-east-1").add_auth(request)
    return dict(request.headers.items()) | {"Host": urlsplit(url).netloc}


_XML = {
    "503": "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    "501": "<Error><Code>NotImplemented</Code><Message>A header you provided is not implemented.</Message></Error>",
    "500": "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>",
    "404": "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>",
    "403": "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>",
}

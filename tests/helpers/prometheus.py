"""Debian's Prometheus for tests: a server of its own on loopback, which scrapes what it is told and answers queries."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.helpers.s3_server import free_ports


def tool(name: str) -> str:
    """Find ``prometheus`` or ``promtool``, as `make test-slow` fetches them, or as Debian installs them."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed; run: make .venv/bin/promtool, or apt-get install prometheus")
    return found


class Prometheus:
    """A server with a configuration of the repository, but for where it scrapes and how often."""

    def __init__(self, folder: Path, config: Path, targets: dict[str, list[str]]) -> None:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        settings["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "5s"}
        settings["rule_files"] = [str(config.parent / name) for name in settings["rule_files"]]
        for scrape in settings["scrape_configs"]:
            scrape.pop("file_sd_configs", None)
            scrape["static_configs"] = [{"targets": targets[scrape["job_name"]]}]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        (port,) = free_ports(1)
        self.url, self._log = f"http://127.0.0.1:{port}", folder / "prometheus.log"
        self._command = [
            *(tool("prometheus"), f"--config.file={folder / 'prometheus.yaml'}"),
            *(f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"),
        ]

    def __enter__(self) -> Prometheus:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        while True:
            assert self._process.poll() is None, self._log.read_text()
            try:
                urllib.request.urlopen(f"{self.url}/-/ready").close()
                return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def over(self, expression: str, start: float, stop: float) -> list[dict[str, Any]]:
        """The series of an expression between two times, a point a second; those without a value are left out."""
        asked = urllib.parse.urlencode({"query": expression, "start": start, "end": stop, "step": "1"})
        with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{asked}") as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return [series for series in found["data"]["result"] if any(v != "NaN" for _, v in series["values"])]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing."""
        with urllib.request.urlopen(f"{self.url}/api/v1/alerts") as answer:
            return json.load(answer)["data"]["alerts"]

"""cluster/local/two_nodes.py for real: two Ray nodes, a job on both, its exit code, and nothing left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

JOB = """
import json, os, sys, time, urllib.error, urllib.request
import ray

ray.init(address="auto")

@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def where():
    time.sleep(0.2)
    return ray.get_runtime_context().get_node_id()

nodes = sorted(set(ray.get([where.remote() for _ in range(6)])))
try:
    answer = urllib.request.urlopen("http://127.0.0.1:8265/api/jobs/").status
except urllib.error.HTTPError as exc:
    answer = exc.code
print("SEEN " + json.dumps([nodes, answer, os.getcwd(), sys.argv[2:], os.environ["HOME"]]), flush=True)
sys.exit(int(sys.argv[1]))
"""


class Script:
    """The script with a mark in its environment, which every process that comes from it inherits."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.path = root / "cluster/local/two_nodes.py"
        self.folder = folder
        self.mark = f"TWO_NODES_TEST={uuid.uuid4().hex}"

    def start(self, *command: str) -> subprocess.Popen[str]:
        name, _, value = self.mark.partition("=")
        return subprocess.Popen(
            [sys.executable, self.path, "--", *command],
            cwd=self.folder,
            env={**os.environ, name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def processes(self) -> list[int]:
        """Of this machine, in whatever namespace."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                environment = entry.read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended meanwhile, or is not ours
            if self.mark.encode() in environment.split(b"\0"):
                found.append(int(entry.parent.name))
        return found

    def assert_nothing_left(self, folder: str) -> None:
        assert self.processes() == []
        assert not Path(folder).exists()


@pytest.fixture
def script(root: Path, tmp_path: Path) -> Iterator[Script]:
    yield (made := Script(root, tmp_path))
    for process in made.processes():
        os.kill(process, signal.SIGKILL)


def folder_of(output: str) -> str:
    """The folder of the run, from the job's command line as Ray prints it."""
    found = re.search(r"/tmp/ray2-\w+", output)
    assert found is not None
    return found[0]


@pytest.mark.slow  # half a minute; tests/e2e/test_submit.py runs the nightly job on the two nodes
def test_job_runs_on_both_nodes_and_its_exit_code_comes_back(script: Script) -> None:
    (script.folder / "job.py").write_text(JOB)
    process = script.start("python", "job.py", "3", "two words", '"$HOME"')
    output, _ = process.communicate()
    assert process.returncode == 3, output
    assert "2 nodes alive" in output
    nodes = sorted(re.findall(r"two_nodes: node (\w+) 127\.0\.0\.\d", output))
    busy = sorted(re.findall(r"two_nodes: tasks finished on node (\w+): [1-9]", output))
    folder = folder_of(output)
    seen = f'SEEN [["{nodes[0]}", "{nodes[1]}"], 401, "{script.folder}", ["two words", "\\"$HOME\\""], "{folder}/home"]'
    assert seen in output
    assert busy == nodes
    script.assert_nothing_left(folder)


@pytest.mark.slow  # another 20 to 50 s; the end-to-end test of the nightly job on two nodes sees exit code 0 too
def test_a_job_that_ends_well_gives_zero(script: Script) -> None:
    process = script.start("python", "-c", "print('all', 'well')")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "all well" in output
    script.assert_nothing_left(folder_of(output))


@pytest.mark.parametrize(
    ("sent", "code"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGKILL, -9)]
)
def test_whoever_ends_the_script_ends_the_cluster(script: Script, sent: signal.Signals, code: int) -> None:
    process = script.start("sh", "-c", "sleep 600; touch late")
    while not any("gcs_server" in line for line in commands_of(script.processes())):
        assert process.poll() is None
        time.sleep(0.1)
    assert len(script.processes()) > 3
    folder = folder_of("".join(commands_of(script.processes())))
    process.send_signal(sent)
    output, _ = process.communicate()
    assert process.returncode == code, output
    while script.processes():
        time.sleep(0.1)
    assert not (script.folder / "late").exists(), "the job ran to its own end"
    if sent == signal.SIGKILL:  # nobody was left to remove it
        shutil.rmtree(folder)
    script.assert_nothing_left(folder)


def commands_of(processes: list[int]) -> list[str]:
    lines = []
    for process in processes:
        try:
            lines.append(Path(f"/proc/{process}/cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return lines


def test_without_namespaces_it_says_what_is_missing(script: Script, tmp_path: Path) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\necho unshare: not permitted >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, script.path, "--", "true"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "user namespaces" in done.stderr
    assert "not permitted" in done.stderr

"""`ray job submit -- python jobs/nightly.py …`, to one node and to two: the same scores as in one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchead.encoders import EncoderSpec, build
from patchead.local import embed_images, score_samples
from patchead.scoring.aggregate import Aggregation
from tests.helpers.e2e_tools import ROOT, SMALL, SMALL_OPTIONS, by_id, good_images, png, spoiled, write_group
from tests.helpers.s3_server import free_ports

NIGHT = "2026-11-21"
RAY = Path(sys.executable).parent / "ray"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("submitted") / "archive"
    for product in ("screw", "nut"):
        images = good_images(9, first_seed=len(product)) | {"bad.png": png(spoiled(100))}
        write_group(root, NIGHT, product, images)
    return root


@pytest.fixture(scope="module")
def expected(archive: Path) -> dict[str, float]:
    """What one process without Ray finds."""
    encoder = build(
        EncoderSpec(SMALL["encoder.name"], SMALL["encoder.weights"], image_size=SMALL["encoder.image_size"])
    )
    found = {}
    for group in sorted(archive.glob("*/*")):
        paths = sorted(group.iterdir())
        scores = score_samples(embed_images(paths, encoder), aggregation=Aggregation()).image_scores
        found |= {str(path.relative_to(archive)): score for path, score in zip(paths, scores.tolist(), strict=True)}
    return found


def entrypoint(archive: Path, lake: Path) -> list[str]:
    return [sys.executable, str(ROOT / "jobs/nightly.py"), *SMALL_OPTIONS, f"--archive={archive}", f"--lake={lake}"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray cluster of one node with a job server, on loopback and free ports; its address and the environment."""
    port, dashboard, client, agent, grpc = free_ports(5)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "HOME": str(tmp_path)}
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={port}"]
    command += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]  # 0: any free port
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
    with (tmp_path / "ray.log").open("w") as log:
        head = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        address = f"http://127.0.0.1:{dashboard}"
        try:
            _wait_for_jobs(address, env, head, tmp_path / "ray.log")
            yield address, env
        finally:
            head.send_signal(signal.SIGTERM)
            head.wait()


def _wait_for_jobs(address: str, env: dict[str, str], head: subprocess.Popen[bytes], log: Path) -> None:
    while subprocess.run(
        [RAY, "job", "list", "--address", address], env=env, capture_output=True, check=False
    ).returncode:
        assert head.poll() is None, log.read_text()


@pytest.mark.slow  # the two nodes below are a cluster that the test starts, and the job is submitted to them too
def test_submitted_to_a_cluster(
    archive: Path, tmp_path: Path, expected: dict[str, float], cluster: tuple[str, dict[str, str]]
) -> None:
    address, env = cluster
    command = [RAY, "job", "submit", "--address", address, "--", *entrypoint(archive, tmp_path / "lake")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 images = 20 scored + 0 failed + 0 skipped" in done.stdout.replace("\n", " ").replace("  ", " ")
    found = {image_id: row["score"] for image_id, row in by_id(tmp_path / "lake").items()}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_submitted_to_two_nodes(archive: Path, tmp_path: Path, expected: dict[str, float]) -> None:
    script = [sys.executable, str(ROOT / "cluster/local/two_nodes.py"), "--num-cpus", "1", "--"]
    command = [*script, *entrypoint(archive, tmp_path / "lake")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 nodes" in done.stdout
    found = {image_id: row["score"] for image_id, row in by_id(tmp_path / "lake").items()}
    assert found == pytest.approx(expected, abs=1e-6)

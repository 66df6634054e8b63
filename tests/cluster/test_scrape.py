"""Debian's Prometheus scrapes a job that runs on a real Ray: every panel of the dashboard has data, no rule fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.e2e_tools import ROOT, SMALL_OPTIONS, good_images, png, spoiled, write_group
from tests.helpers.prometheus import Prometheus
from tests.helpers.ray_head import RayHead, ray_head
from tests.helpers.s3_server import free_ports

WITHOUT_GPUS = {"GPUs busy (Ray)"}
NIGHT = "2026-11-21"


@pytest.fixture
def head(tmp_path: Path) -> Iterator[RayHead]:
    # Ray pushes its metrics every ten seconds; the job takes a minute.
    with ray_head(tmp_path, num_cpus=3, RAY_metrics_report_interval_ms="1000") as found:
        yield found


@pytest.mark.slow  # the names are checked in test_observability.py
def test_every_panel_has_data_from_a_running_job(head: RayHead, tmp_path: Path) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    for number, product in enumerate(("screw", "nut", "bolt")):
        images = good_images(60, 100 * number) | {"worst.png": png(spoiled(900 + number))}
        write_group(archive, NIGHT, product, images)
    (port,) = free_ports(1)
    code = "import sys; from patchead.cli import main; sys.argv[0] = 'patchead'; main()"
    watch = [sys.executable, "-c", code, "watch", "--lake", str(lake), "--port", str(port)]
    job = [sys.executable, "jobs/nightly.py", *SMALL_OPTIONS, "--archive", str(archive), "--lake", str(lake)]
    job += ["--set=lake.images_per_file=4", "--set=resources.cpus_per_actor=1", "--run-id=scraped", "--night", NIGHT]
    environment = {**head.environment, "RAY_ADDRESS": head.address, "PYTHONPATH": str(ROOT)}
    targets = {"ray": [head.metrics], "patchead-watch": [f"127.0.0.1:{port}"]}
    config = ROOT / "cluster/observability/prometheus.yaml"
    watching = subprocess.Popen(
        [*watch, "--every", "0.5", "--bytes-every", "1"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        with Prometheus(tmp_path, config, targets) as prometheus:
            start = time.time()
            done = subprocess.run(job, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            while not prometheus.over("ray_patchead_last_success_timestamp_seconds", start, time.time()):
                assert head.process.poll() is None
                time.sleep(0.5)
            while not prometheus.over('patchead_lake_runs{state="published"} == 1', start, time.time()):
                assert watching.poll() is None
                time.sleep(0.5)
            stop = time.time()
            panels = json.loads((ROOT / "cluster/observability/dashboard.json").read_text())["panels"]
            empty = {
                f"{panel['title']}: {target['expr']}"
                for panel in panels
                for target in panel["targets"]
                if panel["title"] not in WITHOUT_GPUS and not prometheus.over(target["expr"], start, stop)
            }
            assert not empty
            (embedded,) = prometheus.over("max_over_time(sum(ray_patchead_images_embedded_total)[1h:1s])", stop, stop)
            assert float(embedded["values"][-1][1]) == 183
            firing = {alert["labels"]["alertname"] for alert in prometheus.alerts() if alert["state"] == "firing"}
            assert firing <= {"PatcheadNightNotPublished"}  # that night is none of yesterday's
    finally:
        watching.terminate()
        watching.wait()

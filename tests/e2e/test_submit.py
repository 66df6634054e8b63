"""`ray job submit -- python jobs/nightly.py …`, to one node and to two: the same scores as in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from patchead.encoders import EncoderSpec, build
from patchead.local import embed_images, score_samples
from patchead.scoring.aggregate import Aggregation
from tests.helpers.e2e_tools import ROOT, SMALL, SMALL_OPTIONS, by_id, good_images, png, spoiled, write_group
from tests.helpers.ray_head import RAY, ray_head

NIGHT = "2026-11-21"


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


@pytest.mark.slow  # the two nodes below are a cluster that the test starts, and the job is submitted to them too
def test_submitted_to_a_cluster(archive: Path, tmp_path: Path, expected: dict[str, float]) -> None:
    with ray_head(tmp_path, num_cpus=2) as head:
        command = [RAY, "job", "submit", "--address", head.dashboard, "--", *entrypoint(archive, tmp_path / "lake")]
        done = subprocess.run(command, env=head.environment, capture_output=True, text=True, check=False)
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

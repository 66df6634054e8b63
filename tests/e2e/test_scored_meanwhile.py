"""Groups that are scored while others are embedded: the same rows as stage after stage, whatever was done meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from patchead.nightly.run_record import RunRecord
from tests.helpers.e2e_tools import good_images, png, rows, spoiled, write_group

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"
SIZES = {"bolt": 30, "cap": 5, "nut": 12, "pin": 3, "ring": 40, "screw": 20}
TOGETHER = {"resources.overlap": True, "resources.cpus_per_actor": 1, "lake.images_per_file": 4}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("overlap")
    for number, (product, size) in enumerate(SIZES.items()):
        images = good_images(size - 1, 100 * number) | {"worst.png": png(spoiled(900 + number))}
        write_group(root, NIGHT, product, images)
    write_group(root, NIGHT, "cap", {"bad.png": b"no image", "twin.png": good_images(1, 100)["good000.png"]})
    return root


def scores(lake: Path) -> dict[str, tuple[object, ...]]:
    return {row["image_id"]: (row["score"], row["status"], row["rank"], row["is_anomalous"]) for row in rows(lake)}


@pytest.mark.slow  # tests/nightly/test_meanwhile.py does it in this process
def test_a_night_on_ray_scores_while_it_embeds(
    archive: Path, tmp_path: Path, score_night: Score, score_night_on_ray: Score
) -> None:
    allowed = {"run.max_failed_fraction": 0.1}
    score_night(archive, tmp_path / "staged", **allowed)
    record = score_night_on_ray(archive, tmp_path / "lake", **TOGETHER, **allowed)
    assert record.state == "published"
    assert record.scoring["scored_meanwhile"] > 0
    assert record.scoring["tasks_redone"] == 0
    expected, found = scores(tmp_path / "staged"), scores(tmp_path / "lake")
    assert found.keys() == expected.keys()
    for name, (score, *rest) in found.items():
        assert rest == list(expected[name][1:])
        assert score == pytest.approx(expected[name][0], abs=1e-6)

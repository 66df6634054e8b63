"""An image that ends or holds the process that decodes it is a failed row, and all others of the night are scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from patchead.nightly.run_record import RunRecord
from tests.helpers import poison
from tests.helpers.e2e_tools import good_images, png, rows, texture, write_group

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"
LATE = "tried 3 times: took longer than run.max_image_seconds 2 to decode"
SETTINGS = {"run.max_failed_fraction": 0.5, "resources.embed_actors": 1, "resources.score_actors": 1}


@pytest.fixture
def obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchead.nightly.embed.decode_unit", poison.decode_unit)


def scores(lake: Path) -> dict[str, float]:
    return {row["image_id"].rpartition("/")[2]: row["score"] for row in rows(lake) if row["status"] == "ok"}


def failed(lake: Path) -> dict[str, str]:
    return {row["image_id"].rpartition("/")[2]: row["error"] for row in rows(lake) if row["status"] == "failed"}


@pytest.mark.slow  # a minute on two busy cores: 13 processes are ended
def test_several_in_one_unit_and_one_that_is_innocent(
    tmp_path: Path, score_night: Score, score_night_on_ray: Score, obeyed: None
) -> None:
    good, ends = good_images(6), ("segfault", "hang", "hold", "exit")
    bad = {f"{how}.png": poison.poisoned(texture(50 + place), how) for place, how in enumerate(ends)}
    innocent = poison.poisoned(texture(60), f"once:{tmp_path / 'was'}")
    write_group(tmp_path / "sound", NIGHT, "screw", good | {"innocent.png": png(texture(60))})
    score_night(tmp_path / "sound", tmp_path / "expected")
    write_group(tmp_path / "archive", NIGHT, "screw", good | bad | {"innocent.png": innocent})
    record = score_night_on_ray(tmp_path / "archive", tmp_path / "lake", **SETTINGS, **{"run.max_image_seconds": 2.0})
    assert (record.state, record.ok, record.failed) == ("published", 7, 4)
    assert failed(tmp_path / "lake") == {
        "exit.png": poison.KILLED,
        "hang.png": LATE,
        "hold.png": f"{poison.KILLED}, or it took longer than run.max_image_seconds 2",
        "segfault.png": poison.KILLED,
    }
    assert scores(tmp_path / "lake") == pytest.approx(scores(tmp_path / "expected"), abs=1e-6)

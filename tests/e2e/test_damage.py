"""Bytes that a disk lost or turned: set aside with a warning, made again, and the scores are those of a sound disk."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from patchead.errors import DamagedFileError
from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.runtime.executor import Executor
from patchead.runtime.inline_executor import InlineExecutor
from patchead.runtime.ray_executor import RayExecutor
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL, good_images, rows, write_group

NIGHT = "2026-11-21"
SLOW = pytest.mark.slow  # what has a sibling that is not


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damage")
    for product, seed in (("screw", 0), ("cable", 50)):
        write_group(root, NIGHT, product, good_images(9, seed))
    return root


@pytest.fixture(scope="module")
def sound_lake(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("sound")
    night(archive, lake)
    return lake


@pytest.fixture(scope="module")
def sound(sound_lake: Path) -> dict[str, float]:
    return scores(sound_lake)


def night(
    archive: Path, lake: Path, until: str = "publish", executor: Callable[[], Executor] = InlineExecutor, **more: object
) -> tuple[RunRecord, str]:
    given = SMALL | {"archive.uri": str(archive), "lake.uri": str(lake), "run.run_id": "a", "lake.images_per_file": 4}
    out = io.StringIO()
    config = load_config(None, given=given | more)
    return run_night(config, Console(file=out, width=500), executor(), until=until), out.getvalue()


def scores(lake: Path) -> dict[str, float]:
    return {row["image_id"]: row["score"] for row in rows(lake)}


def flip(path: Path, seed: int) -> None:
    """One bit among the values, which lie in the middle of the file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << int(np.random.default_rng(seed).integers(8))
    path.write_bytes(data)


def empty(path: Path, seed: int) -> None:
    """What a loss of power leaves of a file whose bytes were not on the disk before its name."""
    path.write_bytes(b"")


def cut(path: Path, seed: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(np.random.default_rng(seed).integers(1, len(data)))])


@pytest.mark.parametrize("damage", [flip, pytest.param(empty, marks=SLOW), pytest.param(cut, marks=SLOW)])
def test_damaged_embeddings_are_made_again(
    archive: Path, sound: dict[str, float], tmp_path: Path, damage: Callable[[Path, int], None]
) -> None:
    night(archive, tmp_path, until="embed")
    units = sorted((tmp_path / "embeddings").rglob("units/*.arrow"))
    for seed, path in enumerate(units[:3]):
        damage(path, seed)
    record, told = night(archive, tmp_path)
    assert scores(tmp_path) == sound
    assert record.failed == 0
    assert told.count("warning:") == 3
    assert len(list((tmp_path / "embeddings").rglob("damaged/*"))) == 3
    assert all(path.name in told for path in units[:3])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("*.receipts.parquet", cut),
        pytest.param("*.receipts.parquet", empty, marks=SLOW),
        ("*.folders.parquet", empty),
        pytest.param("*.folders.parquet", cut, marks=SLOW),
        ("*.hashes.arrow", cut),
        pytest.param("*.hashes.arrow", empty, marks=SLOW),
    ],
)
def test_a_damaged_index_is_set_aside_and_the_next_night_goes_on(
    archive: Path, sound_lake: Path, tmp_path: Path, damage: Callable[[Path, int], None], name: str
) -> None:
    shutil.copytree(sound_lake, tmp_path, dirs_exist_ok=True)
    (path,) = (tmp_path / "embeddings").rglob(f"parts/{name}")
    damage(path, 0)
    record, told = night(archive, tmp_path, **{"run.run_id": "b"})
    assert scores(tmp_path) == scores(sound_lake)
    if damage is empty and "hashes" not in name:  # hashes are read where an image is not known by its id
        assert "warning:" in told
        assert record.embedded == 18


def test_damaged_receipts_of_a_killed_run_and_its_manifest_are_made_again(
    archive: Path, sound: dict[str, float], tmp_path: Path
) -> None:
    night(archive, tmp_path, until="embed")
    (store,) = (tmp_path / "embeddings").iterdir()
    (store / "pending").mkdir(exist_ok=True)
    for number in range(5):
        (store / "pending" / f"u{number}.parquet").write_bytes(b"")
    (tmp_path / "runs/a/manifest.parquet").write_bytes(b"")
    _, told = night(archive, tmp_path)
    assert scores(tmp_path) == sound
    assert told.count("warning:") == 6


@pytest.mark.parametrize("damage", [flip, pytest.param(empty, marks=SLOW), pytest.param(cut, marks=SLOW)])
def test_a_damaged_staged_group_is_scored_again(
    archive: Path, sound: dict[str, float], tmp_path: Path, damage: Callable[[Path, int], None]
) -> None:
    night(archive, tmp_path, until="score")
    for seed, path in enumerate((tmp_path / "runs/a/groups").glob("*.arrow")):
        damage(path, seed)
    _, told = night(archive, tmp_path)
    assert scores(tmp_path) == sound
    assert told.count("warning:") == 2


@SLOW
def test_damage_is_found_through_ray(archive: Path, sound: dict[str, float], tmp_path: Path, local_ray: None) -> None:
    night(archive, tmp_path, until="embed")
    for seed, path in enumerate(sorted((tmp_path / "embeddings").rglob("units/*.arrow"))[:2]):
        flip(path, seed)
    _, told = night(archive, tmp_path, executor=RayExecutor)
    assert told.count("warning:") == 2
    assert scores(tmp_path) == pytest.approx(sound, abs=1e-6)


@SLOW
def test_a_disk_that_damages_everything_ends_the_night_with_the_file(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written to the store of embeddings is damaged at once."""
    from patchead.files import Folder

    write = Folder.write

    def damaging(folder: Folder, name: str, fill: Callable[..., object]) -> str:
        uri = write(folder, name, fill)
        if folder.uri.endswith("units"):
            flip(Path(uri), 0)
        return uri

    monkeypatch.setattr(Folder, "write", damaging)
    with pytest.raises(DamagedFileError, match=r"units/.*is damaged"):
        night(archive, tmp_path)

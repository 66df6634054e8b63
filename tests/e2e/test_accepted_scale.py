"""A night is compared with an accepted one on the brightness scale of that: 12 bits in 16, and a dark night."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchead.errors import SettingsError
from patchead.nightly.run_record import RunRecord
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import by_id, good_images, write_group

Score = Callable[..., RunRecord]
BEFORE, NIGHT = "2026-11-20", "2026-11-21"
BY_REFERENCE = {"scoring.verdict": "reference", "scoring.alpha": 0.05}
WIDE = {"encoder.name": "timm/vit_tiny_patch16_224"}  # one that sees that an image is dark


def parts(count: int, largest: int, first_seed: int = 0) -> dict[str, bytes]:
    """16-bit photos of values up to about ``largest``."""
    found = {}
    for number in range(count):
        shape = np.random.default_rng(first_seed + number).integers(largest // 2, largest + 1, (8, 8))
        sink = io.BytesIO()
        Image.fromarray(shape.repeat(8, 0).repeat(8, 1).astype(np.uint16)).save(sink, "TIFF")
        found[f"part{number:02d}.tif"] = sink.getvalue()
    return found


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, score_night: Score) -> Path:
    """A lake with an accepted night of 12 bits, and of a product of 8; tests must not change it."""
    root = tmp_path_factory.mktemp("accepted-scale")
    write_group(root / "archive", BEFORE, "screw", parts(24, 4000))
    write_group(root / "archive", BEFORE, "nut", good_images(24))
    record = score_night(root / "archive", root / "lake", **{**WIDE, "run.run_id": "r1"})
    assert record.scoring["bit_depth"] == {f"night={BEFORE}/product=screw": 12}
    assert patchead("accept", "r1", "--lake", str(root / "lake"), "--name", "october").code == 0
    return root / "lake"


@pytest.mark.parametrize("references", ["night", "accepted"])
def test_a_dark_night_has_the_scale_of_the_accepted_one(
    scored: Path, score_night: Score, tmp_path: Path, references: str
) -> None:
    archive, lake = tmp_path / "archive", shutil.copytree(scored, tmp_path / "lake")
    write_group(archive, NIGHT, "screw", parts(6, 1000, first_seed=100))
    write_group(archive, NIGHT, "nut", parts(6, 1000, first_seed=200))  # the accepted ones have 8 bits: no scale
    given = {**WIDE, **BY_REFERENCE, "scoring.references": references, "archive.night": NIGHT}
    record = score_night(archive, lake, **given)
    assert record.scoring["bit_depth"] == {f"night={NIGHT}/product=screw": 12, f"night={NIGHT}/product=nut": 10}
    fixed = score_night(archive, tmp_path / "fixed", **{**WIDE, "archive.bit_depth": 12, "archive.products": ["screw"]})
    assert fixed.ok == 6
    if references == "night":
        alone = {image: row["score"] for image, row in by_id(tmp_path / "fixed").items()}
        found = {image: row["score"] for image, row in by_id(lake).items() if image in alone}
        assert found == pytest.approx(alone, abs=1e-6)


def test_a_night_above_the_accepted_scale_is_refused_with_both(
    scored: Path, score_night: Score, tmp_path: Path
) -> None:
    archive, lake = tmp_path / "archive", shutil.copytree(scored, tmp_path / "lake")
    write_group(archive, NIGHT, "screw", parts(6, 16000))
    told = (
        rf"night={NIGHT}/product=screw cannot .*'october' \(run r1\): with archive\.bit_depth=auto .* 14 bits.* as 12,"
        r".*Set archive\.bit_depth=14"
    )
    with pytest.raises(SettingsError, match=told):
        score_night(archive, lake, **{**WIDE, **BY_REFERENCE, "archive.night": NIGHT, "run.run_id": "r2"})
    own = score_night(archive, lake, **{**WIDE, "archive.night": NIGHT})
    assert own.scoring["bit_depth"] == {f"night={NIGHT}/product=screw": 14}


def test_prompts_have_the_scale_of_the_accepted_night_too(score_night: Score, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts" / "product=screw"
    prompts.mkdir(parents=True)
    for name, data in parts(6, 1000, first_seed=300).items():
        (prompts / name).write_bytes(data)
    write_group(tmp_path / "archive", BEFORE, "screw", parts(24, 4000))
    write_group(tmp_path / "archive", NIGHT, "screw", parts(2, 1000, first_seed=100))
    few_shot = {"scoring.mode": "few_shot", "prompts.uri": str(tmp_path / "prompts")}
    lake = tmp_path / "lake"
    score_night(tmp_path / "archive", lake, **few_shot, **{"archive.night": BEFORE, "run.run_id": "r1"})
    assert patchead("accept", "r1", "--lake", str(lake)).code == 0
    record = score_night(tmp_path / "archive", lake, **few_shot, **BY_REFERENCE, **{"archive.night": NIGHT})
    assert record.scoring["bit_depth"] == {"product=screw": 12, f"night={NIGHT}/product=screw": 12}
    assert (record.embedded, record.ok) == (2, 2)

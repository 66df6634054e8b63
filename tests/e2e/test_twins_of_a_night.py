"""The same picture in different bytes: no reference of itself, in the job and in the notebook alike."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import patchead
from patchead.nightly.run import run_night
from patchead.nightly.run_record import RunRecord
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL, by_id, spoiled, texture, write_group
from tests.helpers.sample_photos import real_photos

Score = Callable[..., RunRecord]
NIGHT = "2026-11-21"


def encoded(image: np.ndarray, format: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, format, **options)
    return sink.getvalue()


def files() -> dict[str, bytes]:
    """Ten photos; the spoiled one three more times, in other bytes."""
    plain = {f"good{number}.png": encoded(texture(number), "PNG") for number in range(9)}
    bad = spoiled(50)
    again = {
        "bad.bmp": encoded(bad, "BMP"),
        "bad.jpg": encoded(bad, "JPEG", quality=95, subsampling=0),
        "bad.png": encoded(bad, "PNG"),
        "bad.tif": encoded(bad, "TIFF", compression="tiff_lzw"),
    }
    return plain | again


def test_a_defect_is_not_hidden_by_its_own_copies(tmp_path: Path, score_night: Score) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", files())
    out = io.StringIO()
    given = SMALL | {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake")}
    record = run_night(load_config(None, given=given), Console(file=out, width=200), InlineExecutor())
    found = {image_id.rpartition("/")[2]: row for image_id, row in by_id(tmp_path / "lake").items()}
    assert {name: row["n_references"] for name, row in found.items()} == {
        name: 9 if name.startswith("bad") else 12 for name in files()
    }
    assert {name for name in found if found[name]["rank"] <= 4} == {name for name in found if name.startswith("bad")}
    assert record.scoring["twins"] == 4
    assert "4 images show the same pixels as another one: no references of each other" in out.getvalue()
    assert len({row["content_hash"] for row in found.values()}) == 13  # what it is of stays
    again = score_night(tmp_path / "archive", tmp_path / "lake")
    assert (again.embedded, again.scoring["twins"]) == (0, 4)

    options = {"encoder": SMALL["encoder.name"], "weights": "random", "image_size": 64, "layers": ["last"]}
    scored = patchead.score([*files().values()], precision="fp32", **(options | {"layers": "last"}))
    assert dict(zip(files(), scored.table["n_references"].to_pylist(), strict=True)) == {
        name: row["n_references"] for name, row in found.items()
    }


def test_a_stuck_frame_is_known_however_strongly_each_file_was_compressed(tmp_path: Path, score_night: Score) -> None:
    """Half of the night is one real frame, and no two of its files have the same losses."""
    frame, *others = real_photos(9)
    qualities = [95, 20, 80, 30, 70, 40, 60, 50]
    night = {f"stuck{q}.jpg": encoded(frame, "JPEG", quality=q) for q in qualities}
    night |= {f"part{n}.jpg": encoded(image, "JPEG", quality=85) for n, image in enumerate(others)}
    write_group(tmp_path / "archive", NIGHT, "screw", night)
    record = score_night(tmp_path / "archive", tmp_path / "lake")
    found = {image_id.rpartition("/")[2]: row["n_references"] for image_id, row in by_id(tmp_path / "lake").items()}
    assert found == {name: 8 if name.startswith("stuck") else 15 for name in night}
    assert record.scoring["twins"] == 8
    options = {"encoder": SMALL["encoder.name"], "weights": "random", "image_size": 64, "layers": "last"}
    scored = patchead.score([*night.values()], precision="fp32", **options)
    assert dict(zip(night, scored.table["n_references"].to_pylist(), strict=True)) == found


def test_a_prompt_that_is_the_query_in_other_bytes_is_no_reference_of_it(tmp_path: Path, score_night: Score) -> None:
    write_group(tmp_path / "archive", NIGHT, "screw", files())
    prompts = tmp_path / "prompts" / "product=screw"
    prompts.mkdir(parents=True)
    for number in range(4):
        (prompts / f"p{number}.bmp").write_bytes(encoded(texture(number), "BMP"))
    settings = {"scoring.mode": "few_shot", "prompts.uri": str(tmp_path / "prompts")}
    record = score_night(tmp_path / "archive", tmp_path / "lake", **settings)
    found = {image_id.rpartition("/")[2]: row["n_references"] for image_id, row in by_id(tmp_path / "lake").items()}
    assert [found[f"good{number}.png"] for number in range(9)] == [3] * 4 + [4] * 5
    assert record.scoring["twins"] == 4

    images, normal = [encoded(texture(n), "PNG") for n in range(6)], [p.read_bytes() for p in sorted(prompts.iterdir())]
    scored = patchead.score(images, prompts=normal, encoder="timm/test_vit", weights="random", image_size=64)
    assert scored.table["n_references"].to_pylist() == [3] * 4 + [4] * 2


@pytest.mark.parametrize(("photos", "rule"), [(3, "few_shot"), (2, "few_prompts")])
def test_prompts_that_were_saved_twice_are_no_references_of_each_other(tmp_path: Path, photos: int, rule: str) -> None:
    """They would say that normal images do not differ at all, and flag the whole night."""
    night = {f"good{number}.png": encoded(texture(number), "PNG") for number in range(10, 16)}
    write_group(tmp_path / "archive", NIGHT, "screw", night)
    prompts = tmp_path / "prompts" / "product=screw"
    prompts.mkdir(parents=True)
    for number in range(photos):
        (prompts / f"{number}.png").write_bytes(encoded(texture(number), "PNG"))
        (prompts / f"{number}.jpg").write_bytes(encoded(texture(number), "JPEG", quality=95, subsampling=0))
    out = io.StringIO()
    given = SMALL | {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake")}
    given |= {"scoring.mode": "few_shot", "prompts.uri": str(tmp_path / "prompts")}
    run_night(load_config(None, given=given), Console(file=out, width=200), InlineExecutor())
    told = f"{photos} of {2 * photos} prompts show the same photo as another one: {photos} different ones count"
    assert told in out.getvalue()
    found = by_id(tmp_path / "lake").values()
    assert {(row["n_references"], row["verdict_rule"]) for row in found} == {(2 * photos, rule)}
    assert not any(row["is_anomalous"] for row in found)

    normal = [path.read_bytes() for path in sorted(prompts.iterdir())]
    options = {"encoder": SMALL["encoder.name"], "weights": "random", "image_size": 64, "layers": "last"}
    with pytest.warns(UserWarning, match=told):
        scored = patchead.score([*night.values()], prompts=normal, precision="fp32", **options)
    assert (scored.verdict.rule, len(scored.table)) == (rule, 6)
    assert scored.table["z"].to_pylist() == pytest.approx([row["z"] for row in found], abs=1e-3)


@pytest.mark.parametrize("parts", [None, "part_id"])
def test_a_part_id_stays_the_explicit_way(tmp_path: Path, score_night: Score, parts: str | None) -> None:
    for number in range(6):
        folder = tmp_path / f"archive/night={NIGHT}/product=screw/part_id=p{number // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(texture(number), "PNG"))
    settings = {} if parts is None else {"archive.part_id_column": parts}
    record = score_night(tmp_path / "archive", tmp_path / "lake", **settings)
    assert record.scoring["twins"] == 0
    assert {row["n_references"] for row in by_id(tmp_path / "lake").values()} == {5 if parts is None else 4}

"""Families and names by example over nights of one lake: the same ids, the names people gave, and no other score."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchead.lake.query import query
from patchead.nightly.run_record import RunRecord
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import good_images, png, rows, spoiled, texture, write_group

Score = Callable[..., RunRecord]
NIGHTS = ("2026-11-20", "2026-11-21", "2026-11-22")
SETTINGS = {"scoring.verdict": "top", "scoring.flag_top": 6}
NAMES = ("family", "family_medoid", "defect_type", "defect_confidence", "defect_p", "defect_runner_up", "naming_id")


def barred(seed: int) -> np.ndarray:
    """A texture with dark bars."""
    image = texture(seed)
    image[30:46:3, 2:46] = 0
    return image


def defects(first_seed: int) -> dict[str, bytes]:
    """Three of each of two types."""
    found = {f"red{i}.png": png(spoiled(first_seed + i)) for i in range(3)}
    return found | {f"bars{i}.png": png(barred(first_seed + 50 + i)) for i in range(3)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    for number, night in enumerate(NIGHTS):
        write_group(root, night, "screw", good_images(10, 100 * number) | defects(1000 + 100 * number))
    return root


def found(lake: Path, night: str) -> list[dict[str, Any]]:
    return [row for row in rows(lake, "regions") if str(row["night"]) == night]


def look(row: dict[str, Any]) -> str:
    return Path(row["image_id"]).name.rstrip(".png0123456789")


def family_of(lake: Path, night: str) -> dict[str, str]:
    """The family of each look; every region of one look is in one, and none of the other is."""
    pairs = {(look(row), row["family"]) for row in found(lake, night)}
    assert len(pairs) == len(dict(pairs)) == len({family for _, family in pairs}) == 2
    return dict(pairs)


def without_names(lake: Path, name: str) -> list[dict[str, Any]]:
    left = {*NAMES, "run_id", "heatmap_path"}
    return [{key: value for key, value in row.items() if key not in left} for row in rows(lake, name)]


def test_a_family_stays_is_named_and_names_the_next_night(archive: Path, tmp_path: Path, score_night: Score) -> None:
    lake, plain = tmp_path / "lake", tmp_path / "plain"

    def score(night: str, lake: Path = lake, **settings: Any) -> RunRecord:
        return score_night(archive, lake, **SETTINGS | {"archive.night": night} | settings)

    first = score(NIGHTS[0]).scoring["naming"]
    assert (first["images"], first["regions"], first["families"], first["known_families"]) == (6, 6, 2, 0)
    score(NIGHTS[0], plain, **{"naming.families": False})
    for name in ("scores", "regions", "verdicts"):
        assert without_names(lake, name) == without_names(plain, name)
    assert not set(NAMES) & set(rows(plain, "regions")[0])

    assert score(NIGHTS[1]).scoring["naming"]["known_families"] == 2
    families = family_of(lake, NIGHTS[0])
    assert family_of(lake, NIGHTS[1]) == families
    assert all(row.get("defect_type") is None for row in found(lake, NIGHTS[1]))
    told = query(str(lake), Storage(), "FROM families ORDER BY family").to_pylist()
    assert [row["family"] for row in told] == sorted(families.values())
    for row in told:
        assert (row["first_night"], row["last_night"]) == tuple(map(dt.date.fromisoformat, NIGHTS[:2]))
        assert (row["nights"], row["images"], row["regions"]) == (2, 6, 6)
        assert families[look(row)] == row["family"]
        assert Path(row["heatmap_uri"]).exists() and row["image_id"].startswith(f"night={NIGHTS[1]}")

    assert patchead("report", "--lake", str(lake), "--out", str(tmp_path / "page")).code == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert all(f"<code>{family}</code>" in page for family in families.values())
    pictures = {path.name for path in (tmp_path / "page" / "patches").glob("*-region-*.webp")}
    assert len(pictures) == 6 and all(f"patches/{name}" in page for name in pictures)

    done = patchead("name", families["red"], "burn", "--lake", str(lake), "--by", "eve")
    assert (done.code, "6 regions, called burn" in done.out) == (0, True)
    assert score(NIGHTS[2]).scoring["naming"]["types"] == {"burn": 3, "unknown": 3}
    assert family_of(lake, NIGHTS[2]) == families
    for row in found(lake, NIGHTS[2]):
        is_red = look(row) == "red"
        assert row["defect_type"] == ("burn" if is_red else "unknown")
        assert (row["defect_p"] > 0.05) == is_red
        assert row["naming_id"].startswith("example-")
        assert row["defect_runner_up"] == (None if is_red else "burn")

    again = score(NIGHTS[0])  # a night that is scored again keeps its families, and gets the names
    assert again.scoring["naming"]["known_families"] == 2
    assert family_of(lake, NIGHTS[0]) == families
    assert {row["run_id"] for row in rows(lake, "region_vectors") if str(row["night"]) == NIGHTS[0]} == {again.run_id}

    other = score(NIGHTS[1], **{"encoder.image_size": 48})  # another encoder: no family and no name of the other one
    assert other.scoring["naming"]["known_families"] == 0
    assert other.scoring["naming"]["types"] == {}
    refused = patchead("name", family_of(lake, NIGHTS[1])["bars"], "scratch", "--lake", str(lake))
    assert refused.code == 2
    encoders = {row["encoder_id"] for row in rows(lake)}
    assert len(encoders) == 2 and all(encoder in refused.err for encoder in encoders)


@pytest.mark.slow
def test_regions_are_named_by_a_file_and_names_are_taken_back(
    archive: Path, tmp_path: Path, score_night: Score
) -> None:
    lake = tmp_path / "lake"
    score_night(archive, lake, **SETTINGS | {"archive.night": NIGHTS[0]})
    said = {"red": "burn", "bars": "scratch"}
    lines = [f"{row['image_id']},{row['region']},{said[look(row)]}" for row in found(lake, NIGHTS[0])]
    (tmp_path / "names.csv").write_text("image_id,region,type\n" + "\n".join(lines))
    assert patchead("name", "--file", str(tmp_path / "names.csv"), "--lake", str(lake)).code == 0
    record = score_night(archive, lake, **SETTINGS | {"archive.night": NIGHTS[1]})
    assert record.scoring["naming"]["types"] == {"burn": 3, "scratch": 3}
    assert all(row["defect_type"] == said[look(row)] for row in found(lake, NIGHTS[1]))
    assert patchead("name", "--forget", "--product", "screw", "--lake", str(lake)).code == 0
    assert score_night(archive, lake, **SETTINGS | {"archive.night": NIGHTS[2]}).scoring["naming"]["types"] == {}


@pytest.mark.slow
def test_crops_of_defects_name_the_regions_that_show_them(archive: Path, tmp_path: Path, score_night: Score) -> None:
    lake, crops = tmp_path / "lake", tmp_path / "crops"
    boxes = {"burn": (slice(12, 36), slice(12, 36)), "scratch": (slice(28, 46), slice(4, 44))}
    for name, make in (("burn", spoiled), ("scratch", barred)):
        (crops / name).mkdir(parents=True)
        for seed in range(4):
            (crops / name / f"{seed}.png").write_bytes(png(make(7000 + seed)[boxes[name]]))
    arguments = ["name", "--crops", str(crops), "--product", "screw", "--lake", str(lake)]
    early = patchead(*arguments)
    assert (early.code, "--product must be a product with a published night" in early.err) == (2, True)
    score_night(archive, lake, **SETTINGS | {"archive.night": NIGHTS[0]})
    done = patchead(*arguments)
    assert (done.code, "4 burn, 4 scratch recorded" in done.out) == (0, True), done.err
    score_night(archive, lake, **SETTINGS | {"archive.night": NIGHTS[1], "naming.level": 0.001})
    said = {"red": "burn", "bars": "scratch"}
    for row in found(lake, NIGHTS[1]):  # the weights are random: how near is another matter
        nearest = row["defect_runner_up"] if row["defect_type"] == "unknown" else row["defect_type"]
        assert nearest == said[look(row)]
    (crops / "burn" / "large.png").write_bytes(png(texture(1, 60)))
    refused = patchead(*arguments)
    assert (refused.code, "at most 48 x 48" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["f0", "burn"], "FAMILY must be a family of the view families; got 'f0'. No region is described yet"),
        (["f0"], "name takes FAMILY and TYPE, or --file, --crops or --forget; got FAMILY TYPE"),
        ([], "got nothing"),
        (["--forget"], "add --product NAME"),
        (["--crops", "{tmp}"], "add --product NAME"),
        (["--crops", "{tmp}", "--product", "screw"], "one folder of images for each type"),
        (["--file", "{tmp}/none.csv"], "{tmp}/none.csv does not exist. Check the path"),
        (["--file", "{tmp}/other.csv"], "has no column 'region'; it has 'image_id', 'type'"),
        (["--file", "{tmp}/gone.csv"], "1 of 1 regions of {tmp}/gone.csv are described by no published run"),
        (["--file", "{tmp}/twice.csv"], "row 2 of {tmp}/twice.csv says 'b' of x region 1, an earlier one 'a'"),
        (["--file", "{tmp}/odd.csv"], "has region 'first', not a number"),
        (["--file", "{tmp}/empty.csv"], "has no row"),
    ],
)
def test_what_cannot_be_named_is_told(tmp_path: Path, arguments: list[str], told: str) -> None:
    files = {
        "other": "image_id,type\nx,a\n",
        "gone": "image_id,region,type\nx,1,a\n",
        "empty": "image_id,region,type\n",
    }
    files |= {"twice": "image_id,region,type\nx,1,a\nx,1,b\n", "odd": "image_id,region,type\nx,first,a\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    asked = [argument.format(tmp=tmp_path) for argument in arguments]
    done = patchead("name", *asked, "--lake", str(tmp_path / "lake"))
    assert done.code != 0
    assert told.format(tmp=tmp_path) in " ".join(done.err.split())

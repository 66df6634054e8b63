"""A night by bound and refine is the night of the full search: rows, verdicts, regions and pictures."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from patchead.forecast.plan_report import print_plan
from patchead.nightly.run_record import RunRecord
from patchead.settings.load import load_config
from tests.helpers.e2e_tools import SMALL, png, rows, write_group

Score = Callable[..., RunRecord]
SIZE, N, BAD = 128, 72, (7, 40)
#: Of small patches, so that a window of nine is a small part of them.
SETTINGS = {"encoder.image_size": 160, "scoring.fraction": 0.05, "explain.top": 5, "run.run_id": "r1"}
SEARCH = {"search", "search_share", "search_refined", "search_alike", "search_offset"}


def part(number: int) -> np.ndarray:
    """A part that lies like the others, uint8 (SIZE, SIZE, 3): one drawing with noise of its own; two have a mark."""
    drawing = np.random.default_rng(0).integers(60, 200, (16, 16)).repeat(SIZE // 16, 0).repeat(SIZE // 16, 1)
    rng = np.random.default_rng(100 + number)
    image = drawing + rng.normal(0, 3, drawing.shape)
    if number in BAD:
        image[40:60, 64:96] = 250 - 60 * (number == BAD[0])
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, score_night: Score) -> dict[str, tuple[Path, RunRecord]]:
    """The lake and the record of one night by each schedule."""
    root = tmp_path_factory.mktemp("bounded")
    write_group(root / "archive", "2026-11-21", "plate", {f"{n:03d}.png": png(part(n)) for n in range(N)})
    found = {}
    for schedule in ("symmetric", "bounded", "auto"):
        lake = root / schedule
        if found:
            shutil.copytree(root / "symmetric" / "embeddings", lake / "embeddings")
        record = score_night(root / "archive", lake, **SETTINGS, **{"scoring.schedule": schedule})
        found[schedule] = lake, record
    return found


@pytest.mark.parametrize("schedule", ["bounded", "auto"])
def test_every_row_and_picture_is_that_of_the_full_search(
    nights: dict[str, tuple[Path, RunRecord]], schedule: str
) -> None:
    (full, _), (bounded, record) = nights["symmetric"], nights[schedule]
    (verdict,) = rows(bounded, "verdicts")
    assert verdict["search"] in ("window", "projection")
    assert verdict["search_share"] < 0.5
    assert 0 < verdict["search_refined"] < 0.2
    assert (verdict["search_alike"], verdict["search_offset"]) == (pytest.approx(1, abs=0.02), 0)
    assert record.scoring["searches"] == {verdict["search"]: 1}
    share = record.scoring["search_shares"][verdict["search"]]
    assert share["multiplications"] == pytest.approx(verdict["search_share"], abs=1e-6)
    assert share["refined"] == pytest.approx(verdict["search_refined"], abs=1e-6)
    assert 0 < record.scoring["searched_to_show"] < N // 2
    for table in ("scores", "regions", "verdicts"):
        expected, got = ([_plain(row) for row in _sorted(rows(lake, table))] for lake in (full, bounded))
        assert len(expected) == len(got)
        for one, other in zip(expected, got, strict=True):
            assert other == pytest.approx(one, abs=1e-6)
    pictures = [sorted((lake / "heatmaps").rglob("*.png")) for lake in (full, bounded)]
    assert [p.name for p in pictures[0]] == [p.name for p in pictures[1]]
    assert len(pictures[0]) >= 5
    for one, other in zip(*pictures, strict=True):
        np.testing.assert_allclose(*(np.asarray(Image.open(p), np.int16) for p in (one, other)), atol=1)


def test_the_plan_of_the_next_night_tells_how_this_one_was_searched(
    nights: dict[str, tuple[Path, RunRecord]], tmp_path: Path
) -> None:
    lake, _ = nights["auto"]
    (verdict,) = rows(lake, "verdicts")
    write_group(tmp_path / "archive", "2026-11-22", "plate", {f"{n:03d}.png": png(part(n)) for n in range(N)})
    given = SMALL | SETTINGS | {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(lake)}
    sink = io.StringIO()
    print_plan(load_config(None, given=given), Console(file=sink, width=200))
    assert "symmetric or bounded" in sink.getvalue()
    share = f"{verdict['search_share']:.1%} of the multiplications"
    assert f"searched last time: night=2026-11-21/product=plate {verdict['search']} ({share})" in sink.getvalue()


def _sorted(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda row: (row.get("image_id", ""), row.get("region", 0)))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what tells how it was searched and where its picture lies."""
    return {key: value for key, value in row.items() if key not in SEARCH | {"heatmap_path"}}

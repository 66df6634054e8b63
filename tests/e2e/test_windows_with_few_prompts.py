"""A window and one or two prompts: their moved views would score so high within it that nothing is flagged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from patchead.errors import PlanError
from patchead.forecast.plan_report import print_plan
from patchead.nightly.run import run_night
from patchead.runtime.inline_executor import InlineExecutor
from patchead.settings.load import load_config
from tests.e2e.test_bounded_night import part
from tests.helpers.e2e_tools import SMALL, png, rows, write_group

NIGHT, REASON = "2026-11-21", "full: fewer than 3 prompts that differ"
REFUSED = r"group night=2026-11-21/product=plate: scoring\.window must be off or auto with fewer than 3 prompts that "


def given(root: Path, prompts: dict[str, bytes], **settings: Any) -> dict[str, Any]:
    """Settings of a night of 12 plates that lie alike, one of them with a mark, and prompts."""
    if not (root / "archive").exists():
        write_group(root / "archive", NIGHT, "plate", {f"{n:03d}.png": png(part(n)) for n in range(12)})
        folder = root / "prompts" / "product=plate"
        folder.mkdir(parents=True)
        for name, data in prompts.items():
            (folder / name).write_bytes(data)
    few_shot = {"scoring.mode": "few_shot", "prompts.uri": str(root / "prompts")}
    return SMALL | {"archive.uri": str(root / "archive"), "lake.uri": str(root / "lake")} | few_shot | settings


def run(settings: dict[str, Any]) -> str:
    out = io.StringIO()
    try:
        run_night(load_config(None, given=settings), Console(file=out, width=200), InlineExecutor())
    finally:
        told = out.getvalue()
    return told


@pytest.mark.parametrize(("count", "schedule"), [(1, "auto"), (2, "bounded")])
def test_auto_searches_fully_and_says_why(tmp_path: Path, count: int, schedule: str) -> None:
    prompts = {f"{n}.png": png(part(100 + n)) for n in range(count)}
    found = {}
    for window in ("off", "auto"):
        lake = tmp_path / window
        of = {"lake.uri": str(lake), "scoring.window": window}
        run(given(tmp_path, prompts, **of, **({"scoring.schedule": schedule} if window == "auto" else {})))
        (verdict,) = rows(lake, "verdicts")
        found[window] = verdict, [row["score"] for row in rows(lake)], [row["is_anomalous"] for row in rows(lake)]
    (off, scores, flagged), (auto, same, too) = found["off"], found["auto"]
    assert (auto["search"], auto["search_share"]) == (REASON, 1.0)
    assert auto["threshold_score"] == off["threshold_score"]
    assert (same, too) == (scores, flagged)


def test_a_number_of_cells_is_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    settings = given(tmp_path, {f"{n}.png": png(part(100 + n)) for n in range(2)}, **{"scoring.window": 1})
    with pytest.raises(PlanError, match=REFUSED + r"differ; got 1\. .* Give 3 different normal images or more, or set"):
        run(settings)
    assert not (tmp_path / "lake" / "embeddings").exists()
    with pytest.raises(PlanError, match=REFUSED):
        print_plan(load_config(None, given=settings), Console(file=io.StringIO()))


def test_copies_are_counted_before_the_night_is_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [part(100), part(101)]
    prompts = {"0.png": png(images[0]), "1.png": png(images[1]), "again.png": png(np.ascontiguousarray(images[1]))}
    embedded = list[str]()
    monkeypatch.setattr("patchead.nightly.night.Night.embed", lambda *_, **__: embedded.append("the night"))
    with pytest.raises(PlanError, match=REFUSED):
        run(given(tmp_path, prompts, **{"scoring.window": 0}))
    assert not embedded

"""Few-shot scores are compared with accepted ones of the same prompts only: other photos give other scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from patchead.errors import SettingsError
from patchead.lake.accepted import Accepted, read_accepted, write_accepted
from patchead.nightly.run_record import RunRecord
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.e2e_tools import good_images, write_group

Score = Callable[..., RunRecord]
BEFORE, NIGHT = "2026-11-20", "2026-11-21"


@pytest.fixture
def few_shot(tmp_path: Path, score_night: Score) -> Callable[..., RunRecord]:
    """Two nights, four prompts; the first night is scored and accepted. Scores the second one."""
    archive, lake, prompts = tmp_path / "archive", tmp_path / "lake", tmp_path / "prompts"
    write_group(archive, BEFORE, "screw", good_images(24))
    write_group(archive, NIGHT, "screw", good_images(3, first_seed=200))
    (prompts / "product=screw").mkdir(parents=True)
    for name, data in good_images(4, first_seed=300).items():
        (prompts / "product=screw" / name).write_bytes(data)
    mode = {"scoring.mode": "few_shot", "prompts.uri": str(prompts)}
    score_night(archive, lake, **{**mode, "archive.night": BEFORE, "run.run_id": "r1"})
    assert patchead("accept", "r1", "--lake", str(lake), "--name", "october").code == 0

    def tonight() -> RunRecord:
        by_reference = {"scoring.verdict": "reference", "scoring.alpha": 0.05}
        return score_night(archive, lake, **{**mode, **by_reference, "archive.night": NIGHT, "run.run_id": "r2"})

    return tonight


def test_more_prompts_than_those_of_the_accepted_night_are_refused(few_shot: Score, tmp_path: Path) -> None:
    for name, data in good_images(12, first_seed=400).items():
        (tmp_path / "prompts" / "product=screw" / f"more-{name}").write_bytes(data)
    told = (
        rf"night={NIGHT}/product=screw cannot be compared with 'october' \(run r1\): 4 prompts \(contents \w{{8}}\) "
        r"there, 16 \(contents \w{8}\) here\. Accept a night that was scored with tonight's, .*scoring\.accepted"
    )
    with pytest.raises(SettingsError, match=told):
        few_shot()
    saved = json.loads((tmp_path / "lake/runs/r2/run.json").read_text())
    assert (saved["state"], "embed" in saved["seconds"]) == ("failed", False)


def test_another_photo_under_the_name_of_a_prompt_is_refused(few_shot: Score, tmp_path: Path) -> None:
    (tmp_path / "prompts/product=screw/good000.png").write_bytes(good_images(1, first_seed=500)["good000.png"])
    with pytest.raises(SettingsError, match=r"4 prompts \(contents \w{8}\) there, 4 \(contents \w{8}\) here"):
        few_shot()


def test_the_same_photos_by_other_names_are_compared(few_shot: Score, tmp_path: Path) -> None:
    folder = tmp_path / "prompts" / "product=screw"
    (folder / "good000.png").rename(folder / "zero.png")
    shutil.copy(folder / "zero.png", folder / "again.png")
    assert few_shot().ok == 3
    again = patchead("accept", "r1", "--lake", str(tmp_path / "lake"), "--name", "october")
    assert (again.code, again.out.count("was accepted before")) == (0, 1)


def test_what_an_earlier_version_accepted_is_compared_by_its_settings(few_shot: Score, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    (row,) = read_accepted(lake, Storage())
    kept = json.loads(row.values["settings_json"])
    assert kept.pop("prompts.contents")["photos"] == 4
    write_accepted(lake, Storage(), [Accepted(row.values | {"settings_json": json.dumps(kept)})])
    (tmp_path / "prompts/product=screw/good000.png").unlink()
    assert few_shot().ok == 3

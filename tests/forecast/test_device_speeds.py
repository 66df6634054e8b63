"""Speeds: named, saved, read back, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchead.errors import SettingsError
from patchead.forecast.device_speeds import (
    DATA_SHEET,
    EFFICIENCY,
    NAMED,
    find_figures,
    load_figures,
    named,
    save_figures,
)
from patchead.forecast.plan_report import origin
from tests.helpers.figures import figures


def test_a_data_sheet_is_called_one() -> None:
    assert {device.source for device in NAMED.values()} == {DATA_SHEET}
    assert named("h100").flops["bf16"] == 989e12 * EFFICIENCY
    assert "not measured" in origin(named("H100"))
    assert "25%" in origin(named("H100"))


def test_an_unknown_device_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match=r"--device must be one of .*H100.*got 'H10'.*Did you mean"):
        named("H10")


def test_a_precision_without_a_figure_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"scoring.precision must be .* T4 .*fp32, fp16, int8.*got 'bf16'"):
        named("T4").rate("bf16", 1)
    with pytest.raises(SettingsError, match="patchead calibrate --precision int8"):
        figures().rate("int8", 1)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.json"
    save_figures(figures(threads=3), path)
    assert load_figures(path) == figures(threads=3)
    assert find_figures(None, path) == load_figures(path)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="--output"):
        save_figures(figures(), tmp_path / "file" / "c.json")


def test_the_default_file_is_taken_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_figures(None, None) is None
    save_figures(figures(), tmp_path / ".cache/patchead/calibration.json")
    assert find_figures(None, None) == figures()
    assert find_figures("L4", None) == named("L4")


def test_two_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give one of them"):
        find_figures("L4", tmp_path / "c.json")


def written(tmp_path: Path, text: str | None = None, **changes: object) -> Path:
    path = tmp_path / "c.json"
    save_figures(figures(), path)
    path.write_text(text if text is not None else json.dumps(json.loads(path.read_text()) | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 1}, "version: Input should be 2"),
        ({"speed": 1}, "speed: Extra inputs are not permitted"),
        ({"flops": {}}, "flops: .*at least 1"),
        ({"flops": {"fp32": -1}}, r"flops\.fp32: Input should be greater than 0"),
        ({"flops": {"fp32": True}}, r"flops\.fp32: Input should be a valid number"),
        ({"device": "tpu"}, "device: Input should be 'cpu' or 'cuda'"),
        ({"read_bytes": 0}, "read_bytes"),
        ({"threads": "two"}, "threads"),
        ({"task_seconds": None}, "task_seconds"),
        ({"name": 3}, "name"),
        ({"text": "no json"}, "Invalid JSON"),
        ({"text": "[1]"}, "Input should be an object"),
        ({"text": "{}"}, "name: Field required; source: Field required"),
    ],
)
def test_another_file_is_refused_with_the_remedy(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(SettingsError, match=f"--calibration must be.*{words}") as caught:
        load_figures(path)
    assert f"patchead calibrate --output {path}" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--calibration must be .*nowhere.json.*No such file"):
        find_figures(None, tmp_path / "nowhere.json")

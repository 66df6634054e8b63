"""The README's blocks, executed as they stand but for a small encoder in the place of DINOv2."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command import patchead
from tests.helpers.e2e_tools import ROOT, SMALL_OPTIONS, good_images, png, spoiled, write_group

README = (ROOT / "README.md").read_text(encoding="utf-8")
WITH_AN_ENCODER = ("score", "plan", "evaluate")
ELSEWHERE = {"calibrate": "forecast/test_calibrate.py", "submit": "e2e/test_patchead_submit.py"}


def test_the_notebooks_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, data in {**good_images(6), "worst.png": png(spoiled(99))}.items():
        (tmp_path / "photos" / name).write_bytes(data)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    small = ', encoder="timm/test_vit", weights="random", image_size=64)'
    code, found = re.subn(r"(= patchead\.score\([^#\n]*?)\)(?=\s*#)", rf"\1{small}", block)
    assert found == 2
    known: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), known)
    assert known["scored"].table["rank"].to_pylist()[-1] == 1
    assert known["few"].table["n_references"].to_pylist() == [4]


@pytest.mark.slow
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_group(tmp_path / "archive", "2026-11-21", "screw", good_images(8))
    for folder in ("photos", "mine/test/good", "mine/test/bad"):
        (tmp_path / folder).mkdir(parents=True)
        for name, data in (good_images(6) if "bad" not in folder else {"x.png": png(spoiled(9))}).items():
            (tmp_path / folder / name).write_bytes(data)
    blocks = re.findall(r"```\n(patchead.*?|pip.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("patchead ")]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    done = set()
    for words in commands:
        if words[0] in ELSEWHERE:
            continue
        ended = patchead(*words, *(SMALL_OPTIONS if words[0] in WITH_AN_ENCODER else []))
        assert ended.code == 0, (words, ended.err)
        done.add(words[0])
    assert done == {"encoders", "evaluate", "plan", "score", "report", "query"}
    assert (tmp_path / "report/index.html").exists()

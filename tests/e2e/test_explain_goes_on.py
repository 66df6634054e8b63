"""A run that is killed while it draws draws nothing twice; what it staged and a disk damaged is drawn anew."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.command import patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, good_images, job_environment, rows, write_group
from tests.helpers.forked import Forkserver

NIGHT = "2026-11-21"
PRODUCTS = ("bolt", "nut", "screw", "washer")
KILLED_BEHIND = 2
CODE = f"""
import os, signal, sys
import patchead.nightly.explain_drawing as drawing
from patchead.cli import main

write, done = drawing.write_pictures, []

def written(*arguments, **options):
    write(*arguments, **options)
    done.append(1)
    if len(done) == {KILLED_BEHIND}:
        os.kill(os.getpid(), signal.SIGKILL)

drawing.write_pictures = written
sys.argv[0] = "patchead"
main()
"""


def test_heatmaps_of_a_run_killed_while_it_draws_are_not_drawn_again(tmp_path: Path, forkserver: Forkserver) -> None:
    for number, product in enumerate(PRODUCTS):
        write_group(tmp_path / "archive", NIGHT, product, good_images(5, 5 * number))
    places = ["--archive", str(tmp_path / "archive"), "--lake", str(tmp_path / "lake"), "--run-id", "night"]
    options = ["score", "--local", *SMALL_OPTIONS, "--set=explain.heatmaps=all", *places]
    with forkserver.started(CODE, *options, env=job_environment()) as work:
        assert work.wait() == -9, work.err

    def drawn() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in (tmp_path / "lake/heatmaps").rglob("*.png")}

    before = drawn()
    staged = sorted((tmp_path / "lake/runs/night/explained").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert (len(staged), len(before)) == (KILLED_BEHIND, 5 * KILLED_BEHIND)
    data = bytearray(staged[1].read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    staged[1].write_bytes(data)
    done = patchead(*options)
    assert done.code == 0, done.err
    assert f"{staged[1]} is damaged" in done.out
    kept = {path for path, at in drawn().items() if before.get(path) == at}
    assert {path.split("product=")[1].split("/")[0] for path in kept} == {PRODUCTS[0]}
    assert len(kept) == 5
    found = rows(tmp_path / "lake")
    assert len(found) == 20
    assert {str(tmp_path / "lake" / row["heatmap_path"]) for row in found} == set(drawn())

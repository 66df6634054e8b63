"""Two nights of many small groups on a Ray of this machine, while actors are killed: what is lost, left over and grows.

python jobs/load.py load --images 20000            # 100 groups of 3 to 600; prints tables, draws load/memory.png
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
import typer
from family import Family, Moment
from measured_page import machine

from patchead.commands.options import finite
from patchead.lake.tables import read_rows
from patchead.markdown import markdown_table
from patchead.storage import Storage

NIGHTS = ("2026-11-20", "2026-11-21")
_SMALLEST, _LARGEST, _PER_GROUP = 3, 600, 200
_SIDE = 48
_SETTINGS = {
    "encoder.name": "timm/test_vit",
    "encoder.weights": "random",
    "encoder.image_size": 64,
    "encoder.layers": "last",
    "explain.top": 0,
}


def main(
    folder: Annotated[Path, typer.Argument(help="Where archive, lake and results go; made anew.")],
    images: Annotated[int, typer.Option(min=200, help="Of a night, about.")] = 20_000,
    kill_every: Annotated[
        float, typer.Option(min=0, max=100_000, callback=finite, help="Seconds between two killed actors; 0 for none.")
    ] = 30.0,
    cpus: Annotated[int, typer.Option(min=1, help="Of the Ray that is started.")] = 2,
    seed: Annotated[int, typer.Option(help="Which actors are killed.")] = 0,
) -> None:
    """Score two nights under fire, and print what became of them."""
    folder.mkdir(parents=True)
    sizes = group_sizes(images)
    for number, night in enumerate(NIGHTS):
        write_night(folder / "archive", night, sizes, number)
    found = [score_night(folder, night, kill_every, cpus, random.Random(f"{seed} {night}")) for night in NIGHTS]
    (folder / "load.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found, folder / "memory.png")
    print(f"{machine()}, Ray of {cpus} CPUs: {sum(sizes)} images in {len(sizes)} groups of {sizes[0]} to {sizes[-1]}")
    print(summary(found, sum(sizes)))
    if any(night["lost"] or night["code"] or night["left_over"] for night in found):
        raise typer.Exit(1)


def group_sizes(images: int) -> list[int]:
    """From the smallest group to the largest, many small and few large ones, about ``images`` together."""
    groups = max(2, round(images / _PER_GROUP))
    largest = min(_LARGEST, images // 2)
    return [_SMALLEST + round((largest - _SMALLEST) * (at / (groups - 1)) ** 2) for at in range(groups)]


def write_night(archive: Path, night: str, sizes: Sequence[int], number: int) -> None:
    """A tar of each group: textures of noise, all different."""
    for group, size in enumerate(sizes):
        folder = archive / f"night={night}" / f"product=p{group:04d}"
        folder.mkdir(parents=True)
        rng = np.random.default_rng([number, group])
        base = rng.integers(60, 200, (6, 6, 3)).astype(np.uint8).repeat(_SIDE // 6, 0).repeat(_SIDE // 6, 1)
        with tarfile.open(folder / "photos.tar", "w") as shard:
            for index in range(size):
                picture = np.clip(base + rng.normal(0, 8, base.shape), 0, 255).astype(np.uint8)
                data = cv2.imencode(".png", picture)[1].tobytes()
                member = tarfile.TarInfo(f"{index:04d}.png")
                member.size = len(data)
                shard.addfile(member, BytesIO(data))


def score_night(folder: Path, night: str, kill_every: float, cpus: int, rng: random.Random) -> dict[str, Any]:
    """`patchead score` as a process with a folder for temporary files of its own, watched until it has ended."""
    lake, temporary = folder / "lake", folder / f"tmp-{night}"
    temporary.mkdir()
    words = [f"--set={key}={value}" for key, value in (_SETTINGS | {"resources.local_cpus": cpus}).items()]
    places = ["--archive", str(folder / "archive"), "--lake", str(lake), "--night", night, "--run-id", night]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    with (folder / f"{night}.log").open("w", encoding="utf-8") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "patchead", "score", *places, *words],
            env={
                **kept,
                "TMPDIR": str(temporary),
                "RAY_TMPDIR": "/tmp",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            stdout=log,
            stderr=log,
        )
        family = Family(process.pid)
        moments, killed = list[Moment](), list[str]()
        last = 0.0
        for moment in watched(process, family, started):
            moments.append(moment)
            if kill_every and moment.seconds >= last + kill_every and (victim := family.kill_an_actor(rng)):
                killed, last = [*killed, victim], moment.seconds
    left = [str(path.relative_to(temporary)) for path in temporary.rglob("*") if path.is_file()]
    half = [path.name for path in lake.rglob(".*.tmp")]
    record = json.loads((lake / "runs" / night / "run.json").read_text(encoding="utf-8"))
    rows = read_rows(str(lake), Storage(), "scores", ["image_id", "status"], [("night", "=", night)])
    expected = record["ok"] + record["failed"] + record["skipped"]
    return {
        "night": night,
        "code": process.returncode,
        "seconds": round(time.perf_counter() - started, 1),
        "stages": record["seconds"],
        "images": record["images"],
        "ok": record["ok"],
        "failed": record["failed"],
        "skipped": record["skipped"],
        "lost": record["images"] - len(set(rows["image_id"].to_pylist())) + abs(expected - rows.num_rows),
        "killed": killed,
        "left_over": [*family.alive(), *left],
        "half_written": half,  # by what was killed; `patchead gc` removes them after a day
        "moments": [moment._asdict() for moment in moments],
    }


def watched(process: subprocess.Popen[bytes], family: Family, started: float) -> Iterator[Moment]:
    """Look at the family twice a second, as long as the process lives."""
    try:
        while process.poll() is None:
            yield family.look(time.perf_counter() - started)
            time.sleep(0.5)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def summary(found: Sequence[dict[str, Any]], images: int) -> str:
    """What a person wants to know of each night, as a table of Markdown."""
    stages = list(dict.fromkeys(stage for night in found for stage in night["stages"]))
    header = [
        "night",
        "images",
        "lost",
        "actors killed",
        "left over",
        "half-written files",
        "driver MB, half to end",
        "seconds",
        *stages,
    ]
    rows = []
    for night in found:
        driver = [moment["driver_mb"] for moment in night["moments"]]
        half = f"{max(driver[: len(driver) // 2 + 1]):.0f} to {max(driver[len(driver) // 2 :]):.0f}"
        counts = [
            night["images"],
            night["lost"],
            len(night["killed"]),
            len(night["left_over"]),
            len(night["half_written"]),
        ]
        taken = [f"{night['stages'].get(stage, 0):.1f}" for stage in stages]
        rows.append([night["night"], *map(str, counts), half, f"{night['seconds']:.0f}", *taken])
    return markdown_table(header, rows, 1)


def draw(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Memory that is no file's, of the driver and of all its processes, over the seconds of each night."""
    figure, axes = plt.subplots(1, len(found), figsize=(5 * len(found), 3), squeeze=False)
    for axis, night in zip(axes[0], found, strict=True):
        seconds = [moment["seconds"] for moment in night["moments"]]
        for name in ("driver_mb", "family_mb"):
            axis.plot(seconds, [moment[name] for moment in night["moments"]], label=name.removesuffix("_mb"))
        axis.set(title=night["night"], xlabel="seconds", ylabel="MB", ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    typer.run(main)

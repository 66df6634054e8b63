"""A night of many photos on a Ray of this machine: what each stage takes, how busy GPU and CPUs are.

python jobs/measured_night.py FOLDER --device H100     # an archive of 4,267 photos, its forecast, a night in each way
python jobs/measured_night.py FOLDER --agreement       # a small night on Ray's GPU, and in one process without it
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from measured_page import machine
from photo_archive import group_sizes, write_photos
from stage_watch import Seen, mean_busy, stages_in, watching

from patchead.lake.tables import read_rows
from patchead.markdown import markdown_table
from patchead.storage import Storage

WAYS: Mapping[str, Mapping[str, Any]] = {
    "stage after stage": {},
    "overlapped": {"resources.overlap": True},
    "one encoder on a GPU": {"resources.gpus_per_actor": 1.0},
}
"""By name: the settings that each has above the common ones."""
_AGREEMENT = (12, 20, 32)  # images of the groups


def main(
    folder: Annotated[Path, typer.Argument(help="Where archive, lakes and results go; an archive in it is used.")],
    groups: Annotated[int, typer.Option(min=2)] = 28,
    smallest: Annotated[int, typer.Option(min=3)] = 3,
    largest: Annotated[int, typer.Option(min=3)] = 800,
    way: Annotated[list[str] | None, typer.Option(help="Of the nights; may be repeated. Default: all.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="As of patchead score, of every night.")] = None,
    device: Annotated[str | None, typer.Option(help="Forecast by this GPU's data sheet, e.g. H100.")] = None,
    agreement: Annotated[bool, typer.Option("--agreement", help="Compare scores with the CPU's instead.")] = False,
    only_archive: Annotated[bool, typer.Option("--only-archive", help="Make the archive and end.")] = False,
) -> None:
    """Make the archive, score its night in each way, and print what it took."""
    common = overrides or []
    if agreement:
        print(_agreement(folder / "agreement", common))
        return
    archive = folder / "archive"
    if not archive.exists():
        write_photos(archive, group_sizes(groups, smallest, largest))
    if only_archive:
        return
    print(machine())
    if device:
        print(f"\npatchead plan --device {device}, seconds: {forecast(archive, common, device)}")
    for name in way or list(WAYS):
        words = [*common, *(f"{key}={value}" for key, value in WAYS[name].items())]
        found = score(folder, archive, name, words)
        print(f"\n{name}\n\n{table(found)}\n\n{summary(found)}", flush=True)


def score(folder: Path, archive: Path, name: str, words: Sequence[str]) -> dict[str, Any]:
    """`patchead score` as a process, watched; its lake is removed, its record and log stay in ``folder``."""
    short = name.replace(" ", "-").replace(",", "")
    lake, log = folder / f"lake-{short}", folder / f"{short}.log"
    shutil.rmtree(lake, ignore_errors=True)
    with log.open("w", encoding="utf-8") as sink, watching() as seen:
        began = time.perf_counter()
        code = _score(archive, lake, short, words, sink)
        seconds = time.perf_counter() - began
    if not (path := lake / "runs" / short / "run.json").exists():
        raise SystemExit(f"patchead score ended with code {code} before it had begun; {log} says why")
    record = json.loads(path.read_text(encoding="utf-8"))
    (folder / f"{short}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    shutil.rmtree(lake)
    return {"name": name, "code": code, "seconds": seconds, "record": record, "stages": _busy(seen, stages_in(log))}


def _score(archive: Path, lake: Path, run_id: str, words: Sequence[str], sink: Any, *more: str, **env: str) -> int:
    command = [sys.executable, "-m", "patchead", "score", "--archive", str(archive), "--lake", str(lake)]
    command += ["--run-id", run_id, *more, *(f"--set={word}" for word in ["run.log_level=info", *words])]
    return subprocess.run(command, env=os.environ | env, stdout=sink, stderr=sink, check=False).returncode


def _busy(seen: Seen, stages: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float | None]]:
    return {
        name: {"gpu": mean_busy(seen.gpu, *span), "cpus": mean_busy(seen.cpus, *span)} for name, span in stages.items()
    } | {"": {"gpu_mb": max((look.memory_mb for look in seen.gpu), default=None)}}


def table(found: Mapping[str, Any]) -> str:
    """Each stage of a night: seconds, images a second, and what was busy."""
    record, rows = found["record"], []
    for name, seconds in record["seconds"].items():
        busy = found["stages"].get(name, {})
        shares = [f"{100 * busy[of]:.0f} %" if busy.get(of) is not None else "" for of in ("gpu", "cpus")]
        rate = f"{record['images'] / seconds:.1f}" if name in ("embed", "score", "explain") else ""
        rows.append([name, f"{seconds:.1f}", rate, *shares])
    return markdown_table(["stage", "seconds", "images/s", "GPU busy", "CPUs busy"], rows, 1)


def summary(found: Mapping[str, Any]) -> str:
    """The whole of a night in two lines: how it ended, and what its actors did."""
    record, scoring = found["record"], found["record"]["scoring"]
    both = record["seconds"]["embed"] + record["seconds"]["score"]
    return (
        f"{record['images']} images in {record['groups']} groups, exit code {found['code']}, {record['state']}: "
        f"{found['seconds']:.1f} s in all, {both:.1f} s from the first image to the last score\n"
        f"actor_idle {scoring.get('actor_idle')}, scored meanwhile {scoring.get('scored_meanwhile')}, "
        f"actor_seconds {scoring.get('actor_seconds')}, precision {scoring.get('precision')}, "
        f"GPU memory at most {found['stages']['']['gpu_mb']} MB"
    )


def forecast(archive: Path, words: Sequence[str], device: str) -> dict[str, float]:
    """Seconds of each stage as `patchead plan` reckons them by a GPU's data sheet, ``night`` of all of them."""
    command = [sys.executable, "-m", "patchead", "plan", "--json", "--device", device, "--archive", str(archive)]
    command += [f"--cores-per-node={os.cpu_count()}", "--lake", str(archive.parent / "lake")]
    command += [f"--set={word}" for word in [*words, "encoder.device=cuda"]]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {stage["name"]: stage["seconds"] for stage in found["stages"]} | {"night": found["seconds"]}


def _agreement(folder: Path, words: Sequence[str]) -> str:
    """A small night on Ray with its GPU, and in one process that sees none: how far the scores are apart."""
    sizes = {f"p{number:04d}": n for number, n in enumerate(_AGREEMENT)}
    if not (folder / "archive").exists():
        write_photos(folder / "archive", sizes)
    cases = {"ray": ([], {}), "local": (["--local"], {"CUDA_VISIBLE_DEVICES": ""})}
    tables = {}
    for name, (more, env) in cases.items():
        exact = ["scoring.precision=fp32"] if name == "local" else []
        with (folder / f"{name}.log").open("w", encoding="utf-8") as sink:
            began = time.perf_counter()
            code = _score(folder / "archive", folder / name, name, [*words, *exact], sink, *more, **env)
            print(f"{name}: exit code {code}, {time.perf_counter() - began:.1f} s", flush=True)
        rows = read_rows(str(folder / name), Storage(), "scores", ["image_id", "score", "is_anomalous"])
        tables[name] = rows.sort_by("image_id")
    return f"{machine()}\nRay with its GPU, and one process on the CPU: {difference(tables['ray'], tables['local'])}"


def difference(ours: pa.Table, theirs: pa.Table) -> str:
    """How far the scores and flags of two nights are apart: rows of the table of scores, by image id.

    Raises:
        ValueError: they are of different images.
    """
    if not ours["image_id"].equals(theirs["image_id"]):
        raise ValueError(f"the nights are of other images: {ours.num_rows} and {theirs.num_rows} of them")
    a, b = (np.array(each["score"].to_pylist(), float) for each in (ours, theirs))
    flags, others = (np.array(each["is_anomalous"].to_pylist(), bool) for each in (ours, theirs))
    return (
        f"{len(a)} images, largest difference of a score {np.abs(a - b).max():.2e} (scores {b.min():.4f} to "
        f"{b.max():.4f}), {int((flags != others).sum())} flags differ of {int(others.sum())}"
    )


if __name__ == "__main__":
    typer.run(main)

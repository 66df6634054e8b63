"""A night on a disk that fills up at a chosen point: real ENOSPC, on a tmpfs of a mount namespace of its own.

``unshare --mount python -m tests.helpers.full_disk FOLDER WHEN`` scores FOLDER/archive to a lake on a small tmpfs,
which is full before something is written while embedding, drawing or publishing; then room is made and the same
command goes on. Prints what was seen, as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from patchead.lake import publication
from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly import explain_drawing
from tests.helpers.command import Ended, patchead
from tests.helpers.e2e_tools import SMALL_OPTIONS, rows

SIZE = "32m"
WRITERS: dict[str, tuple[Any, str, int]] = {
    "embed": (EmbeddingStore, "write_unit", 3),
    "explain": (explain_drawing, "write_pictures", 2),
    "publish": (publication, "committed", 2),
}
"""What writes while embedding, drawing and publishing, and at which of its calls the disk is full."""


def main(folder: str, when: str) -> None:
    lake = Path(folder, when)
    lake.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", lake], check=True)
    places = ["--archive", str(Path(folder, "archive")), "--lake", str(lake / "lake"), "--run-id", "night"]
    more = ["--set=explain.heatmaps=all", "--set=lake.images_per_file=2"]
    command = ["score", "--local", *SMALL_OPTIONS, *more, *places]
    filler, scans = lake / "filler", _scans()
    put_back = _full_at(*WRITERS[when], filler)
    stopped = patchead(*command)
    put_back()
    kept = _counts(lake / "lake")
    record = json.loads((lake / "lake/runs/night/run.json").read_text()) if filler.exists() else None
    filler.unlink()
    went_on = patchead(*command)
    scores = [{name: row[name] for name in ("image_id", "score", "status")} for row in rows(lake / "lake")]
    said = {"stopped": _told(stopped), "went_on": _told(went_on), "kept": kept, "record": record}
    said["scanned by threads of pyarrow"] = len(scans)
    print(json.dumps(said | {"scores": scores, "pictures": _counts(lake / "lake")["pictures"]}))


def _scans() -> list[str]:
    """Each table that is scanned by pyarrow from now on."""
    found, scan = list[str](), DeltaTable.to_pyarrow_dataset

    def noted(table: DeltaTable, *arguments: Any, **options: Any) -> Any:
        found.append(table.table_uri)
        return scan(table, *arguments, **options)

    DeltaTable.to_pyarrow_dataset = noted
    return found


def _told(ended: Ended) -> dict[str, Any]:
    return {"code": ended.code, "out": ended.out, "err": ended.err}


def _counts(lake: Path) -> dict[str, int]:
    return {"units": len([*lake.rglob("*.receipts.parquet")]), "pictures": len([*lake.glob("heatmaps/**/*.png")])}


def _full_at(owner: Any, name: str, call: int, filler: Path) -> Callable[[], None]:
    """Fill the disk before ``call`` of a function; returns what puts the function back."""
    real, calls = getattr(owner, name), []

    def watched(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            _fill(filler)
        return real(*arguments, **options)

    setattr(owner, name, watched)
    return lambda: setattr(owner, name, real)


def _fill(path: Path) -> None:
    """Leave no byte."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise


if __name__ == "__main__":
    main(*sys.argv[1:])

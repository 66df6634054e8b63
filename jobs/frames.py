"""Which functions of patchead stand between `patchead score` and the matrix multiplication? Prints them as called.

Runs a tiny night in this process, on one thread. Only functions count that the command calls one inside the other;
those of libraries between them do not.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch

import patchead.cli

PACKAGE = Path(patchead.cli.__file__).parent
COMMAND = patchead.cli.score.__code__
MULTIPLICATIONS = ("mm", "_int_mm")  # of torch
IMAGES, SIDE = 6, 32

Frames = tuple[str, ...]


def main() -> None:
    for path in night(["--set=scoring.precision=fp32"]):
        print(f"{len(path)} frames from the command to the matrix multiplication")
        for depth, function in enumerate(path, 1):
            print(f"{depth:3} {function}")


def night(settings: list[str]) -> list[Frames]:
    """Score a few small images in this process.

    Returns:
        Every way by which a matrix multiplication was reached: the functions from `cli.score` to the one that calls it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, watched() as paths:
            archive = Path(folder) / "archive"
            _write_images(archive / "night=2026-11-21" / "product=weave")
            small = ("name=timm/test_vit", "weights=random", "image_size=64", "layers=[]")
            places = [f"--archive={archive}", f"--lake={folder}/lake", *(f"--set=encoder.{one}" for one in small)]
            with contextlib.redirect_stdout(io.StringIO()):
                patchead.cli.app(["score", "--local", *places, *settings], standalone_mode=False)
    finally:
        torch.set_num_threads(before)
    return paths


@contextlib.contextmanager
def watched() -> Iterator[list[Frames]]:
    """Collect the ways to torch's matrix multiplications that the package takes while the context is open."""
    paths: list[Frames] = []
    starters: dict[int, list[str]] = {}  # by thread
    originals = {name: getattr(torch, name) for name in MULTIPLICATIONS}
    start = threading.Thread.start

    def noted_start(thread: threading.Thread) -> None:
        path, run = _path(sys._getframe(1), starters), thread.run

        def noted_run() -> None:
            starters[threading.get_ident()] = path
            run()

        thread.run = noted_run  # type: ignore[method-assign]
        start(thread)

    def watching(multiply: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            path = tuple(_path(sys._getframe(1), starters))
            if path not in paths:
                paths.append(path)
            return multiply(*arguments, **options)

        return call

    threading.Thread.start = noted_start  # type: ignore[method-assign, assignment]
    for name, multiply in originals.items():
        setattr(torch, name, watching(multiply))
    try:
        yield paths
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        for name, multiply in originals.items():
            setattr(torch, name, multiply)


def _path(frame: FrameType | None, starters: dict[int, list[str]]) -> list[str]:
    """The package's functions from the command to ``frame``, through whatever started this thread."""
    found: list[str] = []
    while frame is not None:
        code, file = frame.f_code, Path(frame.f_code.co_filename)
        if PACKAGE in file.parents and not code.co_name.startswith("<"):  # comprehensions are no functions since 3.12
            name = getattr(code, "co_qualname", code.co_name)  # since 3.11
            found.insert(0, f"{file.relative_to(PACKAGE.parent)}:{frame.f_lineno} {name}")
            if code is COMMAND:
                return found
        frame = frame.f_back
    return starters.get(threading.get_ident(), []) + found


def _write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


if __name__ == "__main__":
    main()

"""What a labelled dataset is, and the errors that say what a root lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchead.errors import ArchiveError

GOOD = "good"
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_SHOWN = 8  # entries of a folder that an error names


@dataclass(frozen=True)
class Sample:
    """Hold one labelled image.

    ``mask`` is the file that :func:`~patchead.evaluation.datasets.masks.read_mask` reads; None for a good image, and
    for an anomalous one whose defect nobody drew. ``defect`` is the defect's name as the dataset has it, ``"good"`` for
    every good image.
    """

    path: Path
    anomalous: bool
    mask: Path | None
    defect: str


@dataclass(frozen=True)
class DatasetClass:
    """Hold one product. ``train`` holds good images only (prompts), empty where the dataset publishes no such split."""

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


@dataclass(frozen=True)
class Dataset:
    """Hold what was loaded, and whether the paper aligns and masks it (method.md §5)."""

    name: str
    classes: tuple[DatasetClass, ...]
    align: bool
    mask: bool


@dataclass(frozen=True)
class Adapter:
    """Say how one dataset's published files become classes.

    ``published`` names its classes in their order; where it is empty, ``names`` finds them at the root. ``read`` takes
    the root and the chosen names. ``default_root`` is the place to look where no root is given.
    """

    title: str
    layout: str
    read: Callable[[Path, Sequence[str]], tuple[DatasetClass, ...]]
    published: tuple[str, ...] = ()
    names: Callable[[Path], tuple[str, ...]] | None = None
    align: bool = False
    mask: bool = False
    default_root: Callable[[], Path] | None = None


def good(path: Path) -> Sample:
    """Make a sample without a defect."""
    return Sample(path, False, None, GOOD)


def absent(path: Path, what: str = "") -> ArchiveError:
    """Make the error for a file or folder that a layout needs: what was looked for, and what is there instead."""
    if path.is_dir():
        return ArchiveError(f"{what}{path} is a folder, not a file; {holdings(path)}")
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    problem = "is a file, not a folder" if path.is_file() else "does not exist"
    return ArchiveError(f"{what}{path} {problem}; {holdings(folder)}")


def holdings(folder: Path) -> str:
    """Say ``"<folder> holds a/, b.txt and 3 more"``; hidden entries are not counted."""
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in _visible(folder))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{folder} holds {', '.join(names[:_SHOWN]) or 'nothing'}{more}."


def folders(parent: Path) -> tuple[Path, ...]:
    """List the folders in ``parent`` by name, without hidden ones.

    Raises:
        ArchiveError: ``parent`` is no folder.
    """
    if not parent.is_dir():
        raise absent(parent)
    return tuple(sorted(entry for entry in _visible(parent) if entry.is_dir()))


def image_files(folder: Path) -> tuple[Path, ...]:
    """List the image files of ``folder`` by name; hidden files and other suffixes are passed over, capitals are not.

    Raises:
        ArchiveError: ``folder`` is no folder, or holds no image.
    """
    if not folder.is_dir():
        raise absent(folder)
    if not (found := _images(folder)):
        raise ArchiveError(f"no image in {folder}; {holdings(folder)}")
    return found


def mask_files(folder: Path) -> dict[str, Path]:
    """List the image files of ``folder`` by lower-case name without suffix; none where there is no such folder.

    Raises:
        ArchiveError: two files differ in nothing but suffix or capitals, so that it is open which one is meant.
    """
    found: dict[str, Path] = {}
    for path in _images(folder) if folder.is_dir() else ():
        other = found.setdefault(path.stem.lower(), path)
        if other != path:
            raise ArchiveError(
                f"{other} and {path.name} differ in suffix or capitals only; remove the one that is not meant."
            )
    return found


def existing(path: Path, what: str) -> Path:
    """Give ``path`` back if it is a file.

    Raises:
        ArchiveError: it is no file; the text starts with ``what``.
    """
    if not path.is_file():
        raise absent(path, f"{what}: ")
    return path


def _images(folder: Path) -> tuple[Path, ...]:
    files = (entry for entry in _visible(folder) if entry.suffix.lower() in IMAGE_SUFFIXES)
    return tuple(sorted(entry for entry in files if entry.is_file()))


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if not entry.name.startswith("."))

"""What is kept of an evaluation: one row per variant, class and seed, in one file per variant and class."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from patchead.atomic_files import write_atomically
from patchead.errors import SettingsError
from patchead.evaluation.datasets import DatasetClass, Sample
from patchead.evaluation.variants import Variant
from patchead.hashing import bytes_sha256

RULE = 2  # raise it when a change to the evaluation changes its figures: records of before are then not reused
OK, TOO_FEW = "ok", "too_few_images"
RECORDS = "records"


@dataclass(frozen=True)
class Row:
    """Hold the figures of one variant on one class with one seed. Metrics are fractions, None where they are undefined.

    ``seed`` is None in batch mode, which draws nothing. ``unscored``: test images without a reference (duplicates of
    all others); no metric counts them. ``mapped``: images that the pixel metrics count; ``without_mask``: anomalous
    ones that they leave out. ``aligned``: how many were, None without alignment. Seconds of embedding are of all test
    images (and prompts), and the same in every row that shares the embeddings. ``settings``: JSON, all that the figures
    depend on; ``verdict_rule``: by which images were flagged; ``weights_digest``: SHA-256 of the loaded weights.
    """

    dataset: str
    variant: str
    class_name: str
    mode: str
    seed: int | None
    status: str
    image_auroc: float | None
    image_ap: float | None
    image_f1_max: float | None
    verdict_f1: float | None
    verdict_defective_flagged: float | None
    verdict_good_flagged: float | None
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_pro: float | None
    pixel_f1_max: float | None
    verdict_rule: str | None
    images: int
    anomalous: int
    unscored: int
    mapped: int
    without_mask: int
    aligned: int | None
    embed_seconds: float
    score_seconds: float
    weights_digest: str
    settings: str


_PARTS = ("image_", "verdict_", "pixel_")
METRICS = tuple(name for name, of in Row.__annotations__.items() if name.startswith(_PARTS) and of.startswith("float"))
SCHEMA = pa.schema(
    [
        (name, {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}[type.removesuffix(" | None")])
        for name, type in Row.__annotations__.items()
    ]
)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Make one Arrow row per `Row`."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Say what an evaluation is of, but its variants: ``seeds`` draws of few-shot prompts, maps of ``map_side`` px."""

    dataset: str
    root: Path
    output: Path
    seeds: int = 3
    map_side: int = 256


def record_path(setup: Setup, variant: Variant, members: DatasetClass) -> Path:
    """Say where the rows of this variant and class are kept; the name changes with everything that they depend on.

    That is the settings (`Variant.settings`), and every image's path, size and time of change, its label and mask.

    Raises:
        SettingsError: an image or a mask that the dataset lists is not there.
    """
    train = members.train if variant.few_shot else ()
    identity = {
        "rule": RULE,
        "settings": variant.settings,
        "weights": (_file_identity(Path(variant.config.encoder.weights), setup.root) or [])[1:],
        "seeds": setup.seeds if variant.few_shot else None,
        "map_side": setup.map_side,
        "dataset": setup.dataset,
        "class": members.name,
        "train": [_identity(sample, setup.root) for sample in train],
        "test": [_identity(sample, setup.root) for sample in members.test],
    }
    digest = bytes_sha256(json.dumps(identity, sort_keys=True).encode())
    slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{setup.dataset}-{members.name}").strip("-")
    return setup.output / RECORDS / f"{slug}-{digest[:16]}.json"


def read_record(path: Path, variant: Variant) -> list[Row] | None:
    """Read the rows of an earlier run under this run's label; None where there is no file, or not a whole one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in found["rows"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return [Row(**(asdict(row) | {"variant": variant.label})) for row in rows] or None


def write_record(path: Path, rows: Sequence[Row]) -> None:
    """Write a whole file or none.

    Raises:
        SettingsError: the output folder cannot be written.
    """
    text = json.dumps({"rows": [asdict(row) for row in rows]}, indent=1, allow_nan=False) + "\n"
    write_whole(path, text)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        SettingsError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SettingsError(f"--output: {path} cannot be made: {exc.strerror}.") from exc


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace the file at once; readers see the old one or the new one.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as exc:
        raise SettingsError(f"--output: {path} cannot be written: {exc.strerror}.") from exc


def _identity(sample: Sample, root: Path) -> list[Any]:
    files = [Path(sample.path), *([] if sample.mask is None else [Path(sample.mask)])]
    facts = [_file_identity(file, root) for file in files]
    for file, fact in zip(files, facts, strict=True):
        if fact is None:
            raise SettingsError(f"--root: the dataset lists {file}, which is not there.")
    return [sample.anomalous, sample.defect, *facts]


def _file_identity(file: Path, root: Path) -> list[Any] | None:
    """Path below ``root``, size and time of change; None where there is no such file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return [os.path.relpath(file, root), status.st_size, status.st_mtime_ns]

"""Dataset names, and the one way to load them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from patchead.errors import ArchiveError, SettingsError, bad_value, nearest_name
from patchead.evaluation.datasets.base import Adapter, Dataset, DatasetClass, absent
from patchead.evaluation.datasets.csv_file import CSV
from patchead.evaluation.datasets.dagm import DAGM
from patchead.evaluation.datasets.elpv import ELPV
from patchead.evaluation.datasets.folders import BTAD, DTD_SYNTHETIC, FOLDER, MPDD, MVTEC
from patchead.evaluation.datasets.ksdd import KSDD
from patchead.evaluation.datasets.real_iad import REAL_IAD
from patchead.evaluation.datasets.visa import VISA

DATASETS: Mapping[str, Adapter] = MappingProxyType(
    {
        "mvtec": MVTEC,
        "visa": VISA,
        "mpdd": MPDD,
        "btad": BTAD,
        "ksdd": KSDD,
        "dagm": DAGM,
        "dtd-synthetic": DTD_SYNTHETIC,
        "real-iad": REAL_IAD,
        "elpv": ELPV,
        "folder": FOLDER,
        "csv": CSV,
    }
)


def load(dataset: str, root: str | Path | None, classes: Sequence[str] | None = None) -> Dataset:
    """List a dataset's labelled images; no image is opened, only KolektorSDD's labels are.

    Args:
        dataset: A name in ``DATASETS``.
        root: The folder that was unpacked (for ``csv`` the file). None: the installed package (``elpv`` only).
        classes: Names of the classes to take, in the dataset's order. None: all of them, and a published class that
            is absent is an error, not a smaller mean.

    Raises:
        SettingsError: no such dataset or class, or no root where one is needed.
        ArchiveError: the root is not laid out as published, an image or a promised mask is absent, or a class lacks
            good or anomalous test images.
    """
    adapter = DATASETS.get(dataset)
    if adapter is None:
        near = nearest_name(dataset, DATASETS).strip()
        raise SettingsError(bad_value("dataset", dataset, f"one of {', '.join(DATASETS)}", near))
    place = _root(adapter, root)
    names = adapter.published or (adapter.names(place) if adapter.names else ())
    chosen = _chosen(names, classes)
    try:
        found = adapter.read(place, chosen)
    except ArchiveError as error:
        if classes is not None or len(chosen) == 1:
            raise
        hint = f"All {len(chosen)} classes of {adapter.title} were asked for; name some to read no others."
        raise ArchiveError(f"{error} {hint}") from error
    for one in found:
        _check(one, place)
    return Dataset(dataset, found, adapter.align, adapter.mask)


def _root(adapter: Adapter, root: str | Path | None) -> Path:
    if root is None:
        if adapter.default_root is None:
            raise SettingsError(bad_value("root", root, f"the place of {adapter.title}: {adapter.layout}"))
        return adapter.default_root()
    place = Path(root)
    if not place.exists():
        raise absent(place, f"the root of {adapter.title}: ")
    return place


def _chosen(names: Sequence[str], classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is None:
        return tuple(names)
    wanted = [classes] if isinstance(classes, str) else list(classes)
    if not wanted:
        raise SettingsError(bad_value("classes", wanted, f"some of {', '.join(names)}", "Leave it out to take all."))
    for name in wanted:
        if name not in names:
            near = nearest_name(name, names).strip()
            raise SettingsError(bad_value("classes", name, f"some of {', '.join(names)}", near))
    return tuple(name for name in names if name in wanted)


def _check(one: DatasetClass, root: Path) -> None:
    """Refuse a class that no metric is defined for."""
    bad = sum(sample.anomalous for sample in one.test)
    if not 0 < bad < len(one.test):
        counts = f"{len(one.test) - bad} good and {bad} anomalous"
        raise ArchiveError(f"class {one.name!r} in {root} has {counts} test images; it needs both kinds.")

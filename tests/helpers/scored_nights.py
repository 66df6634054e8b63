"""A night that is scored and not yet explained: real originals, their manifest, and staged patch scores."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.arrow_columns import by_group
from patchead.hashing import content_hash
from patchead.lake.staging import RunFolder
from patchead.nightly.decode import DecodeSettings, encoded
from patchead.nightly.explain import PORTION, Explained, ExplainSettings, explain
from patchead.nightly.explain_drawing import DrawSettings
from patchead.nightly.judge_group import JudgeSettings
from patchead.nightly.units import PLACE
from patchead.samples.recipe import SampleRecipe
from patchead.schema import OK
from patchead.scoring.verdict import VerdictSettings
from patchead.storage import Storage

GRID = (6, 8)
WIDTH, HEIGHT = 48, 36  # of a photo: a patch is 6 x 6 pixels
HOT = (1, 5)  # row and column of the patch that is hot in the hot images
RUN = "run-1"
GROUP = "night=2026-11-21/product=screw"
FOLDER = "product=screw/night=2026-11-21"


def photo(number: int, format: str = "PNG") -> bytes:
    """A grey photo with a little noise, never twice the same."""
    pixels = np.random.default_rng(number).integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format)
    return sink.getvalue()


@dataclass
class Night:
    """Groups of one archive, scored."""

    archive: str
    lake: str
    storage: Storage
    groups: dict[str, pa.Table]
    hot: Collection[str]
    patches: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.lake, self.storage, RUN)

    def settings(self, fit: str = "squash", max_pixels: int = 10**6, **changed: Any) -> ExplainSettings:
        """Those of a run; ``changed`` names fields of `ExplainSettings` and of those that it holds."""
        decode = DecodeSettings(self.storage, "image", None, max_pixels, "auto", SampleRecipe(32, fit, GRID))
        drawing = DrawSettings(RUN, self.lake, "png", 1024, decode)
        of_drawing = {name: changed.pop(name) for name in list(changed) if hasattr(drawing, name)}
        rule = VerdictSettings()
        of_rule = {name: changed.pop(name) for name in list(changed) if hasattr(rule, name)}
        judging = JudgeSettings(replace(rule, **of_rule), "flagged", 0, None, fit)
        of_judging = {name: changed.pop(name) for name in list(changed) if hasattr(judging, name)}
        judged, drawn = replace(judging, **of_judging), replace(drawing, **of_drawing)
        settings = ExplainSettings("encoder-1", "main", self.archive, 3, judged, drawn)
        return replace(settings, **changed)

    def stage(self, name: str, n_references: np.ndarray | None = None) -> None:
        """Patch scores around 0.1 for every image of a group, and one of 0.6 in the hot ones."""
        ids = self.groups[name]["image_id"].to_pylist()
        found = np.random.default_rng(len(ids)).normal(0.1, 0.01, (len(ids), *GRID)).astype(np.float32)
        found[[place for place, image in enumerate(ids) if image in self.hot], HOT[0], HOT[1]] = 0.6
        known = np.full(len(ids), len(ids) - 1) if n_references is None else n_references
        found[known == 0] = np.nan
        self.patches[name] = found
        self.folder.write_group(name, ids, found, found.max(axis=(1, 2)).astype(np.float64), known, digest="d")

    def explain(self, map_tasks: Any = None, **changed: Any) -> tuple[pa.Table, pa.Table]:
        """Rows of scores and of regions."""
        done = self.explained(map_tasks, **changed)
        return done.scores, done.regions

    def explained(
        self,
        map_tasks: Any = None,
        *,
        portion: int = PORTION,
        advance: Any = None,
        goes_on: bool = False,
        **changed: Any,
    ) -> Explained:
        """Explain everything, or only what an earlier try has not drawn if the run ``goes_on``."""
        for name in [] if goes_on else self.folder.explained.names(".parquet"):
            self.folder.explained.delete(name)
        return explain(
            self.groups,
            self.folder,
            self.settings(**changed),
            map_tasks=map_tasks or in_turn,
            advance=advance or (lambda count: None),
            portion=portion,
        )

    def content_hash(self, image: dict[str, Any]) -> str:
        """Of the original of one row of the manifest."""
        ((_, data),) = encoded({name: [image[name]] for name in PLACE}, self.settings().drawing.decode)
        assert isinstance(data, bytes), data
        return content_hash(data)

    def picture(self, heatmap_path: str) -> Image.Image:
        filesystem, path = self.storage.filesystem(f"{self.lake}/{heatmap_path}")
        return Image.open(io.BytesIO(filesystem.cat_file(path)))


def scored_night(archive: str | Path, lake: str | Path, hot: Collection[str] = (), **request: Any) -> Night:
    """List an archive, take every image of it as embedded, and stage scores of every group."""
    storage = Storage()
    manifest = catalog(CatalogRequest(str(archive), storage=storage, **request)).manifest
    night = Night(str(archive), str(lake), storage, {}, hot)
    n = manifest.num_rows
    receipts = {
        "content_hash": pa.array([night.content_hash(image) for image in manifest.to_pylist()]),
        "width": pa.repeat(pa.scalar(WIDTH, pa.int32()), n),
        "height": pa.repeat(pa.scalar(HEIGHT, pa.int32()), n),
        "status": pa.repeat(OK, n),
        "error": pa.nulls(n, pa.string()),
    }
    known = {name: manifest[name] for name in manifest.column_names if name not in receipts}
    night.groups = by_group(pa.table(known | receipts))
    for name in night.groups:
        night.stage(name)
    return night


def in_turn(function: Callable[[Any], Any], items: Iterable[Any], failed: Any = None) -> Iterator[tuple[int, Any]]:
    """One after another, in this process; everything pickled on its way, as between the nodes of a cluster."""
    for number, item in enumerate(items):
        yield number, _pickled(_pickled(function)(_pickled(item)))


def workers(count: int) -> Callable[..., Iterator[tuple[int, Any]]]:
    """``count`` threads, two items handed out to each; the one that was handed out last is the first to be seen."""

    def run(function: Callable[[Any], Any], items: Iterable[Any], failed: Any = None) -> Iterator[tuple[int, Any]]:
        with ThreadPoolExecutor(count) as pool:
            running: dict[Any, int] = {}

            def next_done() -> tuple[int, Any]:
                done = wait(running, return_when=FIRST_COMPLETED).done
                last = max(done, key=running.__getitem__)
                return running.pop(last), _pickled(last.result())

            for number, item in enumerate(items):
                while len(running) >= 2 * count:
                    yield next_done()
                running[pool.submit(_pickled(function), _pickled(item))] = number
            while running:
                yield next_done()

    return run


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))

"""Heatmap files and regions of some images of one group, in the colour range of the whole group (method.md §6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from patchead.arrow_columns import digest
from patchead.errors import ArchiveError, DecodeError
from patchead.hashing import content_hash, text_digest
from patchead.lake.heatmaps import heatmap_uri, write_image
from patchead.lake.staged_pictures import FILES, read_pictures, write_pictures
from patchead.lake.staging import RunFolder
from patchead.maps.heatmap import heatmap, overlay
from patchead.maps.regions import image_regions
from patchead.nightly.decode import DecodeSettings
from patchead.nightly.originals import decoded, originals, require_same
from patchead.nightly.units import PLACE
from patchead.runtime.in_hand import Watch
from patchead.schema import STAGED_REGIONS, table
from patchead.settings.argument_names import in_settings

COLUMNS = ("image_id", "night", "product", "group_id", "content_hash", "width", "height", *PLACE)
"""Columns of the manifest and the receipts that drawing needs; a group that was settled has ``bit_depth`` as well."""


@dataclass(frozen=True)
class DrawSettings:
    """Say where heatmaps go and how they look."""

    run_id: str
    lake_uri: str
    format: Literal["png", "webp"]
    max_side: int
    decode: DecodeSettings

    @property
    def text(self) -> str:
        """Write all that decides a picture or a region."""
        decoding = self.decode.fit, self.decode.bit_depth, self.decode.max_pixels, self.decode.max_bytes
        return repr((self.run_id, self.lake_uri, self.format, self.max_side, *decoding))


@dataclass(frozen=True)
class Portion:
    """Hold the images of one group that one task draws, and what was decided for the group as a whole."""

    images: pa.Table
    """`COLUMNS` of n images; those of one shard follow each other."""
    indices: np.ndarray
    """int (n,): their places in the group, as it was staged."""
    flagged: np.ndarray
    """bool (n,): whether they are anomalous."""
    drawn: bool
    """Whether they get heatmap files, or regions alone."""
    threshold: float
    """Of the regions: value of a map above which one reaches."""
    colours: tuple[float, float]
    """Patch scores of the darkest and of the brightest colour."""

    @property
    def name(self) -> str:
        """Name it by its images."""
        return text_digest(digest([self.images], ["group_id", "image_id"]))

    def made_of(self, patch_scores: np.ndarray, settings: DrawSettings) -> str:
        """Hash all that decides its pictures and regions; ``patch_scores`` are those of its images."""
        decided = repr((self.drawn, self.threshold, self.colours, patch_scores.shape, settings.text))
        arrays = (self.indices, self.flagged, np.ascontiguousarray(patch_scores))
        parts = [digest([self.images], self.images.column_names), decided, *(content_hash(a.tobytes()) for a in arrays)]
        return text_digest(" ".join(parts))


@dataclass(frozen=True)
class Pictures:
    """Hold what became of a portion: ``files`` has the columns of `FILES`, ``regions`` those of `STAGED_REGIONS`."""

    files: pa.Table
    regions: pa.Table


def draw_portion(portion: Portion, *, folder: RunFolder, settings: DrawSettings) -> Pictures:
    """Draw the heatmaps and find the regions of the images of one portion, unless an earlier try of the run has.

    An original that cannot be read or decoded again, or is another one by now, costs its image the heatmap alone: the
    regions need no original.

    Raises:
        LakeError: the staged scores cannot be read, or a heatmap cannot be written.
    """
    patches = folder.read_patch_scores(portion.images["group_id"][0].as_py(), portion.indices)
    made_of = portion.made_of(patches, settings)
    if (found := read_pictures(folder, portion.name, made_of=made_of)) is not None:
        return Pictures(*found)
    drawn = _drawn(portion, patches, settings)
    if drawn.files["note"].null_count == drawn.files.num_rows:  # else the original may be there the next time
        write_pictures(folder, portion.name, drawn.files, drawn.regions, made_of=made_of)
    return drawn


def _drawn(portion: Portion, patches: np.ndarray, settings: DrawSettings) -> Pictures:
    files: list[dict[str, Any]] = []
    regions: list[dict[str, Any]] = []
    first = portion.images["image_id"][0].as_py()
    with settings.decode.watch(f"drawing of {portion.images.num_rows} images from {first} on") as watch:
        for place, image, data in _originals(portion, settings.decode):
            regions += _region_rows(image, patches[place], bool(portion.flagged[place]), portion.threshold, settings)
            file: dict[str, Any] = {"image_id": image["image_id"]}
            files.append(file)
            if data is None:
                continue
            try:
                file["heatmap_uri"] = _write(image, data, patches[place], portion.colours, settings, watch)
            except (ArchiveError, DecodeError) as exc:
                file["note"] = f"scored, but its heatmap could not be drawn: {in_settings(str(exc))}"
    return Pictures(table(files, FILES), table(regions, STAGED_REGIONS))


def _originals(
    portion: Portion, settings: DecodeSettings
) -> Iterator[tuple[int, dict[str, Any], bytes | ArchiveError | None]]:
    """Every image of the portion with its place in it and its encoded bytes; None where they are not needed."""
    images = portion.images.to_pylist()
    if not portion.drawn:
        yield from ((place, image, None) for place, image in enumerate(images))
        return
    for place, data in originals(images, settings):
        yield place, images[place], data


def _region_rows(
    image: dict[str, Any], patch_scores: np.ndarray, flagged: bool, threshold: float, settings: DrawSettings
) -> list[dict[str, Any]]:
    width, height, fit = image["width"], image["height"], settings.decode.fit
    found = image_regions(patch_scores, threshold, width=width, height=height, fit=fit, flagged=flagged)
    known = {name: image[name] for name in ("image_id", "night", "product", "group_id")}
    known["run_id"] = settings.run_id
    return [known | {"region": number} | asdict(region) for number, region in enumerate(found, start=1)]


def _write(
    image: dict[str, Any],
    data: bytes | ArchiveError,
    patch_scores: np.ndarray,
    colours: tuple[float, float],
    settings: DrawSettings,
    watch: Watch,
) -> str:
    same = require_same(image, data)
    with watch.over(image["image_id"]):
        photo = decoded(image, same, settings.decode, side=settings.max_side)
    uri = heatmap_uri(
        settings.lake_uri, image["night"], image["product"], settings.run_id, image["image_id"], settings.format
    )
    heat = heatmap(patch_scores, image["width"], image["height"], max_side=settings.max_side, fit=settings.decode.fit)
    write_image(uri, settings.decode.storage, overlay(photo, heat, *colours), settings.format)
    return uri

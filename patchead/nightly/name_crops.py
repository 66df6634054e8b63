"""Crops of defects, in folders named by their types, as examples: each is described as a region of its product.

A crop is put in the middle of a picture of the product's size, continued by its own mirror images to every side: the
encoder sees it at the scale it has in a photo, and no edge is added. What it should have looked like is looked for in
unflagged images of the product's newest night.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.decode import decode, fit
from patchead.arrow_columns import values
from patchead.batches import batches
from patchead.encoders import build
from patchead.encoders.base import Encoder
from patchead.errors import DecodeError, LakeError, SettingsError
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.run_tables import RECEIPTS_FILE, read_table
from patchead.lake.staging import RunFolder
from patchead.lake.tables import read_rows
from patchead.naming.region_vectors import MOST_PATCHES, patches_of_box, region_vectors
from patchead.nightly.describe_regions import reference_patches
from patchead.nightly.name import vectors_id
from patchead.nightly.wiring import recipe
from patchead.review.names import keep_examples
from patchead.schema import OK, RECEIPTS
from patchead.scoring.panel import reference_panel
from patchead.settings.model import Config
from patchead.settings.resolve import encoder_spec, this_device
from patchead.storage import Storage, explained

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_LEAST = 8  # pixels of a crop's side
_PORTION = 16
_GONE = "Score a night of this product and name its crops after that."


@dataclass(frozen=True)
class _Newest:
    """The newest night of a product."""

    run_id: str
    encoder_id: str
    size: tuple[int, int]
    """Median width and height of its images."""
    unflagged: list[str]
    config: Config


def name_crops(lake_uri: str, storage: Storage, folder: str, product: str, *, by: str, lane: str) -> dict[str, int]:
    """Keep every image of the folders below ``folder`` as an example of the type that its folder is called.

    Returns:
        How many of each type.

    Raises:
        SettingsError: there is no crop, one is no image, too small or larger than the product's photos, the product has
            no published night, or what `review.names` refuses.
        LakeError: the night's receipts or embeddings are gone, or a table cannot be read or written.
    """
    crops = _crops(folder, storage)
    newest = _newest(lake_uri, storage, product, lane)
    folder_of_run = RunFolder(lake_uri, storage, newest.run_id)
    kept = read_table(folder_of_run.files, RECEIPTS_FILE, RECEIPTS)
    if kept is None:
        raise LakeError(f"the receipts of run {newest.run_id} are gone: they say where its embeddings are. {_GONE}")
    receipts, made_for = kept
    store = EmbeddingStore(lake_uri, storage, made_for["store_id"])
    config = newest.config
    encoder = build(encoder_spec(config, this_device(config.encoder.device)))
    if encoder.encoder_id != newest.encoder_id:
        raise SettingsError(
            f"the newest night of {product} was embedded by {newest.encoder_id}, and its settings make "
            f"{encoder.encoder_id} here (another device or other weights). Name crops where that night was scored."
        )
    views = recipe(config, encoder.grid).stored_views
    references = reference_patches(_chosen(receipts, newest.unflagged, config.naming.references), store, views)
    vectors = _described(list(crops.values()), list(crops), newest, encoder, references)
    shared = {"product": product or None, "run_id": newest.run_id, "encoder_id": newest.encoder_id}
    shared |= {"vectors_id": vectors_id(store.encoder_id, config.naming.references)}
    rows = [
        shared | {"example_id": name, "defect_type": name.rpartition("/")[0], "vector": vector}
        for name, vector in zip(crops, vectors, strict=True)
    ]
    keep_examples(lake_uri, storage, rows, by=by)
    types = [row["defect_type"] for row in rows]
    return {name: types.count(name) for name in sorted(set(types))}


def _crops(folder: str, storage: Storage) -> dict[str, np.ndarray]:
    """The crops, uint8 (h, w, 3), by type and file name: ``scratch/a.png``."""
    with explained("list", folder, LakeError):
        filesystem, root = storage.filesystem(folder)
        paths = sorted(path for path in filesystem.find(root) if path.lower().endswith(_SUFFIXES))
    names = {path: path[len(root.rstrip("/")) + 1 :] for path in paths}
    wanted = {path: name for path, name in names.items() if name.count("/") == 1}
    if not wanted:
        raise SettingsError(
            f"--crops must be a folder with one folder of images for each type, e.g. {folder}/scratch/1.png; got "
            f"{folder}, which has {len(names)} images elsewhere."
        )
    found = {}
    for path, name in wanted.items():
        with explained("read", path, LakeError):
            data = filesystem.cat_file(path)
        try:
            found[name] = decode(data)
        except DecodeError as exc:
            raise SettingsError(f"the crop {name} cannot be read: {exc} Take it out of {folder}.") from exc
    return found


def _newest(lake_uri: str, storage: Storage, product: str, lane: str) -> _Newest:
    columns = ["run_id", "night", "product", "image_id", "status", "is_anomalous", "width", "height", "encoder_id"]
    same: list[tuple[str, str, Any]] = [("lane", "=", lane), *([("product", "=", product)] if product else [])]
    nights = read_rows(lake_uri, storage, "scores", ["night", "product"], same)
    nights = nights if product else nights.filter(pc.is_null(nights["product"]))
    if not nights.num_rows:
        raise SettingsError(f"--product must be a product with a published night in {lake_uri}; got {product!r}.")
    night = pc.max(nights["night"]).as_py()
    rows = read_rows(lake_uri, storage, "scores", columns, [*same, ("night", "=", night)])
    rows = rows if product else rows.filter(pc.is_null(rows["product"]))
    run_id = sorted(set(rows["run_id"].to_pylist()))[-1]
    good = pc.and_(pc.equal(rows["status"], OK), pc.invert(pc.fill_null(rows["is_anomalous"], False)))
    rows = rows.filter(pc.and_(good, pc.equal(rows["run_id"], run_id)))
    if not rows.num_rows:
        raise SettingsError(f"the night {night} of {product!r} has no unflagged image. {_GONE}")
    config = read_rows(lake_uri, storage, "runs", ["config_json"], [("run_id", "=", run_id)])["config_json"][0].as_py()
    width, height = (int(np.median(np.asarray(rows[name]))) for name in ("width", "height"))
    return _Newest(
        run_id=run_id,
        encoder_id=rows["encoder_id"][0].as_py(),
        size=(width, height),
        unflagged=rows["image_id"].to_pylist(),
        config=Config.model_validate(json.loads(config)),
    )


def _chosen(receipts: pa.Table, unflagged: list[str], most: int) -> pa.Table:
    """Receipts of some unflagged images, as many as `naming.references` and always the same."""
    chosen = [unflagged[place] for place in reference_panel(unflagged, most, 0)]
    rows = receipts.filter(pc.is_in(receipts["image_id"], value_set=pa.array(chosen)))
    rows = rows.filter(pc.is_valid(rows["embedding_uri"]))
    if not rows.num_rows:
        raise LakeError(f"no embedding of the {len(unflagged)} unflagged images is there any more. {_GONE}")
    place = pc.index_in(values(rows["image_id"]), value_set=pa.array(chosen))
    return rows.take(pc.sort_indices(place))


def _described(
    crops: list[np.ndarray], names: list[str], newest: _Newest, encoder: Encoder, references: list[np.ndarray]
) -> np.ndarray:
    width, height = newest.size
    mode, patches, owner = newest.config.encoder.fit, [], list[int]()
    for part in batches(range(len(crops)), _PORTION):
        canvases = [_canvas(names[number], crops[number], newest.size) for number in part]
        pixels = np.stack([fit(canvas, encoder.image_size, mode) for canvas in canvases])
        for number, vectors in zip(part, encoder.embed(pixels).all_vectors(), strict=True):
            rows, columns = crops[number].shape[:2]
            box = ((width - columns) // 2, (height - rows) // 2, columns, rows)
            places = patches_of_box(box, encoder.grid, width, height, mode)
            places = places[:: -(-len(places) // MOST_PATCHES)]
            patches.append(vectors[places])
            owner += [number] * len(places)
    return region_vectors(np.concatenate(patches), np.array(owner), references)


def _canvas(name: str, crop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture of the product's size, width and height, with the crop in its middle and its mirror images around."""
    rows, columns = crop.shape[:2]
    width, height = size
    if min(rows, columns) < _LEAST or columns > width or rows > height:
        raise SettingsError(
            f"the crop {name} must have at least {_LEAST} pixels a side and at most {width} x {height}, as photos of "
            f"the product; got {columns} x {rows}. Cut it out of the photo at its own scale."
        )
    left, top = (width - columns) // 2, (height - rows) // 2
    around = ((top, height - rows - top), (left, width - columns - left), (0, 0))
    return np.pad(crop, around, mode="symmetric")


def told(counts: Mapping[str, int]) -> str:
    """Say how many of each type there are."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())

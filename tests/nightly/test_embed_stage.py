"""Decoding and embedding one unit, and knowing what is embedded already."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from patchead.encoders import EncoderSpec
from patchead.errors import WeightsError
from patchead.hashing import content_hash
from patchead.lake.contents import Contents
from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.decode import DecodeSettings, Shared, decode_unit
from patchead.nightly.decoded_unit import DecodedUnit
from patchead.nightly.embed import EmbedActor, EmbedSpec, identify
from patchead.nightly.units import units
from patchead.samples.recipe import SampleRecipe
from patchead.schema import OK, RECEIPTS, TO_EMBED, table
from patchead.storage import Storage


def manifest(rows: list[dict[str, object]]) -> pa.Table:
    return table([{"format": "files", "size": 1, **row} for row in rows], TO_EMBED)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for index in range(3):
        sink = io.BytesIO()
        Image.fromarray(np.full((4 + index, 6, 3), 40 * index, np.uint8)).save(sink, "PNG")
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(sink.getvalue())
    return paths


def test_a_unit_is_decoded_to_pixels_and_receipts(tmp_path: Path, photos: list[Path]) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    paths = [photos[0], broken, photos[1], photos[2], tmp_path / "gone.png"]
    store = EmbeddingStore(str(tmp_path / "lake"), Storage(), "any")
    elsewhere = {"image_id": "elsewhere", "content_hash": content_hash(photos[1].read_bytes()), "status": OK}
    earlier = store.write_unit("earlier", table([elsewhere], RECEIPTS), np.ones((1, 1, 1), np.float16))
    store.settle()
    settings = DecodeSettings(Storage(), "image", None, 10**6, "auto", SampleRecipe(8, "squash", (1, 1)))
    rows = [{"image_id": path.name, "uri": str(path), "group_id": "g"} for path in paths]
    shared = [Shared(Contents(store.index), {})]
    decoded = decode_unit(units(manifest(rows), 64, "run"), settings=settings, shared=shared)
    assert not any(pa.types.is_large_binary(field.type) for field in decoded.schema)  # no file in a cell
    unit = DecodedUnit.of(decoded)
    found = {row["image_id"]: row for row in unit.receipts.to_pylist()}
    assert {name: row["status"] for name, row in found.items()} == {
        "0.png": "ok",
        "1.png": "ok",
        "2.png": "ok",
        "broken.png": "failed",
        "gone.png": "failed",
    }
    assert found["1.png"]["embedding_uri"] == earlier["embedding_uri"][0].as_py()  # embedded on an earlier night
    assert (found["2.png"]["width"], found["2.png"]["height"], found["2.png"]["embedding_uri"]) == (6, 6, None)
    pixels = unit.pixels.reshape(-1, 8, 8, 3)
    assert (unit.valid.dtype, unit.motions.dtype, unit.motions.shape) == (bool, np.float32, (2 * 2 * 3,))
    assert [int(image.mean()) for image in pixels] == [0, 80]  # the two that are new, in the receipts' order


def test_weights_that_differ_between_nodes_are_refused(tmp_path: Path) -> None:
    """Each node reads its own file of that name: one of the two has been trained on."""
    spec = EncoderSpec("timm/test_vit", str(tmp_path / "node.safetensors"), 32)
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    save_file(state, spec.weights)
    facts = identify(spec)
    recipe = SampleRecipe(32, "squash", facts.grid)
    store = EmbeddingStore(str(tmp_path / "lake"), Storage(), facts.encoder_id)
    embed_actor(spec, store, recipe)
    (name, weight), *_ = state.items()
    save_file(state | {name: weight + 1e-3}, spec.weights)
    other = identify(spec).encoder_id
    assert other != facts.encoder_id
    with pytest.raises(WeightsError) as caught:
        embed_actor(spec, store, recipe)
    assert str(caught.value) == (
        f"the weights {spec.weights} differ between nodes or changed during the run: {other} here, "
        f"{store.encoder_id} at its start. Give all nodes the same file."
    )


def embed_actor(spec: EncoderSpec, store: EmbeddingStore, recipe: SampleRecipe) -> EmbedActor:
    actor = EmbedActor()
    actor.setup(EmbedSpec(spec, store, recipe, 32, 1))
    return actor


def test_a_decoding_task_declares_the_memory_of_the_largest_image_and_of_what_it_fetches() -> None:
    recipe = SampleRecipe(32, "squash", (2, 2))
    settings = DecodeSettings(Storage(), "image", None, 10**6, "auto", recipe, max_bytes=500, bytes_in_flight=100)
    assert settings.memory_bytes(pa.array([-1, 90])) == 26 * 10**6 + 2 * 100
    assert settings.memory_bytes(pa.array([300, 200])) == 26 * 10**6 + 2 * 300  # fetched alone
    assert settings.memory_bytes(pa.array([900])) == 26 * 10**6 + 2 * 500  # not read

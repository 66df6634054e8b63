from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sklearn.metrics import f1_score, roc_auc_score

from patchead.encoders import build
from patchead.errors import ArchiveError, SettingsError
from patchead.evaluation import bench, run
from patchead.evaluation.bench import draw
from patchead.evaluation.command import run_evaluation
from patchead.evaluation.datasets import Dataset, load
from patchead.evaluation.records import METRICS, SCHEMA, TOO_FEW
from patchead.evaluation.report import HEADER
from patchead.evaluation.variants import variants
from patchead.local import embed_images, score_samples
from patchead.scoring.verdict import VerdictSettings, judge
from tests.helpers.faulty_weights import edges_alone
from tests.helpers.tiny_tree import BAD, CLASSES, FEW_SHOT, GOOD, TRAIN, loader, plant

LOUD = ("score_samples", "embed_images", "embed_prompts")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the expensive functions, once per call."""
    made: list[str] = []
    for module, names in ((bench, LOUD), (run, ("build",))):
        for name in names:
            original = getattr(module, name)

            def counted(*args: Any, _original: Any = original, _name: str = name, **kwargs: Any) -> Any:
                made.append(_name)
                return _original(*args, **kwargs)

            monkeypatch.setattr(module, name, counted)
    return made


def evaluated(root: Path | None, output: Path, *settings: str, dataset: str = "folder", **options: Any) -> pa.Table:
    options = {"map_side": 64, **options}
    return run_evaluation(
        loader(*settings), Console(file=io.StringIO(), width=200), dataset=dataset, root=root, output=output, **options
    )


def markdown_cells(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    lines = [line.strip("| ").split(" | ") for line in path.read_text().splitlines() if line.startswith("| ")]
    assert tuple(lines[0]) == HEADER
    return {(line[0], line[1]): dict(zip(HEADER, line, strict=True)) for line in lines[2:]}


def without_seconds(table: pa.Table) -> list[dict[str, Any]]:
    return table.drop_columns(["embed_seconds", "score_seconds"]).to_pylist()


def test_batch_figures_are_those_of_the_scores_and_the_three_outputs_agree(tree: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    table = run_evaluation(
        loader(), Console(file=text, width=200), dataset="folder", root=tree, output=tmp_path, name="mine"
    )
    assert table.schema == SCHEMA
    assert pq.read_table(tmp_path / "mine.parquet").equals(table)
    rows = table.to_pylist()
    assert [(row["class_name"], row["seed"], row["mode"]) for row in rows] == [
        (name, None, "batch") for name in CLASSES
    ]
    (variant,) = variants(loader(), [])
    encoder = build(variant.encoder_spec(attention=False))
    for row, members in zip(rows, load("folder", tree).classes, strict=True):
        scores = score_samples(embed_images([s.path for s in members.test], encoder), aggregation=variant.aggregation)
        labels = [sample.anomalous for sample in members.test]
        assert row["image_auroc"] == pytest.approx(roc_auc_score(labels, scores.image_scores))
        judged, truth = judge(scores.image_scores, VerdictSettings()), np.array(labels)
        assert row["verdict_rule"] == judged.rule == "mad"
        assert row["verdict_good_flagged"] == judged.flagged[~truth].mean()
        assert row["verdict_defective_flagged"] == judged.flagged[truth].mean()
        assert row["verdict_f1"] == pytest.approx(f1_score(labels, judged.flagged))
        assert (row["images"], row["anomalous"], row["mapped"], row["without_mask"]) == (GOOD + BAD, BAD, GOOD + BAD, 0)
        assert row["weights_digest"] == encoder.weights_digest
        assert json.loads(row["settings"])["scoring.fraction"] == 0.3
    cells = markdown_cells(tmp_path / "mine.md")
    assert list(cells) == [("as configured", name) for name in (*CLASSES, "mean")]
    for name, metric in zip(HEADER[4:-1], METRICS, strict=True):
        values = [row[metric] for row in rows]
        for line, value in zip(cells.values(), [*values, np.mean(values)], strict=True):
            assert line[name] == f"{100 * value:.2f}"
            assert line[name] in text.getvalue()


def test_pixel_figures_are_those_of_the_full_search_whatever_the_schedule(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = []

    def scored(*args: Any, **kwargs: Any) -> Any:
        found = score_samples(*args, **kwargs)
        left_out.append(found.exact is not None and not found.exact.all())
        return found

    monkeypatch.setattr(bench, "score_samples", scored)
    options: dict[str, Any] = {"classes": CLASSES[:1]}
    full, bounded = (
        evaluated(tree, tmp_path / of, "encoder.image_size=128", f"scoring.schedule={of}", **options).to_pylist()[0]
        for of in ("auto", "bounded")
    )
    assert left_out == [False, True]
    for name in METRICS:
        assert bounded[name] == pytest.approx(full[name], abs=1e-6), name


def test_a_planted_square_is_found(tree: Path, tmp_path: Path) -> None:
    rows = evaluated(tree, tmp_path).to_pylist()
    for row in rows:
        assert row["image_auroc"] > 0.8
        assert row["pixel_auroc"] > 0.8
        assert row["pixel_pro"] > 0.4


@pytest.mark.parametrize("more", [(), ("scoring.max_references=6",), FEW_SHOT], ids=["batch", "panel", "few-shot"])
def test_a_photo_that_cannot_be_compared_is_in_no_metric(tree: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    """A flat photo and a CNN that answers to edges alone: the figures are those without it."""
    weights = edges_alone(tmp_path / "edges.safetensors")
    cnn = ("encoder.name=timm/resnet18", f"encoder.weights={weights}", "encoder.layers=[2]", *more)
    rows = []
    for name, flat in (("with", True), ("without", False)):
        shutil.copytree(tree, tmp_path / name)
        photo = tmp_path / name / CLASSES[0] / "test" / "good" / "003.png"
        photo.unlink()
        if flat:
            cv2.imwrite(str(photo), np.full((72, 72, 3), 90, np.uint8))
        output = tmp_path / f"{name}-out"
        rows.append(evaluated(tmp_path / name, output, *cnn, classes=CLASSES[:1], seeds=1).to_pylist()[0])
    found, alone = rows
    assert (found["images"], found["unscored"], found["mapped"]) == (GOOD + BAD, 1, GOOD + BAD - 1)
    assert (alone["images"], alone["unscored"]) == (GOOD + BAD - 1, 0)
    if "scoring.max_references=6" not in more:  # the flat photo may be one of the panel
        assert {name: found[name] for name in METRICS} == {name: alone[name] for name in METRICS}


def test_a_rerun_computes_nothing_and_gives_the_same(tree: Path, tmp_path: Path, calls: list[str]) -> None:
    first = evaluated(tree, tmp_path)
    assert sorted(set(calls)) == ["build", "embed_images", "score_samples"]
    calls.clear()
    again = evaluated(tree, tmp_path)
    assert calls == []
    assert again.equals(first)


def test_only_what_is_missing_or_half_written_is_computed_again(tree: Path, tmp_path: Path, calls: list[str]) -> None:
    first = evaluated(tree, tmp_path)
    lost, kept = sorted((tmp_path / "records").iterdir())
    before = kept.stat().st_mtime_ns
    for damage in ("gone", "half", "empty"):
        calls.clear()
        whole = lost.read_text()
        if damage == "gone":
            lost.unlink()
        else:
            lost.write_text(whole[: len(whole) // 2] if damage == "half" else "")
        again = evaluated(tree, tmp_path)
        assert calls == ["build", "embed_images", "score_samples"]
        assert without_seconds(again) == without_seconds(first)
        assert json.loads(lost.read_text())["rows"]
    assert kept.stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "records").iterdir() if path.name.startswith(".")] == []


def test_an_interrupted_run_keeps_the_classes_it_finished(
    tree: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = run.measure

    def interrupted(samples: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if CLASSES[1] in samples[0].path.parts:
            raise KeyboardInterrupt
        return original(samples, *args, **kwargs)

    monkeypatch.setattr(run, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tree, tmp_path)
    monkeypatch.setattr(run, "measure", original)
    calls.clear()
    assert evaluated(tree, tmp_path).num_rows == 2
    assert calls == ["build", "embed_images", "score_samples"]


def test_a_changed_image_mask_or_setting_is_computed_again(tree: Path, tmp_path: Path, calls: list[str]) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(tree, root)
    evaluated(root, out)
    image = root / CLASSES[0] / "test" / "good" / "000.png"
    mask = root / CLASSES[1] / "ground_truth" / "square" / "000_mask.png"
    for path in (image, mask):
        calls.clear()
        shutil.copyfile(path.with_name(path.name.replace("000", "001")), path)
        evaluated(root, out)
        assert calls == ["build", "embed_images", "score_samples"]
    calls.clear()
    os.utime(image, ns=(0, 0))  # another file of the same size
    evaluated(root, out)
    assert calls == ["build", "embed_images", "score_samples"]
    calls.clear()
    evaluated(root, out, map_side=128)
    assert calls.count("score_samples") == 2
    calls.clear()
    evaluated(root, out, "scoring.fraction=0.5")
    assert calls.count("score_samples") == 2
    calls.clear()
    # of the training images batch scores do not depend
    shutil.copyfile(image, root / CLASSES[0] / "train" / "good" / "000.png")
    evaluated(root, out)
    assert calls == []


def test_a_sweep_gives_a_row_per_variant_and_embeds_once_per_encoder(
    tree: Path, tmp_path: Path, calls: list[str]
) -> None:
    sweeps = ["encoder.layers=[6],[3,6]", "scoring.aggregate=nearest,farthest", "mask.enabled=false,true"]
    table = evaluated(tree, tmp_path, sweeps=sweeps, classes=[CLASSES[0]])
    rows = table.to_pylist()
    assert len(rows) == len({row["variant"] for row in rows}) == 8
    assert rows[1]["variant"] == "encoder.layers=[6], scoring.aggregate=nearest, mask.enabled=true"
    assert {name: calls.count(name) for name in ("build", "embed_images", "score_samples")} == {
        "build": 2, "embed_images": 2, "score_samples": 8,
    }  # fmt: skip
    assert len({json.dumps([row[metric] for metric in METRICS]) for row in rows}) == 8
    assert len(markdown_cells(tmp_path / "folder.md")) == 8
    calls.clear()
    (alone,) = evaluated(
        tree, tmp_path / "alone", "encoder.layers=[3,6]", "scoring.aggregate=farthest", classes=[CLASSES[0]]
    ).to_pylist()
    # the attention of the other variants is made by other kernels: a rounding
    assert [alone[metric] for metric in METRICS] == pytest.approx([rows[6][metric] for metric in METRICS], abs=1e-3)
    # the same variant under another label is not computed again
    calls.clear()
    relabelled = evaluated(tree, tmp_path, "encoder.layers=[3,6]", "scoring.aggregate=farthest", classes=[CLASSES[0]])
    assert calls == []
    assert relabelled["variant"].to_pylist() == ["as configured"]


def test_few_shot_draws_with_three_seeds_and_gives_mean_and_deviation(
    tree: Path, tmp_path: Path, calls: list[str]
) -> None:
    table = evaluated(tree, tmp_path, *FEW_SHOT)
    rows = table.to_pylist()
    assert [(row["class_name"], row["seed"]) for row in rows] == [(name, seed) for name in CLASSES for seed in range(3)]
    assert {row["mode"] for row in rows} == {"few_shot"}
    # (the prompts' own embedding is not counted here) test images once per class
    assert (calls.count("embed_images"), calls.count("embed_prompts"), calls.count("score_samples")) == (2, 6, 6)
    cells = markdown_cells(tmp_path / "folder.md")
    by_class = np.array([row["pixel_pro"] for row in rows]).reshape(2, 3)
    for name, values in zip((*CLASSES, "mean"), [*by_class, by_class.mean(axis=0)], strict=True):
        expected = f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"
        assert cells["as configured", name]["pixel PRO"] == expected
    assert len({row["pixel_pro"] for row in rows}) == 6
    calls.clear()
    assert evaluated(tree, tmp_path, *FEW_SHOT).equals(table)
    assert calls == []
    # one more seed is another record, with the same first ones
    more = evaluated(tree, tmp_path, *FEW_SHOT, seeds=4).to_pylist()
    assert [row["pixel_pro"] for row in more if row["seed"] != 3] == [row["pixel_pro"] for row in rows]


def test_all_training_images_as_prompts_need_one_draw(tree: Path, tmp_path: Path) -> None:
    rows = evaluated(tree, tmp_path, *FEW_SHOT, "prompts.k=null", classes=[CLASSES[1]]).to_pylist()
    assert [row["seed"] for row in rows] == [0]
    every = evaluated(tree, tmp_path, *FEW_SHOT, f"prompts.k={TRAIN}", classes=[CLASSES[1]]).to_pylist()
    assert {row["image_auroc"] for row in every} == {rows[0]["image_auroc"]}


def test_fewer_prompts_are_a_part_of_more_and_seeds_differ() -> None:
    names = [f"{i:03}.png" for i in range(50)]
    for seed in range(5):
        assert set(draw(names, 2, seed)) < set(draw(names, 8, seed))
    assert len({tuple(draw(names, 4, seed)) for seed in range(20)}) > 15
    assert [names[i] for i in draw(names, 4, 0)] == sorted(names[::-1][i] for i in draw(names[::-1], 4, 0))


@pytest.mark.parametrize("mode", [(), FEW_SHOT])
def test_alignment_is_counted_and_swept(tree: Path, tmp_path: Path, calls: list[str], mode: tuple[str, ...]) -> None:
    sweeps = ["align.enabled=false,true", "mask.enabled=false,true"]
    table = evaluated(tree, tmp_path, *mode, classes=[CLASSES[0]], sweeps=sweeps, seeds=2)
    rows = table.to_pylist()
    seeds = 2 if mode else 1
    assert len(rows) == 4 * seeds
    for row in rows:
        assert (row["aligned"] is None) == ("align.enabled=false" in row["variant"])
        assert row["status"] == "ok"
    # once as they are, and once per draw aligned
    assert calls.count("embed_images") == 1 + seeds
    assert calls.count("score_samples") == 4 * seeds


def test_plus_takes_mask_and_alignment_as_the_paper_has_them(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load("folder", tree, [CLASSES[0]])
    for align, mask in ((True, True), (False, True)):
        changed = Dataset(found.name, found.classes, align=align, mask=mask)
        monkeypatch.setattr("patchead.evaluation.command.load", lambda *_, changed=changed: changed)
        (row,) = evaluated(tree, tmp_path, plus=True).to_pylist()
        settings = json.loads(row["settings"])
        assert (settings["align.enabled"], settings["mask.enabled"]) == (align, mask)
        (row,) = evaluated(tree, tmp_path).to_pylist()
        assert not json.loads(row["settings"])["mask.enabled"]


def test_a_class_with_too_few_images_is_told_not_scored(tree: Path, tmp_path: Path) -> None:
    table = evaluated(tree, tmp_path, f"scoring.min_batch={GOOD + BAD + 1}")
    assert set(table["status"].to_pylist()) == {TOO_FEW}
    assert all(table[metric].null_count == 2 for metric in METRICS)
    text = (tmp_path / "folder.md").read_text()
    assert f"{GOOD + BAD} images are too few" in text
    assert markdown_cells(tmp_path / "folder.md")["as configured", "mean"]["image AUROC"] == "-"


def test_duplicates_of_everything_else_are_unscored(tmp_path: Path) -> None:
    root = plant(tmp_path / "tree", CLASSES[:1])
    images = sorted((root / CLASSES[0] / "test").rglob("*.png"))
    for path in images[1:]:
        shutil.copyfile(images[0], path)
    (row,) = evaluated(root, tmp_path / "out").to_pylist()
    assert (row["unscored"], row["image_auroc"], row["pixel_auroc"]) == (GOOD + BAD, None, None)


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"dataset": "mvtek"}, SettingsError, "mvtek"),
        ({"dataset": "mvtec"}, ArchiveError, "bottle"),
        ({"root": Path("nowhere")}, ArchiveError, "nowhere"),
        ({"classes": ["clot"]}, SettingsError, "clot"),
        ({"seeds": 0}, SettingsError, "--seeds must be at least 1"),
        ({"map_side": 8}, SettingsError, "--map-side must be at least 32"),
        ({"sweeps": ["encoder.image_size=64,65"]}, SettingsError, "encoder.image_size must be a multiple"),
        ({"sweeps": ["mask.enabled=true"], "settings": ("encoder.name=timm/resnet18",)}, SettingsError, "resnet18"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_computed(
    tree: Path, tmp_path: Path, calls: list[str], options: dict[str, Any], error: type[Exception], why: str
) -> None:
    given = {"root": tree, **options}
    with pytest.raises(error, match=why):
        evaluated(given.pop("root"), tmp_path, *given.pop("settings", ()), **given)
    assert calls == []


def test_more_prompts_than_training_images_are_refused(tree: Path, tmp_path: Path, calls: list[str]) -> None:
    with pytest.raises(SettingsError, match=f"at most the {TRAIN} training images of class {CLASSES[0]}; got 9"):
        evaluated(tree, tmp_path, *FEW_SHOT, "prompts.k=9")
    shutil.copytree(tree, root := tmp_path / "tree")
    for name in CLASSES:
        shutil.rmtree(root / name / "train")
    with pytest.raises(SettingsError, match=r"no training images .* Set scoring\.mode to batch"):
        evaluated(root, tmp_path, *FEW_SHOT)
    assert calls == []


def test_a_window_with_fewer_than_three_prompts_is_refused(
    tree: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every, why = (*FEW_SHOT, "prompts.k=null", "scoring.window=1"), "must be off or auto with fewer than 3 prompts that"
    for name, images in (("few", 2), ("copies", 3)):
        shutil.copytree(tree, root := tmp_path / name)
        files = sorted((root / CLASSES[0] / "train" / "good").iterdir())
        for file in files[images:]:
            file.unlink()
        files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(SettingsError, match=why):
        evaluated(tmp_path / "few", tmp_path / "out", *every)
    assert calls == []
    monkeypatch.setattr(bench, "embed_images", lambda *_, **__: pytest.fail("the images were embedded"))
    with pytest.raises(SettingsError, match=why):
        evaluated(tmp_path / "copies", tmp_path / "out", *every, classes=CLASSES[:1])


def test_an_output_that_cannot_be_made_is_named_first(tree: Path, tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SettingsError, match=r"--output: .*out.* cannot be made: Not a directory"):
        evaluated(tree, tmp_path / "out")
    assert calls == []


@pytest.mark.parametrize("path", sorted(Path("jobs/configs/evaluate").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_ready_made_settings_are_valid(path: Path) -> None:
    from patchead.settings.load import load_config

    unused = {"archive.uri": "unused://archive", "lake.uri": "unused://lake"}
    given = ["encoder.dtype=fp32", "scoring.precision=fp32"]  # or the probe would build each encoder
    (variant,) = variants(lambda overrides: load_config(path, [*given, *overrides], unused), [])
    assert variant.encoder_spec(attention=False).image_size in (448, 518)
    assert variant.few_shot == ("few_shot" in path.stem)

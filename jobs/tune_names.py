"""Tunes the words that regions are named by, on a labelled dataset or on planted defects, and writes one file.

The file takes the place of ``naming.keywords``: ``naming.words``, with the same encoder and weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml
from defect_crops import crops_of, keywords_of, of_dataset, of_planted, types_of
from planted import KINDS

from patchead.cli import run_command
from patchead.encoders.build import chosen
from patchead.encoders.clip_towers import build_towers
from patchead.encoders.registry import require_words
from patchead.errors import SettingsError, arguments_named, bad_value
from patchead.evaluation.datasets.registry import DATASETS, load
from patchead.settings.resolve import this_device
from patchead.storage import Storage
from patchead.tuning.examples import embed_examples
from patchead.tuning.train import TuneSettings, tune
from patchead.tuning.words_file import tuned_words, write_words

_OPTIONS = {"held_out": "--held-out", "keywords": "--keywords", "words": "--out", "name": "--encoder"}
_OPTIONS |= {"weights": "--weights", "contexts": "--contexts", "device": "--device"}


def main(
    *,
    held_out: Annotated[str, typer.Option(help="Types, comma-separated, that each stage is judged by.")],
    out: Annotated[str, typer.Option(help="Path or URL of the file, .safetensors.")],
    dataset: Annotated[str | None, typer.Option(help=f"One of {', '.join(DATASETS)}.")] = None,
    root: Annotated[Path | None, typer.Option(help="The dataset's folder.")] = None,
    planted: Annotated[Path | None, typer.Option(help="In place of a dataset: a folder of good photos.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes of the dataset, comma-separated; default: all.")] = None,
    encoder: Annotated[str, typer.Option(help="As naming.encoder.")] = "clip-l14-336",
    weights: Annotated[str, typer.Option(help="As naming.weights.")] = "hub",
    keywords: Annotated[Path | None, typer.Option(help="YAML: type to phrases; default: the types' names.")] = None,
    layers: Annotated[str, typer.Option(help="Blocks that are tapped: quarters, auto, or last.")] = "quarters",
    contexts: Annotated[int, typer.Option(min=1, help="Contexts before every phrase.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each stage.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Crops of a step.")] = 16,
    seed: Annotated[int, typer.Option(help="Of contexts, batches and planted defects.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Tune words on labelled defects with a frozen CLIP (method.md §15)."""
    if (dataset is None) == (planted is None):
        raise SettingsError("give either --dataset, a labelled one, or --planted, a folder of good photos.")
    with arguments_named(_OPTIONS):
        name = require_words(encoder)
        taps, _ = chosen(name, weights, layers, 0)
        towers = build_towers(name, weights, device=this_device(device), taps=taps)
        if planted is not None:
            pictures, types = of_planted(planted, seed), sorted(KINDS)
        else:
            labelled = load(str(dataset), root, classes.split(",") if classes else None)
            pictures, types = of_dataset(labelled), types_of(labelled)
        words = _keywords(keywords, types)
        torch.manual_seed(seed)
        examples = embed_examples(towers, crops_of(pictures, towers.image_size), types)
        counts = {of: int((examples.of_type == number).sum()) for number, of in enumerate(["good", *types])}
        print(f"{towers.encoder_id}: crops {json.dumps(counts)}")
        settings = TuneSettings(contexts=contexts, steps=steps, batch=batch, seed=seed)
        tuned = tune(towers, words, [each.strip() for each in held_out.split(",")], examples, settings)
        made = tuned_words(towers, words, tuned)
        write_words(out, Storage(), made)
    if not tuned.kept:
        print("no stage has helped: the file holds the untuned words")
    print(f"{out}: naming.words, with naming.encoder {encoder} and naming.weights {weights}")


def _keywords(path: Path | None, types: list[str]) -> dict[str, list[str]]:
    if path is None:
        return keywords_of(types)
    try:
        given: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise SettingsError(f"--keywords {path} cannot be read: {exc}. Give a YAML file, type to phrases.") from exc
    well = isinstance(given, dict) and all(isinstance(phrases, list) for phrases in given.values())
    if not well or sorted(map(str, given)) != types:
        raise SettingsError(bad_value("--keywords", given, f"a list of phrases for each of {', '.join(types)}"))
    return {str(name): [str(phrase) for phrase in phrases] for name, phrases in given.items()}


if __name__ == "__main__":
    job = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    job.command()(main)
    run_command(job)

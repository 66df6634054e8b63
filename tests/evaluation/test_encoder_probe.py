"""What an evaluation computes in where its settings leave it to the processor, and where its table says so."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from patchead.encoders import EncoderSpec, build
from patchead.evaluation.command import run_evaluation
from patchead.evaluation.encoder_probe import DTYPES, with_arithmetic
from patchead.evaluation.encoder_probe import encoder_probe as timed
from patchead.scoring.precision_probe import choose, clearly_slower, probe
from patchead.scoring.race import race
from patchead.settings.load import load_config
from tests.helpers.tiny_tree import CLASSES, loader, plant

SMALL = EncoderSpec("timm/vit_small_patch16_224", "random", image_size=224)
PLACES = {"archive.uri": "unused://archive", "lake.uri": "unused://lake"}


def test_the_probe_of_one_layer_says_what_the_whole_encoder_says() -> None:
    threads = torch.get_num_threads()
    found = timed(SMALL)
    assert torch.get_num_threads() == threads
    image = np.zeros((1, 224, 224, 3), np.uint8)
    torch.set_num_threads(1)
    encoders = {d: build(EncoderSpec(SMALL.name, "random", image_size=224, dtype=d)) for d in DTYPES}
    seconds = race({d: partial(encoder.embed, image) for d, encoder in encoders.items()}, 3)
    torch.set_num_threads(threads)
    assert found["fp32"] == 1
    if choose([found], DTYPES) == "bf16":
        assert seconds["bf16"] < seconds["fp32"]
    if clearly_slower(found["bf16"]):
        assert seconds["bf16"] > seconds["fp32"]


@pytest.mark.usefixtures("plain_loops")
def test_where_bfloat16_is_a_plain_loop_auto_is_fp32_throughout() -> None:
    assert timed(SMALL)["bf16"] < 0.8
    config = load_config(None, ["encoder.name=timm/vit_small_patch16_224", "encoder.image_size=224"], PLACES)
    settled = with_arithmetic(config)
    assert (settled.encoder.dtype, settled.scoring.precision) == ("fp32", "fp32")
    assert (config.encoder.dtype, config.scoring.precision) == ("auto", "auto")


def test_auto_is_what_the_probes_choose_and_what_is_asked_for_stays() -> None:
    auto = ["encoder.name=timm/vit_small_patch16_224", "encoder.image_size=224"]
    settled = with_arithmetic(load_config(None, auto, PLACES))
    assert settled.encoder.dtype == choose([timed(SMALL)], DTYPES)
    assert settled.scoring.precision == choose([probe()])
    asked = with_arithmetic(load_config(None, [*auto, "encoder.dtype=fp16", "scoring.precision=bf16"], PLACES))
    assert (asked.encoder.dtype, asked.scoring.precision) == ("fp16", "bf16")


@pytest.mark.usefixtures("plain_loops")
def test_the_table_says_what_was_used_and_what_was_slow(tmp_path: Path) -> None:
    said = io.StringIO()
    root = plant(tmp_path / "tree", CLASSES[:1])
    table = run_evaluation(
        loader(),
        Console(file=said, width=200),
        dataset="folder",
        root=root,
        output=tmp_path,
        sweeps=["scoring.precision=fp32,int8"],
        map_side=64,
    )
    used = [json.loads(text)["scoring.precision"] for text in table["settings"].to_pylist()]
    assert used == ["fp32", "int8"]
    sentence = (
        "Arithmetic: scoring.precision=fp32: fp32 encoder, fp32 scores; scoring.precision=int8: fp32 encoder, int8 "
        "scores."
    )
    assert sentence in (tmp_path / "folder.md").read_text()
    assert sentence in said.getvalue()
    assert "warning: scoring.precision int8 runs at 0.0" in said.getvalue()
    assert said.getvalue().count("warning:") == 1

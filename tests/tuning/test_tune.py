"""A tiny pair trained on shapes names their patches; tuned words help a type that was not seen, or are undone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from patchead.encoders.clip_towers import ClipTowers, build_towers
from patchead.errors import LakeError, SettingsError, WeightsError
from patchead.naming.text_bank import make_text_bank
from patchead.storage import Storage
from patchead.tuning.examples import Examples, LabelledCrop, covered, embed_examples
from patchead.tuning.train import Tuned, TuneSettings, tune
from patchead.tuning.words_file import read_words, require_same_encoder, tuned_words, write_words
from tests.helpers.shapes import COLOURS, shape, surface, trained_pair
from tests.helpers.tiny_clip import NAME, tiny_towers

KEYWORDS = {name: [f"a {name}"] for name in COLOURS}


def labelled(towers: ClipTowers) -> Examples:
    rng = np.random.default_rng(4)
    crops = [LabelledCrop(*shape(name, rng), name) for name in COLOURS for _ in range(12)]
    crops += [LabelledCrop(surface(rng), np.zeros((32, 32), bool), None) for _ in range(12)]
    return embed_examples(towers, crops, list(COLOURS))


@pytest.fixture(scope="module")
def towers() -> ClipTowers:
    return tiny_towers(taps=(1, 2))


@pytest.fixture(scope="module")
def examples(towers: ClipTowers) -> Examples:
    return labelled(towers)


@pytest.fixture(scope="module")
def tuned(towers: ClipTowers, examples: Examples) -> Tuned:
    return tune(towers, KEYWORDS, ["rust"], examples, TuneSettings(contexts=2, steps=15), tell=lambda line: None)


def test_labels_are_those_of_covered_patches(examples: Examples) -> None:
    mask = np.zeros((32, 32), bool)
    mask[6:10, :] = True
    assert covered(mask, (4, 4)).reshape(4, 4)[:, 0].tolist() == [0.25, 0.25, 0, 0]
    assert examples.patches.shape == (60, 2, 16, 24)
    assert set(examples.labels[examples.of_type == 0].ravel()) == {0}
    assert set(examples.labels[examples.of_type == 2].ravel()) == {0, 2}


@pytest.mark.slow
def test_a_trained_pair_tells_shapes_apart_and_tuning_helps_a_type_that_it_has_not_seen() -> None:
    """Quick: the same functions with random weights, below; each loss and prompt by loops in its own file."""
    pair = trained_pair(60, taps=(1, 2))
    examples = labelled(pair)
    bank = make_text_bank(KEYWORDS, pair.encode_text)
    contrasts = examples.patches[:, -1].astype(np.float32) @ bank.contrast_vectors[:4].T
    right = [
        contrasts[n][examples.labels[n] > 0].mean(axis=0).argmax() == of - 1
        for n, of in enumerate(examples.of_type)
        if of
    ]
    assert np.mean(right) > 0.8
    words = {name: [f"damage by {name}"] for name in COLOURS}
    found = tune(pair, words, ["rust"], examples, TuneSettings(contexts=2, steps=25), tell=lambda line: None)
    assert found.kept[0] == "context tokens"
    assert max(value for _, value in found.precision) > found.precision[0][1]


def test_stages_are_kept_as_long_as_held_out_types_gain(tuned: Tuned) -> None:
    stages, values = zip(*tuned.precision, strict=True)
    assert stages[:2] == ("untuned", "context tokens")
    assert list(tuned.kept) == [stage for n, stage in enumerate(stages) if n and values[n] > max(values[:n])]
    assert len(stages) <= len(tuned.kept) + 2
    assert (tuned.adapters is not None) == ("adapters" in tuned.kept)
    assert tuned.prompts.types == tuple(sorted(KEYWORDS))


def test_a_stage_that_does_not_help_is_undone_and_ends_the_training(towers: ClipTowers, examples: Examples) -> None:
    lines: list[str] = []
    settings = TuneSettings(contexts=1, steps=1, rate=0)
    found = tune(towers, KEYWORDS, ["rust"], examples, settings, tell=lines.append)
    assert found.kept == ()
    assert [stage for stage, _ in found.precision] == ["untuned", "context tokens"]
    assert "the stage is undone" in lines[-1]
    texts = [f"a photo of {phrases[0]}" for _, phrases in sorted(KEYWORDS.items())]
    with torch.no_grad():
        np.testing.assert_allclose(found.prompts().types, towers.encode_text(texts), atol=1e-6)


def test_the_frozen_towers_are_as_they_were(towers: ClipTowers, tuned: Tuned) -> None:
    assert all(weight.grad is None for weight in towers.clip.parameters())
    assert not any(weight.requires_grad for weight in towers.clip.parameters())


def test_a_file_of_tuned_words_is_read_as_it_was_written(towers: ClipTowers, tuned: Tuned, tmp_path: Path) -> None:
    made = tuned_words(towers, KEYWORDS, tuned)
    uri = str(tmp_path / "tuned.safetensors")
    write_words(uri, Storage(), made)
    found = read_words(uri, Storage())
    assert found.encoder_id == towers.encoder_id
    assert found.words.taps == (1, 2)
    assert found.facts["kept"] == list(tuned.kept)
    bank = found.words.bank
    assert (bank.types, bank.phrases) == (tuple(sorted(KEYWORDS)), made.words.bank.phrases)
    np.testing.assert_array_equal(bank.contrast_vectors, made.words.bank.contrast_vectors)
    np.testing.assert_array_equal(bank.phrase_vectors[2], made.words.bank.phrase_vectors[2])
    patches = towers.patches(surface(np.random.default_rng(0))[None])[0]
    np.testing.assert_array_equal(found.words.adapted(patches), made.words.adapted(patches))
    require_same_encoder(uri, found, towers)
    other = tmp_path / "other.safetensors"
    save_file({name: value + 1e-3 for name, value in towers.clip.state_dict().items()}, other)
    with pytest.raises(SettingsError, match=r"`words` must be words tuned on the encoder that names, tiny-clip-words-"):
        require_same_encoder(uri, found, build_towers(NAME, str(other)))


def test_what_is_no_file_of_tuned_words_is_refused(towers: ClipTowers, tuned: Tuned, tmp_path: Path) -> None:
    made = tuned_words(towers, KEYWORDS, tuned)
    uri = str(tmp_path / "tuned.safetensors")
    write_words(uri, Storage(), made)
    whole = Path(uri).read_bytes()
    with pytest.raises(WeightsError, match="does not exist"):
        read_words(str(tmp_path / "other.safetensors"), Storage())
    Path(uri).write_bytes(whole[:-40])
    with pytest.raises(WeightsError, match=r"cannot be read.*Run jobs/tune_names.py again"):
        read_words(uri, Storage())
    Path(uri).write_bytes(whole.replace(b"patchead", b"patchesd"))
    with pytest.raises(WeightsError, match="holds no tuned words of version 1"):
        read_words(uri, Storage())
    for call in (lambda: read_words("tuned.pt", Storage()), lambda: write_words("tuned.pt", Storage(), made)):
        with pytest.raises((SettingsError, LakeError), match=r"`words` must be a file that ends in \.safetensors"):
            call()


@pytest.mark.parametrize("held_out", [[], sorted(KEYWORDS), ["crack"]])
def test_a_split_that_nothing_can_be_judged_by_is_refused(
    towers: ClipTowers, examples: Examples, held_out: list[str]
) -> None:
    with pytest.raises(SettingsError, match="`held_out` must be some of mould, rust, scratch, stain, and not all"):
        tune(towers, KEYWORDS, held_out, examples)

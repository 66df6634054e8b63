"""The job that tunes words, on planted defects and a tiny CLIP of random weights; and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from defect_crops import crops_of, of_planted
from planted import KINDS
from tune_names import main

from patchead.errors import SettingsError
from patchead.storage import Storage
from patchead.tuning.words_file import read_words
from tests.helpers.e2e_tools import png, texture
from tests.helpers.tiny_clip import NAME


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2 * len(KINDS)):
        (folder / f"{number:02}.png").write_bytes(png(texture(number, 64)))
    return folder


def test_a_file_of_tuned_words_comes_out(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "words.safetensors")
    settings = {"encoder": NAME, "weights": "random", "layers": "last", "device": "cpu"}
    main(held_out="scratch,stain", out=out, planted=photos, contexts=1, steps=2, **settings)
    found = read_words(out, Storage())
    assert found.words.bank.types == tuple(sorted(KINDS))
    assert found.words.taps in ((), (2,))
    assert [stage for stage, _ in found.facts["precision"]][:2] == ["untuned", "context tokens"]
    assert f"naming.words, with naming.encoder {NAME} and naming.weights random" in capsys.readouterr().out


def test_crops_are_those_that_names_by_words_see(photos: Path) -> None:
    crops = list(crops_of(of_planted(photos, 0), 32))
    assert [crop.defect_type for crop in crops[:4]] == ["scratch", "scratch", "stain", "stain"]
    assert sum(crop.defect_type is None for crop in crops) == 2 * len(KINDS)
    for crop in crops:
        assert crop.image.shape == (32, 32, 3)
        assert crop.mask.any() == (crop.defect_type is not None)
        assert not crop.mask.all()
    assert np.mean([crop.mask.mean() for crop in crops[:1]]) > np.mean([crop.mask.mean() for crop in crops[1:2]])


def test_what_it_cannot_do_is_refused(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "words.safetensors")
    with pytest.raises(SettingsError, match="either --dataset, a labelled one, or --planted"):
        main(held_out="scratch", out=out)
    with pytest.raises(SettingsError, match="--held-out must be some of crack, hole"):
        main(held_out="dent", out=out, planted=photos, encoder=NAME, weights="random", layers="last", device="cpu")
    with pytest.raises(SettingsError, match="--encoder must be a CLIP"):
        main(held_out="dent", out=out, planted=photos, encoder="dinov2-small")

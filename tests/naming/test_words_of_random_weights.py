"""Words of random weights, over many CLIPs: what is unusual is seen, and gets no name (method.md §14)."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch

from patchead.archive.decode import fit
from patchead.encoders.clip_towers import ClipTowers
from patchead.encoders.open_clip_encoder import architecture
from patchead.encoders.spec import EncoderSpec
from patchead.naming.control_words import control_phrases
from patchead.naming.text_bank import TextBank, make_text_bank
from patchead.naming.word_crops import crops_around, touched
from patchead.naming.word_scores import name_by_words, place_scores
from tests.helpers.shapes import COLOURS, surface
from tests.helpers.tiny_clip import NAME

SIDE = 96
KEYWORDS = {"scratch": ["a scratch", "a scratched surface"], "stain": ["a stain"], "rust": ["rust"], "mould": ["mould"]}
KEYWORDS |= {"crack": ["a crack"], "hole": ["a hole"]}
SPEC = EncoderSpec(NAME, "random")


def random_towers(seed: int) -> ClipTowers:
    torch.manual_seed(seed)
    return ClipTowers(SPEC, architecture(SPEC), open_clip.create_model("tiny-clip", force_custom_text=True))


def scores(
    picture: np.ndarray, box: tuple[float, float, float, float], towers: ClipTowers, bank: TextBank
) -> np.ndarray:
    crops = crops_around(box, SIDE, SIDE)
    pixels = np.stack([fit(np.ascontiguousarray(crop.of(picture)), towers.image_size, "squash") for crop in crops])
    patches = np.concatenate(list(towers.patches(pixels)), axis=1)
    return place_scores(patches, bank, touched(crops, box, SIDE, SIDE, towers.grid)).scores


@pytest.mark.slow
def test_random_weights_leave_95_of_100_regions_unknown() -> None:
    """Quick: one CLIP in e2e/test_names_by_words.py, and random vectors in test_word_scores.py."""
    rng, named, by_place, of_good, regions = np.random.default_rng(1), 0, 0, 0, 0
    for seed in range(20):
        towers = random_towers(seed)
        bank = make_text_bank(KEYWORDS, towers.encode_text, controls=control_phrases())
        good = [surface(rng, SIDE) for _ in range(65)]
        for colour in COLOURS.values():
            (height, width), (top, left) = rng.integers(10, 30, 2), rng.integers(5, 60, 2)
            picture = surface(rng, SIDE)
            picture[top : top + height, left : left + width] = colour
            box = left / SIDE, top / SIDE, width / SIDE, height / SIDE
            of_places = np.stack([scores(each, box, towers, bank) for each in good])
            found = name_by_words(scores(picture, box, towers, bank), of_places[:64], bank)
            regions, named, by_place = regions + 1, named + (found.name is not None), by_place + (found.p_value <= 0.05)
            of_good += name_by_words(of_places[64], of_places[:64], bank).name is not None
    print(f"{regions} defects: {by_place} with p0 <= 0.05, {named} named; of as many good places {of_good}")
    assert by_place > regions / 4  # these words are asked for more than p0
    assert named <= 0.05 * regions
    assert of_good <= 0.05 * regions

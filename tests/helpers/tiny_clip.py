"""A CLIP of two blocks of width 32 with open_clip's own classes: image 32 x 32, patches of 8, texts of 20 tokens."""

from __future__ import annotations

from pathlib import Path

import open_clip

from patchead.encoders.clip_towers import ClipTowers, build_towers

NAME = "open_clip/tiny-clip"

open_clip.add_model_config(Path(__file__).parent.parent / "data" / "tiny-clip.json")


def tiny_towers(weights: str = "random", taps: tuple[int, ...] = ()) -> ClipTowers:
    return build_towers(NAME, weights, taps=taps)

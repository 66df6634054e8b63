"""Synthetic shapes on a grey texture, and a tiny CLIP pair that learns to tell them apart from their words."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from patchead.encoders.clip_towers import ClipTowers
from patchead.encoders.open_clip_encoder import architecture
from patchead.encoders.spec import EncoderSpec
from patchead.naming.text_bank import NORMAL_PHRASES, NUISANCES, TEMPLATES
from tests.helpers.tiny_clip import NAME, tiny_towers

SIDE = 32
COLOURS = {"scratch": (230, 230, 230), "stain": (40, 40, 40), "rust": (200, 90, 30), "mould": (40, 140, 60)}
"""What the types look like: a bar of this colour; the words say nothing about it before the pair is trained."""


def surface(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    return rng.integers(110, 146, (side, side, 3), np.uint8)


def shape(name: str, rng: np.random.Generator, side: int = SIDE, most: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """A surface with one bar of a type's colour, uint8 (S, S, 3), and where it is, bool (S, S)."""
    image, mask = surface(rng, side), np.zeros((side, side), bool)
    length = int(rng.integers(side // 2, int(side * most) + 1))
    width = int(rng.integers(side * 3 // 8, int(side * most * 2 / 3) + 1))
    length, width = (length, width) if rng.random() < 0.5 else (width, length)
    top, left = int(rng.integers(0, side - length + 1)), int(rng.integers(0, side - width + 1))
    mask[top : top + length, left : left + width] = True
    image[mask] = np.clip(np.array(COLOURS[name]) + rng.integers(-12, 13, (int(mask.sum()), 3)), 0, 255)
    return image, mask


def trained_pair(steps: int = 200, taps: tuple[int, ...] = ()) -> ClipTowers:
    """A tiny CLIP trained on whole pictures and a sentence each, as CLIP is: nothing says where a bar is.

    It has met the words for what is normal and, as sentences of no picture, those of nuisances.
    """
    towers = tiny_towers(taps=taps)
    clip, names = towers.clip.requires_grad_(True), [*COLOURS, None]
    clip.text.token_embedding.requires_grad_(False)
    optimizer = torch.optim.Adam([weight for weight in clip.parameters() if weight.requires_grad], lr=1e-3)
    rng = np.random.default_rng(0)
    others = [phrase for phrases in NUISANCES.values() for phrase in phrases]
    for _ in range(steps):
        labels = rng.integers(0, len(names), 20)
        images = [surface(rng) if names[n] is None else shape(names[n], rng, most=1.0)[0] for n in labels]
        pixels = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() - towers._mean) / towers._std
        phrases = [
            *(f"a {name}" for name in COLOURS),
            rng.choice(NORMAL_PHRASES),
            *map(str, rng.choice(others, 3, replace=False)),
        ]
        template = str(rng.choice(TEMPLATES))
        text = normalize(
            clip.encode_text(towers.tokens([template.replace("{}", phrase) for phrase in phrases])), dim=-1
        )
        whole = normalize(clip.encode_image(pixels), dim=-1)
        loss = cross_entropy(whole @ text.T / 0.07, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clip.zero_grad(set_to_none=True)
    spec = EncoderSpec(NAME, "random")
    return ClipTowers(spec, architecture(spec), clip, taps)  # its id is that of the trained weights

"""Synthetic shapes on a grey texture, and a tiny CLIP pair that learns to tell them apart from their words."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from patchead.encoders.clip_towers import ClipTowers
from patchead.encoders.open_clip_encoder import architecture
from patchead.encoders.spec import EncoderSpec
from tests.helpers.tiny_clip import NAME, tiny_towers

SIDE = 32
COLOURS = {"scratch": (230, 230, 230), "stain": (40, 40, 40), "rust": (200, 90, 30), "mould": (40, 140, 60)}
"""What the types look like: a bar of this colour; the words say nothing about it before the pair is trained."""
GOOD = "a clean surface"


def surface(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    return rng.integers(110, 146, (side, side, 3), np.uint8)


def shape(name: str, rng: np.random.Generator, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A surface with one bar of a type's colour, uint8 (S, S, 3), and where it is, bool (S, S)."""
    image, mask = surface(rng, side), np.zeros((side, side), bool)
    length, width = (int(value) for value in rng.integers([side // 2, side * 3 // 8], [side * 3 // 4, side // 2]))
    length, width = (length, width) if rng.random() < 0.5 else (width, length)
    top, left = int(rng.integers(0, side - length + 1)), int(rng.integers(0, side - width + 1))
    mask[top : top + length, left : left + width] = True
    image[mask] = np.clip(np.array(COLOURS[name]) + rng.integers(-12, 13, (int(mask.sum()), 3)), 0, 255)
    return image, mask


def trained_pair(steps: int = 100, taps: tuple[int, ...] = ()) -> ClipTowers:
    """A tiny CLIP trained on whole pictures of the shapes and a sentence each, as CLIP is: nothing says where."""
    towers = tiny_towers(taps=taps)
    clip, names = towers.clip.requires_grad_(True), [*COLOURS, None]
    clip.text.token_embedding.requires_grad_(False)
    optimizer = torch.optim.Adam([weight for weight in clip.parameters() if weight.requires_grad], lr=1e-3)
    rng = np.random.default_rng(0)
    texts = [GOOD if name is None else f"a photo of a {name}" for name in names]
    tokens = towers.tokens(texts)
    for _ in range(steps):
        labels = rng.integers(0, len(names), 20)
        images = np.stack([surface(rng) if names[n] is None else shape(names[n], rng)[0] for n in labels])
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - towers._mean) / towers._std
        whole = normalize(clip.encode_image(pixels), dim=-1)
        text = normalize(clip.encode_text(tokens), dim=-1)
        loss = cross_entropy(whole @ text.T / 0.07, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clip.zero_grad(set_to_none=True)
    spec = EncoderSpec(NAME, "random")
    return ClipTowers(spec, architecture(spec), clip, taps)  # its id is that of the trained weights

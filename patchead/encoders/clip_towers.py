"""Both towers of an open_clip model: words and patches in one space."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import VisionTransformer
from torch import Tensor

from patchead.batches import slices
from patchead.encoders import open_clip_encoder
from patchead.encoders.attention import why_none_in_open_clip
from patchead.encoders.clip_patches import WordPatches, word_patches
from patchead.encoders.clip_text import tokenized, why_no_words
from patchead.encoders.registry import no_words, require_words
from patchead.encoders.spec import Architecture, EncoderSpec, check_spec
from patchead.encoders.unfilled import as_loaded, without_memory
from patchead.encoders.weights import mismatch, parse_weights, private_random, state_digest
from patchead.errors import SettingsError, WeightsError, bad_argument, bad_value
from patchead.hashing import bytes_sha256
from patchead.storage import Storage
from patchead.threads import over_threads

_ARITHMETIC = 1  # raise it when the arithmetic changes what words score
_TEXTS_AT_ONCE = 32
_IMAGES_AT_ONCE = 8  # always as many, whoever asks: the last bits of a crop are the same in every batch


class ClipTowers:
    """Encode words and the patches of images by a frozen CLIP, in float32 (method.md §14).

    Attributes:
        encoder_id: model name and 12 hex digits; equal exactly where words and patches may be compared.
        grid: (h, w) of the patches of an image.
        image_size: side of the images that it takes, in pixels: the model's native one.
        depth: number of blocks of the image tower.
        taps: the blocks whose patches are given.
        clip: open_clip's model, without gradients.
        tokenizer: of its text tower.
        device: where both towers are.
    """

    def __init__(self, spec: EncoderSpec, described: Architecture, clip: Any, taps: Sequence[int] = ()) -> None:
        """``taps``: ascending; empty for the last block alone."""
        self.image_size, self.depth = described.native_size, described.depth
        side = described.native_size // described.patch_size
        self.grid, self.taps = (side, side), tuple(taps) or (described.depth,)
        self.clip = clip.eval().requires_grad_(False).to(spec.device)
        self.tokenizer = SimpleTokenizer(context_length=clip.text.context_length)
        self.device = torch.device(spec.device)
        digest = state_digest({**clip.visual.state_dict(prefix="visual."), **clip.text.state_dict(prefix="text.")})
        known = f"{_ARITHMETIC} {described.name} {digest} {described.mean} {described.std}"
        slug = re.sub(r"[^a-z0-9]+", "-", described.name.partition("/")[2].lower()).strip("-")
        self.encoder_id = f"{slug}-words-{bytes_sha256(known.encode())[:12]}"
        self._mean = torch.tensor(described.mean, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(described.std, device=self.device).view(1, 3, 1, 1) * 255

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into tokens int64 (n, L) on the towers' device. Raises as `clip_text.tokenized`."""
        return tokenized(self.tokenizer, texts, self.clip.text.context_length).to(self.device)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts to float32 (n, E), of length 1; the last bits may depend on the texts around one.

        Raises:
            SettingsError: a text is longer than the tower reads.
        """
        with torch.inference_mode():
            found = [self.clip.encode_text(some, normalize=True) for some in self.tokens(texts).split(_TEXTS_AT_ONCE)]
        return torch.cat(found).float().cpu().numpy()

    def patches(self, images: np.ndarray) -> np.ndarray:
        """Encode the patches of square images uint8 (B, S, S, 3) to float32 (B, taps, P, E), of length 1."""
        return self._over_shares(images, whole=False)[0]

    def patches_and_whole(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encode the patches, and each image as a whole: float32 (B, E), of length 1."""
        return self._over_shares(images, whole=True)

    def compute(self, images: Tensor, *, whole: bool = False) -> WordPatches:
        """Encode images uint8 (b, S, S, 3) that are on the towers' device."""
        pixels = (images.permute(0, 3, 1, 2).float() - self._mean) / self._std
        return word_patches(self.clip.visual, pixels, self.taps, whole=whole)

    def _over_shares(self, images: np.ndarray, *, whole: bool) -> tuple[np.ndarray, np.ndarray]:
        side, count = self.image_size, len(images)
        if images.dtype != np.uint8 or images.shape[1:] != (side, side, 3):
            raise ValueError(f"images must be uint8 (B, {side}, {side}, 3); got {images.dtype} {images.shape}")
        width, patches = self.clip.visual.output_dim, self.grid[0] * self.grid[1]
        found = np.empty((count, len(self.taps), patches, width), np.float32)
        wholes = np.empty((count, width), np.float32)

        def run(share: slice) -> None:
            some = np.zeros((_IMAGES_AT_ONCE, side, side, 3), np.uint8)
            some[: share.stop - share.start] = images[share]
            with torch.inference_mode():
                given = self.compute(torch.from_numpy(some).to(self.device), whole=whole)
            found[share] = given.patches[: share.stop - share.start].cpu().numpy()
            if given.whole is not None:
                wholes[share] = given.whole[: share.stop - share.start].cpu().numpy()

        over_threads(run, slices(count, _IMAGES_AT_ONCE), self.device)
        return found, wholes


def build_towers(
    name: str,
    weights: str = "hub",
    *,
    device: str = "cpu",
    storage: Storage | None = None,
    taps: Sequence[int] = (),
) -> ClipTowers:
    """Build both towers of an open_clip model with their weights.

    Args:
        name: a registered name, or open_clip/<model>.
        weights: as in `EncoderSpec`: hub, hub:TAG, random, or a file of a whole checkpoint.
        device: cpu or cuda.
        storage: of a remote file.
        taps: blocks whose patches are given, from 1; empty for the last.

    Raises:
        SettingsError: the model has no text tower, or one of its towers cannot be used for words; a tap that it has
            not; no such model, tag or device.
        WeightsError: the weights cannot be found, read or fitted to both towers.
    """
    spec = EncoderSpec(require_words(name), weights, device=device, storage=storage or Storage())
    check_spec(spec)
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(bad_argument("device", "cuda", "cpu on a machine without a GPU", "Set it to cpu or auto."))
    config, tag = open_clip_encoder.resolve_model(spec)
    _require_own(spec, config)
    with without_memory():
        _require_towers(spec, _model(config))
    described = open_clip_encoder.architecture(spec)
    if list(taps) != sorted(set(taps)) or not all(1 <= tap <= described.depth for tap in taps):
        allowed = f"ascending numbers of blocks of {spec.name}, 1 to {described.depth}"
        raise SettingsError(bad_value("taps", list(taps), allowed))
    source = parse_weights(weights)
    with private_random():
        with as_loaded(source):
            clip = _model(config)
        if source.origin != "random":
            _load(spec, clip, open_clip_encoder.read_state(spec, source, config, tag))
    return ClipTowers(spec, described, clip, taps)


def _model(config: dict[str, Any]) -> Any:
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    return open_clip.CustomTextCLIP(
        config["embed_dim"], vision, config["text_cfg"], quick_gelu=bool(config.get("quick_gelu"))
    )


def _require_own(spec: EncoderSpec, config: dict[str, Any]) -> None:
    """Refuse towers of other libraries before one is built: their tokenizers come from a network."""
    for tower, key in (("image", "timm_model_name"), ("text", "hf_model_name"), ("text", "hf_tokenizer_name")):
        if other := config["vision_cfg" if tower == "image" else "text_cfg"].get(key):
            raise no_words(spec.name, f"Its {tower} tower is {other}, of another library.")


def _require_towers(spec: EncoderSpec, clip: Any) -> None:
    visual = clip.visual
    if not isinstance(visual, VisionTransformer):
        raise no_words(spec.name, f"Its image tower is a {type(visual).__name__}, no vision transformer.")
    if visual.attn_pool is not None or visual.proj is None or len(visual.transformer.resblocks) < 2:
        raise no_words(spec.name, "Its image tower has no projection of single patches.")
    if why := why_none_in_open_clip(visual) or why_no_words(clip.text):
        raise no_words(spec.name, why)


def _load(spec: EncoderSpec, clip: Any, state: dict[str, Tensor]) -> None:
    """Strict for both towers; what belongs to neither (temperature, sizes) is passed over."""
    state = convert_to_custom_text_state_dict(state)
    for tower in ("visual", "text"):
        own = {key.removeprefix(f"{tower}."): value for key, value in state.items() if key.startswith(f"{tower}.")}
        if not own:
            raise WeightsError(
                f"the weights {spec.weights} have no {tower} tower; words need both towers of {spec.name}. Take a "
                "whole CLIP checkpoint, as open_clip saves it."
            )
        try:
            getattr(clip, tower).load_state_dict(own)
        except RuntimeError as exc:
            raise mismatch(spec.weights, spec.name, exc) from exc

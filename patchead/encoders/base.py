"""The one interface behind which every encoder works: uint8 images in, unit-length patch embeddings out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from patchead.batches import slices
from patchead.encoders.attention import ClassAttention
from patchead.encoders.embedded import EmbeddedImages, stretched, unit_vectors
from patchead.encoders.spec import Architecture, EncoderSpec, shape_of
from patchead.errors import PatcheadError
from patchead.hashing import bytes_sha256
from patchead.threads import over_threads
from patchead.transfers import over_portions, room

_ARITHMETIC = 1  # raise it when the arithmetic below changes the embeddings: stored ones are then not reused
_TORCH = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_IMAGES_PER_CORE = 8
IMAGES_PER_PORTION = 16  # of a GPU: enough to fill it, few enough that transfers hide behind what is computed

#: Images (B, 3, S, S), layer indices from 0, apply the final norm -> one (B, P, width) tensor per layer.
Tokens = Callable[[Tensor, list[int], bool], list[Tensor]]


class Encoder:
    """Embed images by a frozen vision encoder (method.md §1; PatchEAD §3.1).

    Patch tokens only: CLS and register tokens are dropped, and a projection head is not applied. Without ``layers``
    the tokens are the last block's after the model's final norm (the identity in models that pool before they
    normalise). With ``layers`` each block's tokens are taken raw, as they leave the block, also the last one's:
    measured on ELPV with DINOv2-S at 224 px, raw blocks [6, 12] reach a mean image AUROC of 0.945, with the final norm
    on both 0.935; [6, 9, 12] 0.937 against 0.929. Each layer is L2-normalised on its own, the layers are concatenated
    and normalised again: the cosine of two embeddings is the mean of the layers' cosines. The feature levels of a CNN
    are its layers, raw and resized to the finest grid among them.

    Attributes:
        encoder_id: model name and 12 hex digits; equal exactly where embeddings may be mixed. Hash of the model,
            the weights, layers, image size, fit, bit depth, mean, std, dtype and attention; neither the device nor
            where the weights came from.
        grid, n_patches, dim: (h, w), h * w and the embedding dimension over all layers.
        image_size, fit: side in pixels of the images that `embed` takes, and how they became square.
        device: where it runs.
        attention: whether `embed` gives any.
        mean, std: of RGB on a scale of 0 to 1, from the library's data config.
        weights_digest: SHA-256 of the loaded weights.
        description: one line for logs.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        architecture: Architecture,
        module: nn.Module,
        tokens: Tokens,
        weights_digest: str,
        attention: ClassAttention | None = None,
    ) -> None:
        """``attention`` catches what ``tokens`` runs; given where ``spec.attention`` is set."""
        shape = shape_of(spec, architecture)
        self.grid, self.n_patches, self.dim = shape.grid, shape.n_patches, shape.dim
        self.image_size, self.fit, self.device = spec.image_size, spec.fit, spec.device
        self.mean, self.std = architecture.mean, architecture.std
        self.weights_digest = weights_digest
        self.encoder_id = _encoder_id(spec, architecture, weights_digest)
        self.description = (
            f"{spec.name} ({spec.weights}), {spec.image_size} px, {self.grid[0]} x {self.grid[1]} patches of "
            f"{self.dim}, {_layers_named(spec, architecture)}, "
            f"{spec.dtype} on {spec.device}"
        )
        self._name, self._dtype_name = spec.name, spec.dtype
        self._dtype, self._device = _TORCH[spec.dtype], torch.device(spec.device)
        self._indices = [layer - 1 for layer in sorted(spec.layers)] or [architecture.depth - 1]
        self._last = architecture.depth - 1
        self._final_norm = not spec.layers
        self._module = module.eval().requires_grad_(False).to(self._device, self._dtype)
        self._tokens, self._class_attention, self.attention = tokens, attention, attention is not None
        self._mean = torch.tensor(self.mean, device=self._device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(self.std, device=self._device).view(1, 3, 1, 1) * 255

    def embed(self, images: np.ndarray) -> EmbeddedImages:
        """Embed a batch, and say which of its images are unusable.

        One bad image (a flat photo that a CNN answers with zeros, a photo that overflows in fp16) does not touch the
        others. Whether *every* image is unusable, which is the encoder's fault, is for the caller to see.

        Args:
            images: uint8 (B, S, S, 3), RGB, already fitted to ``image_size``; may be read-only.

        Returns:
            The vectors, row by row over the grid; where the encoder was built with ``attention``, also what the last
            block's class token attends to: mean over the heads, stretched per image to 0 … 1 (method.md §5).

        Raises:
            ValueError: ``images`` has another shape or dtype.
            PatcheadError: the model gives another number of patch tokens than it should.
        """
        count, p = len(images), self.n_patches
        of = [((count, p, self.dim), torch.float16), ((count,), torch.bool)]
        of += [((count, p), torch.float16)] if self.attention else []
        results = tuple(room(shape, dtype, self._device) for shape, dtype in of)
        self._over_shares(images, results)
        vectors, usable, *maps = (result.numpy() for result in results)
        return EmbeddedImages(self._name, vectors, usable, *maps)

    def broken(self, what: str) -> PatcheadError:
        """Make the error for an encoder that gives ``what`` to every image: with a remedy."""
        remedy = "Set `dtype` to bf16 or fp32." if self._dtype_name == "fp16" else "Check `weights`."
        return PatcheadError(f"{self._name} in {self._dtype_name} gives every image {what}. {remedy}")

    def _run(self, pixels: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Tokens of each layer (b, P, width), and the class token's attention (b, P) where it is asked for."""
        if (catcher := self._class_attention) is None:
            layers, attention = self._tokens(pixels, self._indices, self._final_norm), None
        else:  # the last block must run for its attention, whether its tokens are wanted or not
            to_the_end = self._indices if self._last in self._indices else [*self._indices, self._last]
            with catcher.asked() as caught:
                layers = self._tokens(pixels, to_the_end, self._final_norm)[: len(self._indices)]
            attention = caught[0]
        for tokens in layers:
            if tokens.shape[1] != self.n_patches:
                raise PatcheadError(f"{self._name} gave {tokens.shape[1]} patch tokens; expected {self.n_patches}.")
        return layers, attention

    def compute(self, images: Tensor) -> tuple[Tensor, ...]:
        """Embed images uint8 (b, S, S, 3) that are on the encoder's device; what it returns stays there.

        Returns:
            Vectors float16 (b, P, D); bool (b,), which images are usable; with attention, its maps float16 (b, P).
        """
        with torch.inference_mode():  # each thread has its own
            pixels = ((images.permute(0, 3, 1, 2).float() - self._mean) / self._std).to(self._dtype)
            layers, attention = self._run(pixels)
            vectors, good = unit_vectors(layers)
            if attention is None:
                return vectors, good
            maps, known = stretched(attention)
            return vectors, good & known, maps

    def _over_shares(self, images: np.ndarray, results: tuple[Tensor, ...]) -> None:
        """Compute a batch in shares and write what comes to ``results``.

        On a CPU a core that runs its own images waits for no other: about a quarter faster, the same bits.
        """
        side = self.image_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
            raise ValueError(f"images must be uint8 (B, {side}, {side}, 3); got {images.dtype} {images.shape}")
        if not len(images):
            return

        def run(share: slice) -> None:
            for result, found in zip(results, self.compute(torch.tensor(images[share])), strict=True):
                result[share] = found

        gpu = self._device.type == "cuda"
        step = IMAGES_PER_PORTION if gpu else _IMAGES_PER_CORE
        if self._class_attention is not None:
            step = min(step, self._class_attention.images_at_once(self.n_patches))
        if gpu:
            over_portions(self.compute, images, results, step, self._device)
        else:
            over_threads(run, slices(len(images), step), self._device)


def _layers_named(spec: EncoderSpec, architecture: Architecture) -> str:
    parts = "feature levels" if architecture.levels else "blocks"
    return f"{parts} {sorted(spec.layers)}" if spec.layers else "last layer"


def _encoder_id(spec: EncoderSpec, architecture: Architecture, weights_digest: str) -> str:
    known = {"rule": _ARITHMETIC, "model": architecture.name, "weights": weights_digest}
    identity = known | {"mean": architecture.mean, "std": architecture.std} | spec.identity()
    digest = bytes_sha256(json.dumps(identity, sort_keys=True).encode())
    slug = re.sub(r"[^a-z0-9]+", "-", architecture.name.partition("/")[2].lower()).strip("-")
    return f"{slug}-{digest[:12]}"

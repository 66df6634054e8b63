"""Is an encoder faster in bfloat16 on this processor? Its own first layer on one image, timed in both.

For evaluations, which keep no embeddings: the nightly job stays with fp32 on a CPU (`settings.resolve.settled`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch

from patchead.encoders import EncoderSpec, build
from patchead.scoring.precision_probe import choose
from patchead.scoring.race import race
from patchead.settings.model import Config
from patchead.settings.resolve import encoder_spec, this_device, with_precision

DTYPES = ("fp32", "bf16")
_TURNS = 3


def encoder_probe(spec: EncoderSpec) -> dict[str, float]:
    """Time one image through the first layer of an encoder, in fp32 and in bfloat16.

    The model is the one of ``spec`` with random weights, on which its speed does not depend; one block of a transformer
    is like the others. On a CPU one core works, as each does in `Encoder.embed`: some tens of milliseconds, a second
    where it has no instructions for bfloat16. The answer is kept for as long as the process lives.

    Returns:
        Speed over that of fp32 by dtype; that of fp32 is 1.

    Raises:
        SettingsError: see `encoders.build`.
    """
    return dict(_probed(replace(spec, weights="random", layers=(1,), attention=False, dtype="fp32")))


def with_arithmetic(config: Config) -> Config:
    """Put what this processor is fastest in where ``encoder.dtype`` and ``scoring.precision`` are ``auto``.

    On a GPU that is fp16 for both.
    """
    device = this_device(config.encoder.device)
    config = with_precision(config, device)
    spec = encoder_spec(config, device)
    dtype = spec.dtype
    if config.encoder.dtype == "auto" and device == "cpu":
        dtype = choose([encoder_probe(spec)], DTYPES)
    return config.model_copy(update={"encoder": config.encoder.model_copy(update={"dtype": dtype})})


@lru_cache(maxsize=32)
def _probed(spec: EncoderSpec) -> Mapping[str, float]:
    image = np.random.default_rng(0).integers(0, 256, (1, spec.image_size, spec.image_size, 3), dtype=np.uint8)
    encoders = {dtype: build(replace(spec, dtype=dtype)) for dtype in DTYPES}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = {dtype: partial(encoder.embed, image) for dtype, encoder in encoders.items()}
        seconds = race(runs, _TURNS, spec.device)
    finally:
        torch.set_num_threads(threads)
    return {dtype: seconds["fp32"] / taken for dtype, taken in seconds.items()}

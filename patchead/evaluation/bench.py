"""One class under one encoder: embedded once, scored under every variant and seed that needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from patchead.archive.given import Reading, settled_reading
from patchead.encoders import Encoder
from patchead.errors import SettingsError, bad_value
from patchead.evaluation.datasets import DatasetClass
from patchead.evaluation.variants import Variant
from patchead.local import Prompts, SampleScores, embed_images, score_samples
from patchead.local_prompts import embed_prompts
from patchead.local_samples import Samples
from patchead.samples.stand_ins import refuse_window
from patchead.scoring.memory_budget import GIGABYTE
from patchead.scoring.panel import reference_panel
from patchead.scoring.verdict import Verdict, judge
from patchead.settings import resolve

Made = TypeVar("Made")


@dataclass(frozen=True)
class Scored:
    """Hold the scores of a class's test images, the verdict on those that have one, and the seconds they took.

    Embedding is shared by variants.
    """

    samples: Samples
    scores: SampleScores
    verdict: Verdict
    embed_seconds: float
    score_seconds: float


class Bench:
    """Hold the test images of one class under one encoder.

    Embeddings of the images as they are stay until the class is done; aligned ones only while they are asked for one
    after the other, as each set is large and depends on the prompts' draw.
    """

    def __init__(self, encoder: Encoder, members: DatasetClass) -> None:
        self._encoder, self._class = encoder, members
        self._plain: dict[str, tuple[Samples, float]] = {}
        self._aligned: dict[str, tuple[Samples, float]] = {}
        self._prompts: dict[str, tuple[Prompts, float]] = {}
        self._readings: dict[Reading, Reading] = {}

    def score(self, variant: Variant, seed: int | None) -> Scored:
        """Score the class as a batch (``seed`` None), or few-shot with the prompts of this seed.

        Raises:
            SettingsError: see `prompt_count`; or too few of the prompts differ for a window.
            PatcheadError: an image cannot be decoded, or embedded.
        """
        prompts, prompt_seconds = (None, 0.0) if seed is None else self._drawn(variant, seed)
        refuse_window(variant.aggregation.window, prompts.views_of if prompts else 0)
        samples, embed_seconds = self._samples(variant, prompts, seed)
        started = time.perf_counter()
        scores = score_samples(
            samples,
            aggregation=variant.aggregation,
            mask=variant.mask,
            prompts=prompts,
            precision=variant.precision,
            device=variant.device,
            schedule=variant.config.scoring.schedule,
            memory_bytes=int(variant.config.scoring.memory_gb * GIGABYTE),
            panel=self._panel(variant),
        )
        verdict = judge(
            scores.image_scores[np.isfinite(scores.image_scores)],
            resolve.verdict_of(variant.config, self._class.name),
            null_scores=scores.null_scores,
            views_of=0 if prompts is None else prompts.views_of,
        )
        return Scored(samples, scores, verdict, embed_seconds + prompt_seconds, time.perf_counter() - started)

    def _samples(self, variant: Variant, prompts: Prompts | None, seed: int | None) -> tuple[Samples, float]:
        paths, encoder = [sample.path for sample in self._class.test], variant.config.encoder
        if variant.align is None:
            return _once(
                self._plain,
                "",
                lambda: embed_images(
                    paths, self._encoder, batch_size=encoder.batch_size, reading=self._reading(variant)
                ),
            )
        key = repr((variant.align, variant.config.prompts if variant.few_shot else None, seed))
        if key not in self._aligned:
            self._aligned.clear()
        return _once(
            self._aligned,
            key,
            lambda: embed_images(
                paths,
                self._encoder,
                align=variant.align,
                prompts=prompts,
                batch_size=encoder.batch_size,
                reading=self._reading(variant),
            ),
        )

    def _drawn(self, variant: Variant, seed: int) -> tuple[Prompts, float]:
        config = variant.config
        train = [sample.path for sample in self._class.train]
        k = prompt_count(variant, self._class)
        chosen = [train[i] for i in draw(_names(train), k, seed)]
        rotations = config.prompts.rotations
        return _once(
            self._prompts,
            repr((k, seed, rotations, variant.align)),
            lambda: embed_prompts(
                chosen,
                self._encoder,
                align=variant.align,
                rotations=rotations,
                batch_size=config.encoder.batch_size,
                reading=self._reading(variant),
            ),
        )

    def _reading(self, variant: Variant) -> Reading:
        archive = variant.config.archive
        asked = Reading(max_pixels=archive.max_pixels, bit_depth=archive.bit_depth)
        if asked not in self._readings:
            every = [sample.path for sample in (*self._class.train, *self._class.test)]
            self._readings[asked] = settled_reading(every, asked)
        return self._readings[asked]

    def _panel(self, variant: Variant) -> np.ndarray | None:
        size = variant.config.scoring.max_references
        if size is None or variant.few_shot:
            return None
        return reference_panel(_names([sample.path for sample in self._class.test]), size, variant.config.scoring.seed)


def prompt_count(variant: Variant, members: DatasetClass) -> int:
    """Count the training images of a class that are prompts: ``prompts.k``, or all.

    Raises:
        SettingsError: the class has none, or fewer than ``prompts.k``, or too few for a window.
    """
    there = len(members.train)
    wanted = there if variant.config.prompts.k is None else variant.config.prompts.k
    if not there:
        remedy = "Set scoring.mode to batch."
        raise SettingsError(f"class {members.name} has no training images to draw prompts from. {remedy}")
    if wanted > there:
        allowed = f"at most the {there} training images of class {members.name}"
        raise SettingsError(bad_value("prompts.k", wanted, allowed))
    refuse_window(variant.aggregation.window, wanted)
    return wanted


def draw(names: Sequence[str], k: int, seed: int) -> np.ndarray:
    """Draw k of the names, as ascending positions: by a hash of seed and name, so that fewer are a part of more."""
    return reference_panel(list(names), k, seed)


def _names(paths: Sequence[object]) -> list[str]:
    """What tells the files of one class apart wherever the dataset lies: folder and name."""
    return ["/".join(str(path).replace("\\", "/").split("/")[-2:]) for path in paths]


def _once(kept: dict[str, tuple[Made, float]], key: str, make: Callable[[], Made]) -> tuple[Made, float]:
    """What ``make`` gives and the seconds it took; made the first time only."""
    if key not in kept:
        started = time.perf_counter()
        made = make()
        kept[key] = made, time.perf_counter() - started
    return kept[key]

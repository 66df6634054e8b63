"""`patchead.score`: a list of images to a table and heatmaps, in one call, for a notebook."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from patchead.archive.given import ImageLike, listed, settled_reading
from patchead.encoders import build
from patchead.errors import SettingsError, arguments_named, bad_value, with_names
from patchead.local import SampleScores, embed_images, score_samples, unscored
from patchead.local_prompts import embed_prompts
from patchead.local_samples import Samples
from patchead.maps.shown import expected_share
from patchead.samples.align import Alignment
from patchead.samples.mask import ForegroundMask
from patchead.samples.stand_ins import refuse_window
from patchead.samples.twins import told_of_copies
from patchead.schema import FAILED, OK, TOO_FEW_IMAGES
from patchead.scored import TOP, Scored
from patchead.scoring.aggregate import NO_REFERENCE, Aggregation, placed, ranks
from patchead.scoring.memory_budget import GIGABYTE
from patchead.scoring.precision_probe import warning_here
from patchead.scoring.verdict import Verdict, judge
from patchead.search.bound_choice import warning_on
from patchead.settings import resolve
from patchead.settings.argument_names import KEYS
from patchead.settings.load import UNUSED_PLACES, load_config
from patchead.settings.model import Config

_SETTINGS = {
    "preset": "preset",
    "encoder": "encoder.name",
    "weights": "encoder.weights",
    "image_size": "encoder.image_size",
    "layers": "encoder.layers",
    "fit": "encoder.fit",
    "batch_size": "encoder.batch_size",
    "device": "encoder.device",
    "align": "align.enabled",
    "mask": "mask.enabled",
    "verdict": "scoring.verdict",
    "threshold_z": "scoring.threshold_z",
    "alpha": "scoring.alpha",
    "flag_top": "scoring.flag_top",
    "min_batch": "scoring.min_batch",
    "repeats": "scoring.repeats",
    "position_level": "scoring.position_level",
    "patch_threshold": "explain.patch_threshold",
    "precision": "scoring.precision",
    "schedule": "scoring.schedule",
    "memory_gb": "scoring.memory_gb",
}
"""Setting of each argument of `score`."""
_OF_SCORE = {key: argument for argument, key in _SETTINGS.items()}
_NAMES = {argument: _OF_SCORE[key] for argument, key in KEYS.items() if key in _OF_SCORE}
"""What `score` calls the arguments of the functions below."""


def score(
    images: Sequence[ImageLike] | str | Path,
    *,
    preset: str = "none",
    encoder: str | None = None,
    weights: str = "hub",
    image_size: int | None = None,
    layers: Sequence[int] | str | None = None,
    fit: str | None = None,
    prompts: Sequence[ImageLike] | str | Path = (),
    rotations: Sequence[int] = (),
    align: Alignment | bool | None = None,
    mask: ForegroundMask | bool | None = None,
    aggregation: Aggregation | None = None,
    part_ids: Sequence[str | None] | None = None,
    verdict: str = "auto",
    threshold_z: float | None = None,
    alpha: float = 0.01,
    flag_top: float = 0.01,
    min_batch: int = 5,
    repeats: bool = False,
    position_level: bool = False,
    patch_threshold: float | None = None,
    precision: str = "auto",
    schedule: str = "auto",
    device: str = "auto",
    memory_gb: float = 4.0,
    batch_size: int = 32,
) -> Scored:
    """Score a list of images: each against all others, or with ``prompts`` against those normal images alone.

    The settings, their defaults and their checks are those of the nightly job (``patchead settings``). What is None is
    the preset's, or without one the recommended default.

    Args:
        images: paths, encoded bytes, or uint8 arrays: RGB (H, W, 3) or grey (H, W); or a folder, or a pattern such as
            ``photos/*.png``. One that cannot be decoded is a failed row with its reason.
        preset: none, patchead or musc: published settings beneath those that are given (`settings.presets`).
        encoder: a name of ``patchead encoders`` or of a library, e.g. timm/vit_base_patch14_dinov2; default: DINOv2-S.
        weights: hub, hub:TAG, random, package:NAME, or a path or URL to .safetensors or .pt.
        image_size: side in pixels to which images are resized; default: 448, or what the encoder takes nearest to it.
        layers: blocks counted from 1, last, quarters or auto; default: auto, which is 6, 9 and 12 of 12 blocks.
        fit: how an image becomes square: squash (default), crop or pad.
        prompts: normal images (few-shot mode), given as ``images`` are. Files of one photo count once, with a warning.
        rotations: turns of the prompts in degrees that are prompts too, e.g. (90, 180, 270).
        align, mask: PatchEAD+, with the default rules where True (method.md §5); off by default.
        aggregation: how distances become scores (method.md §3, §4); default: mean of the nearest 30 % of the images,
            then of the largest 1 % of the patches.
        part_ids: the physical part of each image: images of one part are never references of each other. Not with
            ``prompts``: leave out those that show a part to be scored.
        verdict: rule of is_anomalous (method.md §7): upper_fit, mad, top, or auto, which is upper_fit, mad below 60
            images, and with ``prompts`` their prediction interval.
        threshold_z: an image is anomalous when its z is above this; default: the rule's own.
        alpha: share of good images that may be flagged, where the rule has p-values.
        flag_top: what the rule top flags: a share below 1, at least one image of it, or a count from 1.
        min_batch: fewer images than this are refused without ``prompts``.
        repeats: look for images that share a region, and score them without each other (method.md §9.2); they have one
            number in ``repeat_group``. With ``aggregation``, its own field says so, as of ``position_level``.
        position_level: score a patch by what it exceeds the 75 % quantile of its place over the images by: for parts
            that lie alike (method.md §9.1).
        patch_threshold: regions are where patch scores exceed this; default: found from images that are not flagged.
        precision: fp32, fp16, bf16 or int8 products; auto is fp16 on a GPU, on a CPU int8 where a probe finds it
            faster. One that is slower than fp32 here gives a warning.
        schedule: auto, symmetric, row_stationary, or bounded: the same image scores for a fraction of the work; on a
            CPU auto takes it where a sample of the images says that it pays. What heatmaps, regions and
            `Scored.patch_scores` need is then searched as they are asked for, so the embeddings are kept.
        device: cpu, cuda, or auto: a GPU where there is one.
        memory_gb: scoring's memory in GB, above the embeddings.
        batch_size: images per forward pass.

    Raises:
        PatcheadError: a setting, an image or the weights cannot be used; the text says which and what is allowed.
        OSError: a path cannot be read.
        ValueError: pixels, part ids or rotations of another form.

    Examples:
        Six noisy plates, the third with a bright spot. Real weights take the place of ``weights="random"``.

        >>> import numpy as np, patchead
        >>> rng = np.random.default_rng(0)
        >>> plates = [rng.integers(90, 110, (64, 64, 3), dtype=np.uint8) for _ in range(6)]
        >>> plates[2][20:36, 20:36] = 255
        >>> scored = patchead.score(plates, encoder="timm/test_vit", weights="random", image_size=64)
        >>> scored.table["rank"].to_pylist()[2], scored.table["is_anomalous"].to_pylist()[2]
        (1, True)
        >>> scored.patch_scores.shape
        (6, 4, 4)
        >>> scored.heatmap(2).shape
        (64, 64, 3)

        The paper's settings, and only the last two plates, compared with the first two:

        >>> few = patchead.score(plates[4:], prompts=plates[:2], preset="patchead", encoder="timm/test_vit",
        ...                      weights="random", image_size=64)
        >>> few.table["n_references"].to_pylist()
        [2, 2]
    """
    for name, asked in (("repeats", repeats), ("position_level", position_level)):
        if asked and not (aggregation is None or getattr(aggregation, name)):
            raise SettingsError(
                f"{name} has no effect with aggregation, whose own field says so: Aggregation({name}=True)."
            )
    images, prompts = listed(images), listed(prompts)
    config = _checked(
        few_shot=bool(len(prompts)),
        preset=preset,
        encoder=encoder,
        weights=weights,
        image_size=image_size,
        layers=layers if layers is None or isinstance(layers, str) else list(layers),
        fit=fit,
        batch_size=batch_size,
        device=device,
        align=None if align is None else bool(align),
        mask=None if mask is None else bool(mask),
        verdict=verdict,
        threshold_z=threshold_z,
        alpha=alpha,
        flag_top=flag_top,
        min_batch=min_batch,
        repeats=repeats,
        position_level=position_level,
        patch_threshold=patch_threshold,
        precision=precision,
        schedule=schedule,
        memory_gb=memory_gb,
    )
    if len(images) < min_batch and not len(prompts):
        raise SettingsError(
            bad_value("images", len(images), f"at least min_batch={min_batch} of them", "Or give normal ones: prompts.")
        )
    window = None if aggregation is None else aggregation.window
    refuse_window(window, len(prompts))
    where = resolve.this_device(device)
    for slow in filter(None, (warning_here(precision, where), warning_on(where, schedule, window))):
        warnings.warn(with_names(slow, _NAMES), stacklevel=2)
    with arguments_named(_NAMES):
        network = build(resolve.encoder_spec(config, where))
        alignment = align if isinstance(align, Alignment) else resolve.alignment_of(config)
        reading = settled_reading([*images, *prompts])
        given: dict[str, Any] = {"align": alignment, "batch_size": batch_size, "reading": reading}
        normal = embed_prompts(prompts, network, rotations=rotations, **given) if len(prompts) else None
        if normal is not None and (text := told_of_copies(normal.copies, len(prompts))):
            warnings.warn(text, stacklevel=2)
        refuse_window(window, normal.views_of if normal else 0)
        samples = embed_images(images, network, prompts=normal, keep_unread=True, **given)
        comparable = int(samples.usable.sum())
        if normal is None and comparable < min_batch:
            why_none = f"{comparable} images that can be compared, fewer than min_batch={min_batch}"
            found = unscored(samples)
        else:
            why_none = NO_REFERENCE
            found = score_samples(
                samples,
                aggregation=aggregation or resolve.aggregation_of(config),
                mask=mask if isinstance(mask, ForegroundMask) else resolve.foreground_mask_of(config),
                prompts=normal,
                part=part_ids,
                precision=resolve.precision(config, where),
                schedule=schedule,
                device=where,
                memory_bytes=int(memory_gb * GIGABYTE),
                shown=expected_share(comparable, TOP) if schedule == "auto" else None,
            )
        known = np.isfinite(found.image_scores)
        judged = judge(
            found.image_scores[known],
            resolve.verdict_of(config),
            null_scores=found.null_scores,
            views_of=0 if normal is None else normal.views_of,
        )
        table = _table(images, samples, found, judged, why_none)
        return Scored(
            table,
            found.patch_scores,
            judged,
            images,
            network.fit,
            reading,
            exact=found.exact,
            searched_by=found.searched_by,
            search=found.search,
            patch_threshold=patch_threshold,
        )


def _checked(*, few_shot: bool, **given: Any) -> Config:
    """The settings that the arguments of `score` are; an error calls each by the argument's name."""
    settings = {_SETTINGS[argument]: value for argument, value in given.items() if value is not None}
    if few_shot:
        settings |= {"scoring.mode": "few_shot", "prompts.uri": "unused://prompts"}
    config = load_config(None, given=UNUSED_PLACES | settings, names=_OF_SCORE)
    resolve.refuse_accepted(config, "a list of images")
    return config


def _table(
    images: Sequence[ImageLike], samples: Samples, found: SampleScores, verdict: Verdict, why_none: str
) -> pa.Table:
    """`Scored.table`; ``why_none`` is why an image that can be compared has no score."""
    known = np.isfinite(found.image_scores)
    unscored_status = np.where(samples.usable, TOO_FEW_IMAGES, FAILED)

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(values, mask=~known)  # null without a score

    def judged(values: np.ndarray) -> pa.Array:
        return column(placed(values, known))

    return pa.table(
        {
            "image_id": [str(i) if isinstance(i, (str, Path)) else f"image {n}" for n, i in enumerate(images)],
            "score": column(found.image_scores),
            "rank": column(ranks(found.image_scores)),
            "z": judged(verdict.z),
            "p_value": pa.nulls(len(known), pa.float64()) if verdict.p_values is None else judged(verdict.p_values),
            "is_anomalous": judged(verdict.flagged),
            "max_patch": column(found.patch_scores.max(axis=(1, 2)).astype(np.float64)),
            "n_references": found.n_references,
            "repeat_group": pa.array(found.repeat_group, pa.int32(), mask=found.repeat_group == 0),
            "aligned": pa.nulls(len(images), pa.bool_())
            if found.aligned is None
            else pa.array(found.aligned, mask=~samples.usable),
            "width": pa.array([width or None for width, _ in samples.sizes], pa.int32()),
            "height": pa.array([height or None for _, height in samples.sizes], pa.int32()),
            "status": np.where(known, OK, unscored_status),
            "error": pa.array(
                [
                    None if ok else with_names(fault, _NAMES) or why_none
                    for ok, fault in zip(known, samples.faults, strict=True)
                ],
                pa.string(),
            ),
        }
    )

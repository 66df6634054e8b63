"""The evaluation itself: every variant on every class, and nothing twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from patchead.encoders import Encoder, build, describe
from patchead.evaluation.bench import Bench, prompt_count
from patchead.evaluation.datasets import Dataset, DatasetClass
from patchead.evaluation.measure import Figures, maps_measured, measure
from patchead.evaluation.records import (
    METRICS,
    OK,
    RECORDS,
    TOO_FEW,
    Row,
    Setup,
    make_folder,
    read_record,
    record_path,
    write_record,
)
from patchead.evaluation.variants import Variant

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Open:
    """A variant that has no record of this class yet."""

    variant: Variant
    path: Path
    seeds: tuple[int | None, ...]


class _Served:
    """The variants that one encoder serves; it is built when the first of them needs it."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self.variants = sorted(
            variants, key=lambda variant: repr(variant.align)
        )  # aligned embeddings are kept one by one
        self.spec = variants[0].encoder_spec(attention=any(variant.mask for variant in variants))

    @cached_property
    def encoder(self) -> Encoder:
        return build(self.spec)


def evaluate(variants: Sequence[Variant], dataset: Dataset, setup: Setup, say: Say) -> list[Row]:
    """Evaluate every variant on every class and give their rows, in that order; one per seed in few-shot mode.

    Each finished (variant, class) is on disk before the next begins; one whose record is there is not computed again.
    Variants that differ in scoring only share an encoder and the embeddings of a class.

    Raises:
        PatcheadError: an encoder cannot be built, an image or mask cannot be read, or the output cannot be written.
    """
    served = list(_by_encoder(variants))
    for group in served:
        describe(group.spec)  # what can be refused is refused before the first encoder works
    for variant in variants:
        for members in dataset.classes:
            if variant.few_shot:
                prompt_count(variant, members)
    make_folder(setup.output / RECORDS)
    done: dict[tuple[str, str], list[Row]] = {}
    for group in served:
        for members in dataset.classes:
            for variant, rows in _class(group, members, setup, say):
                done[variant.label, members.name] = rows
    return [row for variant in variants for members in dataset.classes for row in done[variant.label, members.name]]


def _by_encoder(variants: Sequence[Variant]) -> Iterator[_Served]:
    for key in dict.fromkeys(variant.encoder_key for variant in variants):
        yield _Served([variant for variant in variants if variant.encoder_key == key])


def _class(group: _Served, members: DatasetClass, setup: Setup, say: Say) -> Iterator[tuple[Variant, list[Row]]]:
    todo = []
    for variant in group.variants:
        path = record_path(setup, variant, members)
        rows = read_record(path, variant)
        if rows is None:
            todo.append(_Open(variant, path, _seeds(variant, setup)))
        else:
            say(f"{members.name}  {variant.label}: kept from an earlier run")
            yield variant, rows
    if not todo:
        return
    bench = Bench(group.encoder, members)
    found: dict[str, list[Row]] = {entry.variant.label: [] for entry in todo}
    for seed in dict.fromkeys(seed for entry in todo for seed in entry.seeds):
        for entry in todo:
            if seed in entry.seeds:
                rows = found[entry.variant.label]
                rows.append(_row(bench, group, entry.variant, members, seed, setup))
                if len(rows) == len(entry.seeds):
                    write_record(entry.path, rows)
                    say(_line(rows))
                    yield entry.variant, rows


def _seeds(variant: Variant, setup: Setup) -> tuple[int | None, ...]:
    """Of the prompts' draws; batch mode draws nothing, and all training images need one draw only."""
    if not variant.few_shot:
        return (None,)
    prompts = variant.config.prompts
    return tuple(prompts.seed + number for number in range(1 if prompts.k is None else setup.seeds))


def _row(bench: Bench, group: _Served, variant: Variant, members: DatasetClass, seed: int | None, setup: Setup) -> Row:
    base: dict[str, Any] = {
        "dataset": setup.dataset,
        "variant": variant.label,
        "class_name": members.name,
        "mode": variant.config.scoring.mode,
        "seed": seed,
        "images": len(members.test),
        "anomalous": sum(sample.anomalous for sample in members.test),
        "weights_digest": group.encoder.weights_digest,
        "settings": json.dumps(variant.settings, sort_keys=True),
    }
    if seed is None and len(members.test) < variant.config.scoring.min_batch:
        nothing: dict[str, Any] = {"unscored": len(members.test), "mapped": 0, "without_mask": 0, "aligned": None}
        nothing |= {**dict.fromkeys(METRICS), "verdict_rule": None, "embed_seconds": 0.0, "score_seconds": 0.0}
        return Row(**base, status=TOO_FEW, **nothing)
    scored = bench.score(variant, seed)
    started = time.perf_counter()
    figures = measure(
        members.test,
        scored.scores.image_scores,
        scored.scores.searched(maps_measured(members.test)),
        scored.samples.sizes,
        flagged=scored.verdict.flagged,
        fit=variant.config.encoder.fit,
        map_side=setup.map_side,
    )
    aligned = scored.scores.aligned
    return Row(
        **base,
        status=OK,
        **_metrics(figures),
        verdict_rule=scored.verdict.rule,
        unscored=figures.unscored,
        mapped=figures.mapped,
        without_mask=figures.without_mask,
        aligned=None if aligned is None else int(aligned.sum()),
        embed_seconds=scored.embed_seconds,
        score_seconds=scored.score_seconds + time.perf_counter() - started,
    )


def _metrics(figures: Figures) -> dict[str, Any]:
    parts = (("image", figures.image), ("verdict", figures.verdict), ("pixel", figures.pixel))
    return {f"{prefix}_{name}": value for prefix, part in parts for name, value in asdict(part).items()}


def _line(rows: Sequence[Row]) -> str:
    first, seconds = rows[0], sum(row.score_seconds for row in rows)
    if first.status != OK:
        return f"{first.class_name}  {first.variant}: {first.status}"
    known = [row.image_auroc for row in rows if row.image_auroc is not None]
    auroc = f"{100 * sum(known) / len(known):.2f}" if known else "undefined"
    return (
        f"{first.class_name}  {first.variant}: image AUROC {auroc}, {first.images} images, "
        f"{first.embed_seconds:.1f} s to embed, {seconds:.1f} s to score"
    )

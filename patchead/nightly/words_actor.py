"""The naming actor: crops of regions, and of the same places in unflagged images, against words (method.md §14)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from patchead.archive.decode import fit
from patchead.arrow_columns import digest
from patchead.encoders.clip_towers import build_towers
from patchead.encoders.weights import other_weights
from patchead.errors import ArchiveError, DecodeError
from patchead.hashing import text_digest
from patchead.lake.staging import RunFolder
from patchead.lake.word_links import stage_names, staged_names
from patchead.naming.named import UNKNOWN
from patchead.naming.word_crops import SCALES, Crop, crops_around, patch_boxes, touched
from patchead.naming.word_scores import (
    LEAST_PLACES,
    PlaceScores,
    WordNames,
    name_by_words,
    nearest_phrases,
    place_scores,
)
from patchead.naming.words import Words
from patchead.nightly.decode import DecodeSettings
from patchead.nightly.originals import decoded, originals, require_same, shard_of
from patchead.schema import WORD_LINKS, table

SPARE = 16
"""Unflagged images beyond those needed that may be read in the place of others that cannot be."""
_READ_AT_ONCE = 16
_BOX = ("rel_x", "rel_y", "rel_width", "rel_height")


@dataclass(frozen=True)
class WordsSpec:
    """Hold what every naming actor is set up with."""

    name: str
    weights: str
    encoder_id: str
    """Of the towers that the words were encoded with."""
    device: str
    threads: int
    words: Words
    level: float
    decode: DecodeSettings
    folder: RunFolder
    naming_id: str


@dataclass(frozen=True)
class WordsPortion:
    """Hold some flagged images of one group, their regions, and unflagged images that show the same places."""

    images: pa.Table
    """`explain_drawing.COLUMNS` of the flagged images."""
    regions: pa.Table
    """Image id, number and box, as shares, of each region; in order of the images."""
    unflagged: pa.Table
    """As ``images``, those that are taken first in front."""

    @property
    def name(self) -> str:
        """Name it by its regions."""
        return text_digest(digest([self.regions], ["image_id", "region"]))

    def made_of(self, naming_id: str) -> str:
        """Hash all that decides its names."""
        images = digest([self.images, self.unflagged], ["image_id", "content_hash"])
        boxes = repr(self.regions.select(list(_BOX)).to_pylist())
        return text_digest(f"{naming_id} {images} {boxes} {self.name}")


@dataclass(frozen=True)
class _Place:
    """One box in one picture, as the encoder has seen it."""

    crops: list[Crop]
    patches: np.ndarray  # float64 (taps, crops · P, E), adapted
    found: PlaceScores


class WordsActor:
    """Name portions of regions by words."""

    def setup(self, spec: WordsSpec) -> None:
        """Build the towers.

        Raises:
            WeightsError: they cannot be built, or are not those that the words were encoded with.
        """
        torch.set_num_threads(spec.threads)
        storage, taps = spec.decode.storage, spec.words.taps
        self._spec = spec
        self._towers = build_towers(spec.name, spec.weights, device=spec.device, storage=storage, taps=taps)
        if self._towers.encoder_id != spec.encoder_id:
            raise other_weights(spec.weights, self._towers.encoder_id, spec.encoder_id)

    def name_portion(self, portion: WordsPortion) -> None:
        """Name the regions of a portion and stage the names, unless an earlier try of the run has.

        Raises:
            LakeError: they cannot be staged.
        """
        spec, made_of = self._spec, portion.made_of(self._spec.naming_id)
        if staged_names(spec.folder, portion.name, made_of=made_of) is not None:
            return
        regions = portion.regions.to_pylist()
        boxes = [tuple(row[name] for name in _BOX) for row in regions]
        of_places = self._of_unflagged(portion.unflagged, boxes)
        outcomes: list[dict[str, Any]] = [{} for _ in regions]
        links: list[dict[str, Any]] = []
        for image_id, picture in _pictures(portion.images, spec.decode):
            mine = [number for number, row in enumerate(regions) if row["image_id"] == image_id]
            for number, place in zip(mine, self._places(picture, [boxes[n] for n in mine]), strict=True):
                if len(of_places) < LEAST_PLACES:
                    outcomes[number] = too_few(len(of_places))
                    continue
                scores = np.stack([scores[number] for scores in of_places])
                named = name_by_words(place.found.scores, scores, spec.words.bank, level=spec.level)
                outcomes[number] = self._outcome(named)
                links += self._links(regions[number], place, named)
        stage_names(spec.folder, portion.name, outcomes, table(links, WORD_LINKS), made_of=made_of)

    def _of_unflagged(self, images: pa.Table, boxes: Sequence[Any]) -> list[np.ndarray]:
        """Scores (R, words) of the same boxes in each of the first images that can be read."""
        found: list[np.ndarray] = []
        for start in range(0, images.num_rows, _READ_AT_ONCE):
            some = images.slice(start, min(_READ_AT_ONCE, LEAST_PLACES - len(found)))
            for _, picture in _pictures(some, self._spec.decode):
                found.append(np.stack([place.found.scores for place in self._places(picture, boxes)]))
            if len(found) >= LEAST_PLACES:
                break
        return found

    def _places(self, picture: np.ndarray, boxes: Sequence[Any]) -> Iterator[_Place]:
        towers, words = self._towers, self._spec.words
        height, width = picture.shape[:2]
        crops = [crops_around(box, width, height) for box in boxes]
        pixels = [
            fit(np.ascontiguousarray(crop.of(picture)), towers.image_size, "squash") for own in crops for crop in own
        ]
        patches = towers.patches(np.stack(pixels))
        each = patches.reshape(len(boxes), len(SCALES), *patches.shape[1:])
        for box, own, of_crops in zip(boxes, crops, each, strict=True):
            adapted = words.adapted(np.concatenate(list(of_crops), axis=1))
            inside = touched(own, box, width, height, towers.grid)
            yield _Place(own, adapted, place_scores(adapted, words.bank, inside))

    def _outcome(self, named: WordNames) -> dict[str, Any]:
        types = self._spec.words.bank.types
        order = np.argsort(-named.confidence, kind="stable")
        second = types[order[1]] if len(types) > 1 else None
        return {
            "defect_type": named.name or UNKNOWN,
            "confidence": float(named.confidence[named.best]),
            "p": named.p_value,
            "runner_up": second if named.name else types[named.best],
            "why": named.why_unknown,
        }

    def _links(self, region: Mapping[str, Any], place: _Place, named: WordNames) -> Iterator[dict[str, Any]]:
        """The patches that count for the highest type, in pixels of the picture, each with its nearest phrase."""
        bank, best = self._spec.words.bank, named.best
        boxes = np.concatenate([patch_boxes(crop, self._towers.grid) for crop in place.crops])
        top, contrasts = place.found.top[best], place.found.contrasts[best]
        phrases = nearest_phrases(place.patches[:, top], bank, best)
        scales = np.repeat(SCALES, len(boxes) // len(SCALES))
        for patch, contrast, phrase in zip(top.tolist(), contrasts.tolist(), phrases.tolist(), strict=True):
            yield {
                "image_id": region["image_id"],
                "region": region["region"],
                "defect_type": bank.types[best],
                "phrase": bank.phrases[best][phrase],
                "contrast": contrast,
                "scale": float(scales[patch]),
                **dict(zip(("x", "y", "width", "height"), boxes[patch].tolist(), strict=True)),
                "why_unknown": named.why_unknown or None,
            }


def too_few(places: int) -> dict[str, Any]:
    """Make the outcome of a region whose group has too few unflagged images to compare its place with."""
    why = f"{places} unflagged images to compare its place with, fewer than {LEAST_PLACES}"
    return {"defect_type": UNKNOWN, "confidence": 0.0, "p": 1.0, "runner_up": None, "why": why}


def _pictures(images: pa.Table, settings: DecodeSettings) -> Iterator[tuple[str, np.ndarray]]:
    """Each image's id and its pixels, in any order; those that cannot be read, or are others by now, are left out."""
    rows = sorted(images.to_pylist(), key=shard_of)
    for place, data in originals(rows, settings):
        try:
            picture = decoded(rows[place], require_same(rows[place], data), settings)
        except (ArchiveError, DecodeError):
            continue
        yield rows[place]["image_id"], picture

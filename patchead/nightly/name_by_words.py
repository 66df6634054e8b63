"""A night's regions are named by words, where the settings give some: which regions, against what, by whom."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import compact, set_column, values
from patchead.encoders.clip_towers import ClipTowers, build_towers
from patchead.errors import LakeError, LostNodesError, PatcheadError, WeightsError, arguments_named
from patchead.hashing import text_digest
from patchead.lake.staging import RunFolder
from patchead.lake.word_links import staged_names, write_links
from patchead.naming.control_words import control_phrases
from patchead.naming.named import UNKNOWN, Named
from patchead.naming.text_bank import TextBank, make_text_bank
from patchead.naming.word_scores import LEAST_PLACES
from patchead.naming.words import Words
from patchead.nightly import wiring
from patchead.nightly.explain import Explained
from patchead.nightly.explain_drawing import COLUMNS
from patchead.nightly.lacking import of_the_group
from patchead.nightly.told import tell_lacking
from patchead.nightly.words_actor import SPARE, WordsActor, WordsPortion, WordsSpec, too_few
from patchead.schema import OK, REGIONS, WORD_LINKS
from patchead.settings.model import Config
from patchead.settings.modes import words_encoder
from patchead.storage import Storage
from patchead.tuning.words_file import read_words, require_same_encoder

if TYPE_CHECKING:
    from patchead.nightly.night import EmbeddedNight, Night

PORTION = 8
"""Flagged images that one call names, at most: each call reads the unflagged images again."""
NAMED = ("defect_type", "defect_confidence", "defect_p", "defect_runner_up", "naming_id")
"""Columns that it fills, in the order of the outcome."""
_NO_NAMES = "regions have no name by words"
_VERSION = 1  # of how regions are named by words
_REGION = ("image_id", "region", "rel_x", "rel_y", "rel_width", "rel_height")

Names = list[tuple[Named | None, str | None]]


@dataclass(frozen=True)
class WordsOfNight:
    """Hold the words of a night, and the id of the towers that alone may be used with them."""

    words: Words
    encoder_id: str

    def naming_id(self, level: float) -> str:
        """Hash all that decides a name, but the pictures."""
        bank, adapters = self.words.bank, self.words.adapters
        arrays = [bank.contrast_vectors, bank.normal_vector, *bank.phrase_vectors]
        parts = [array.tobytes().hex() for array in (*arrays, *([] if adapters is None else [adapters]))]
        said = [_VERSION, self.encoder_id, bank.types, self.words.taps, level]
        return f"words-{text_digest(json.dumps(said) + ' '.join(parts), 6)}"


def with_words(asked: WordsOfNight, night: Night, embedded: EmbeddedNight, explained: Explained) -> Explained:
    """Name the regions of flagged images by words, where no example has named them (method.md §14).

    Args:
        asked: the words.
        night: whose stage it is.
        embedded: its images.
        explained: what is to be published; nothing is read where nothing is flagged.

    Returns:
        The same scores and verdicts; regions in the same order. Groups of which regions could not be named, as the
        towers cannot be built on a worker or the lake cannot be written, are incomplete.
    """
    flagged = explained.scores.filter(pc.fill_null(explained.scores["is_anomalous"], False))["image_id"]
    here = pc.is_in(explained.regions["image_id"], value_set=values(flagged))
    places = np.flatnonzero(np.asarray(here))
    if not len(places):
        return explained
    with night.stages.stage("words", len(flagged)) as advance:
        rows = explained.regions.take(pa.array(places))
        names, told, lacking = _named(asked, night, embedded, explained.scores, rows, advance)
        for text in told:
            night.stages.warn(f"warning: {text}")
    night.record.scoring["words"] = {
        "encoder_id": asked.encoder_id,
        "regions": len(places),
        "types": dict(sorted(Counter(named.defect_type for named, _ in names if named is not None).items())),
    }
    tell_lacking(night.stages.warn, embedded.images, lacking)
    regions = _filled(explained.regions, dict(zip(places.tolist(), names, strict=True)))
    return replace(explained, regions=regions).without(lacking)


def _filled(regions: pa.Table, names: Mapping[int, tuple[Named | None, str | None]]) -> pa.Table:
    """REGIONS with names by words where there is none by example; unknown by both stays so by example."""
    columns = {name: regions[name].to_pylist() for name in NAMED}
    for place, (named, naming_id) in names.items():
        before = columns["defect_type"][place]
        if named is None or not (before is None or (before == UNKNOWN and named.is_known)):
            continue
        found = (named.defect_type, named.confidence, named.p, named.runner_up, naming_id)
        for name, value in zip(NAMED, found, strict=True):
            columns[name][place] = value
    for name, column in columns.items():
        regions = set_column(regions, name, pa.array(column, REGIONS.field(name).type))
    return regions


def _named(
    asked: WordsOfNight,
    night: Night,
    embedded: EmbeddedNight,
    scores: pa.Table,
    rows: pa.Table,
    advance: Callable[[int], None],
) -> tuple[Names, list[str], dict[str, str]]:
    """What each of the regions ``rows`` is called, what a person is told, and why regions of which groups have none."""
    naming_id, told = asked.naming_id(night.config.naming.level), list[str]()
    portions = list(_portions(embedded, scores, rows, told))
    lacking = _staged(night, _spec(night, embedded, asked, naming_id), rows, portions, advance)
    try:
        names = _read(night.folder, naming_id, rows.num_rows, portions)
    except LakeError as exc:
        why = f"{_NO_NAMES}: {of_the_group(exc)}"
        return [(None, None)] * rows.num_rows, told, dict.fromkeys(rows["group_id"].to_pylist(), why)
    return names, told, lacking


def _staged(
    night: Night,
    spec: WordsSpec,
    rows: pa.Table,
    portions: Sequence[tuple[list[int], WordsPortion | None]],
    advance: Callable[[int], None],
) -> dict[str, str]:
    """Have the portions of regions named and staged; say why those of which groups could not be."""
    lacking = dict[str, str]()

    def failed(group_id: str, error: PatcheadError) -> None:
        lacking.setdefault(group_id, f"{_NO_NAMES}: {of_the_group(error)}")

    try:
        with night.executor.actors(WordsActor, spec, night.embed_pool) as actors:
            for places, portion in portions:
                counted = partial(advance, len(set(rows["image_id"].take(pa.array(places)).to_pylist())))
                if portion is None:
                    counted()
                    continue
                without = partial(failed, rows["group_id"][places[0]].as_py())
                actors.call("name_portion", night.executor.put(portion), done=counted, failed=without)
    except (LostNodesError, WeightsError) as exc:
        for places, portion in portions:
            if portion is not None and not _is_staged(night.folder, portion, spec.naming_id):
                failed(rows["group_id"][places[0]].as_py(), exc)
    return lacking


def _is_staged(folder: RunFolder, portion: WordsPortion, naming_id: str) -> bool:
    return staged_names(folder, portion.name, made_of=portion.made_of(naming_id)) is not None


def _read(
    folder: RunFolder, naming_id: str, regions: int, portions: Sequence[tuple[list[int], WordsPortion | None]]
) -> Names:
    """What was staged, of so many regions; the links are put together in one file of the run."""
    names: Names = [(None, None)] * regions
    links = [WORD_LINKS.empty_table()]
    for places, portion in portions:
        outcomes: list[dict[str, Any]] = [too_few(0)] * len(places)
        if portion is not None:
            if (staged := staged_names(folder, portion.name, made_of=portion.made_of(naming_id))) is None:
                continue  # its call has failed
            outcomes = staged[0]
            links.append(staged[1])
        for place, outcome in zip(places, outcomes, strict=True):
            if outcome:  # else its image could not be read again
                named = Named(**{key: value for key, value in outcome.items() if key != "why"}, source="words")
                names[place] = (named, naming_id)
    order = [("image_id", "ascending"), ("region", "ascending")]
    write_links(folder, pa.concat_tables(links).sort_by(order))
    return names


def words_of_night(config: Config, storage: Storage) -> WordsOfNight:
    """Encode the words of the settings on this machine's CPU, or read tuned ones.

    Raises:
        SettingsError: the encoder knows no words, a phrase is too long, or tuned words are of another encoder.
        WeightsError: weights or tuned words cannot be found or read.
    """
    name, weights = words_encoder(config)
    own = config.naming.encoder is not None
    keys = {"name": "naming.encoder" if own else "encoder.name", "words": "naming.words"}
    with arguments_named(keys | {"weights": "naming.weights" if own else "encoder.weights"}):
        towers = build_towers(name, weights, storage=storage)
        if config.naming.words is None:
            return WordsOfNight(Words(_bank(config, towers)), towers.encoder_id)
        tuned = read_words(config.naming.words, storage)
        require_same_encoder(config.naming.words, tuned, towers)
        return WordsOfNight(tuned.words, towers.encoder_id)


def _bank(config: Config, towers: ClipTowers) -> TextBank:
    controls = control_phrases() if config.naming.control_words else ()
    return make_text_bank(config.naming.keywords, towers.encode_text, controls=controls)


def _spec(night: Night, embedded: EmbeddedNight, asked: WordsOfNight, naming_id: str) -> WordsSpec:
    name, weights = words_encoder(night.config)
    return WordsSpec(
        name=name,
        weights=weights,
        encoder_id=asked.encoder_id,
        device=night.embed_pool.device,
        threads=night.embed_pool.threads,
        words=asked.words,
        level=night.config.naming.level,
        decode=wiring.decode_settings(night.config, embedded.encoder.grid, night.in_hand),
        folder=night.folder,
        naming_id=naming_id,
    )


def _portions(
    embedded: EmbeddedNight, scores: pa.Table, rows: pa.Table, told: list[str]
) -> Iterator[tuple[list[int], WordsPortion | None]]:
    """Places of regions among ``rows`` and the portion that names them; none where too few images are unflagged."""
    flagged = pc.fill_null(scores["is_anomalous"], False)
    ok = values(scores["image_id"].filter(pc.and_(pc.equal(scores["status"], OK), pc.invert(flagged))))
    bad = values(scores["image_id"].filter(flagged))
    for group in pc.unique(rows["group_id"]).to_pylist():
        here = np.flatnonzero(np.asarray(pc.equal(rows["group_id"], group)))
        images = embedded.groups[group]
        images = images.select([name for name in images.column_names if name in (*COLUMNS, "bit_depth")])
        unflagged = _unlike_the_flagged(images.filter(pc.is_in(images["image_id"], value_set=ok)), images, bad)
        if unflagged.num_rows < LEAST_PLACES:
            told.append(
                f"{group} has {unflagged.num_rows} unflagged images; names by words need {LEAST_PLACES}: unknown"
            )
            yield here.tolist(), None
            continue
        of_image: dict[str, list[int]] = {}
        for place in here.tolist():
            of_image.setdefault(rows["image_id"][place].as_py(), []).append(place)
        ids = sorted(of_image)
        for start in range(0, len(ids), PORTION):
            some = ids[start : start + PORTION]
            places = [place for image_id in some for place in of_image[image_id]]
            own = images.filter(pc.is_in(images["image_id"], value_set=pa.array(some)))
            regions = compact(rows.select(list(_REGION)).take(pa.array(places)))
            yield places, WordsPortion(compact(own), regions, unflagged)


def _unlike_the_flagged(unflagged: pa.Table, images: pa.Table, bad: pa.Array) -> pa.Table:
    """Unflagged images that are no copies of flagged ones, the same ones whatever their order: by hash of their ids."""
    flagged = values(images.filter(pc.is_in(images["image_id"], value_set=bad))["content_hash"])
    kept = unflagged.filter(pc.invert(pc.is_in(unflagged["content_hash"], value_set=flagged)))
    keys = [text_digest(image_id) for image_id in kept["image_id"].to_pylist()]
    return compact(kept.take(np.argsort(keys, kind="stable")[: LEAST_PLACES + SPARE]))

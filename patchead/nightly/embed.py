"""Stages 2 and 3: images become patch embeddings in the lake, by Ray Data with a fixed-size actor pool.

The unit of work is up to ``lake.images_per_file`` images of one group and one shard. Decode tasks read, hash, decode
and resize it; an actor embeds it, writes one Arrow IPC file and returns receipts. Embeddings never travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import count, keys, set_column
from patchead.encoders import EncoderSpec, build
from patchead.encoders.weights import other_weights
from patchead.lake.contents import Contents
from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.decode import DecodeSettings, Shared, decode_unit
from patchead.nightly.decoded_unit import DecodedUnit
from patchead.nightly.landed import Landed
from patchead.nightly.told import Brought, count_images, labels_by_group, tell_unit
from patchead.nightly.units import as_read_now, samples, units
from patchead.nightly.unread import Outage, as_failed
from patchead.runtime.executor import Executor
from patchead.runtime.in_hand import MOST_STARTS, InHand, Watch
from patchead.runtime.pool import Pool
from patchead.samples.embed import SampleEmbedder
from patchead.samples.recipe import SampleRecipe
from patchead.schema import FAILED, OK, RECEIPTS, SAMPLE_KEY, UNREAD, completed
from patchead.settings.argument_names import in_settings

_PASSES = 2  # over what the storage did not give
_BROUGHT = "brought"  # by a unit, in the first of its rows
_BROUGHT_TYPE = pa.struct(
    [
        ("unit_id", pa.string()),
        ("group_id", pa.string()),
        *((n, pa.int64()) for n in ("written", "decoded", "read_bytes")),
    ]
)


@dataclass(frozen=True)
class Embedded:
    """Hold what the stage leaves: one receipt per image of the manifest, in its order, and how they came about."""

    receipts: pa.Table
    embedded: int
    reused: int
    failed: int
    fresh: pa.ChunkedArray
    """Ids of the images that went through the encoder."""
    unread: pa.Table
    """Receipts of those of the failed that the storage did not give, in any of the passes."""

    def summary(self) -> str:
        """Tell the counts in one line."""
        unread = f", {self.unread.num_rows} of them not given by the storage" * bool(self.unread.num_rows)
        return f"{self.embedded} embedded, {self.reused} reused, {self.failed} failed{unread}"


def embed(
    executor: Executor,
    manifest: pa.Table,
    spec: EncoderSpec,
    store: EmbeddingStore,
    settings: DecodeSettings,
    pool: Pool,
    *,
    batch_size: int,
    images_per_file: int,
    run_id: str,
    advance: Callable[[int], None],
    guides: Mapping[str, pa.Table] | None = None,
    proven: bool = False,
    landed: Landed | None = None,
) -> Embedded:
    """Embed every image of the manifest that the lake does not already hold under this encoder.

    The manifest may have columns of `TO_EMBED`; ``guides`` are the images to align with, by group: manifest rows;
    ``proven`` says that the encoder is known to work, by the prompts; ``landed`` hears of receipts as they come.

    Raises:
        PatcheadError: the encoder cannot be built on the workers, or the lake cannot be written. Units that were
            finished before stay in the lake and are skipped by the next run.
    """
    wanted = as_read_now(samples(manifest, guides or {}, settings.max_pixels))
    readable = wanted.filter(pc.is_null(wanted["status"]))
    store.settle()
    unchanged = store.index.unchanged(readable)
    advance(unchanged.num_rows)
    known = pc.is_in(keys(readable, SAMPLE_KEY), value_set=keys(unchanged, SAMPLE_KEY))
    todo, labels = readable.filter(pc.invert(known)), labels_by_group(readable)
    count_images("patchead_images_reused", readable.filter(known), "embed")
    if landed is not None:
        landed.add(unchanged)
    embed_spec = EmbedSpec(spec, store, settings.recipe, batch_size, pool.threads, proven, settings.in_hand)
    shared = Shared(Contents(store.index), guides or {})
    fresh, unread, unit_ids = [RECEIPTS.empty_table()], RECEIPTS.empty_table(), list[str]()
    embedded = [RECEIPTS.empty_table()["image_id"]]
    for _ in range(_PASSES):
        work = units(todo, images_per_file, run_id)
        work = work if landed is None else landed.in_order(work)
        unit_ids += work["unit_id"].to_pylist()
        outage = Outage()
        for receipts, written, brought in _run(executor, work, settings, shared, embed_spec, pool):
            fresh.append(receipts.filter(pc.not_equal(receipts["status"], UNREAD)))
            tell_unit(labels.get(brought.group_id, {}), brought, unread=receipts.num_rows - fresh[-1].num_rows)
            outage.add(receipts)
            if landed is not None:
                landed.add(fresh[-1])
            embedded.append(receipts["image_id"].filter(written))
            advance(fresh[-1].num_rows)
        unread = outage.unread
        if not unread.num_rows:
            break
        todo = todo.filter(pc.is_in(keys(todo, SAMPLE_KEY), value_set=keys(unread, SAMPLE_KEY)))
    store.consolidate(run_id, pa.concat_tables(fresh), unit_ids)
    failed_before = completed(wanted.filter(pc.is_valid(wanted["status"])), RECEIPTS)
    everything = _in_order_of(wanted, pa.concat_tables([unchanged, *fresh, as_failed(unread), failed_before]))
    failed, ids = count(everything, FAILED), pa.chunked_array([part for each in embedded for part in each.chunks])
    count_images("patchead_images_failed", wanted.filter(pc.equal(everything["status"], FAILED)), "embed")
    return Embedded(everything, len(ids), everything.num_rows - failed - len(ids), failed, ids, unread)


@dataclass(frozen=True)
class EncoderFacts:
    """Hold what the rest of the run needs to know of the encoder; ``n_patches`` of one view."""

    encoder_id: str
    grid: tuple[int, int]
    dim: int
    n_patches: int


def identify(spec: EncoderSpec) -> EncoderFacts:
    """Build the encoder once on this machine's CPU, for its id; every actor checks that it has built the same.

    Raises:
        WeightsError, SettingsError: it cannot be built.
    """
    encoder = build(replace(spec, device="cpu"))
    return EncoderFacts(encoder.encoder_id, encoder.grid, encoder.dim, encoder.n_patches)


@dataclass(frozen=True)
class EmbedSpec:
    """Hold what every embedding actor is set up with; ``batch_size`` views per forward pass."""

    encoder: EncoderSpec
    store: EmbeddingStore
    recipe: SampleRecipe
    batch_size: int
    threads: int
    proven: bool = False
    """Whether images that all cannot be compared are to blame, and not the encoder."""
    in_hand: InHand | None = None
    """What remembers the unit that each process has in hand."""


class EmbedActor:
    """Embed decoded units by one encoder and write them to the lake."""

    def setup(self, spec: EmbedSpec) -> None:
        """Build the encoder.

        Raises:
            WeightsError: it cannot be built, or it is not the one that the run began with.
        """
        import torch

        torch.set_num_threads(spec.threads)
        self._encoder, self._store, self._in_hand = build(spec.encoder), spec.store, spec.in_hand
        self._embedder = SampleEmbedder(self._encoder, spec.recipe, batch_size=spec.batch_size, proven=spec.proven)
        if not self._store.encoder_id.startswith(self._encoder.encoder_id):  # behind it the views' digest
            raise other_weights(spec.encoder.weights, self._encoder.encoder_id, self._store.encoder_id)

    def __call__(self, batch: pa.Table) -> pa.Table:
        unit = DecodedUnit.of(batch)
        first = unit.receipts["image_id"][0].as_py()
        with Watch(self._in_hand, f"embedding of {unit.receipts.num_rows} images from {first} on ({unit.unit_id})"):
            return self._embedded(unit)

    def _embedded(self, unit: DecodedUnit) -> pa.Table:
        unit_id, receipts, pixels, valid, motions, blocks, group_id, read_bytes = unit
        fresh = pc.and_(pc.equal(receipts["status"], OK), pc.is_null(receipts["embedding_uri"]))
        written, embeddings, side_arrays, told = pc.sum(fresh, min_count=0).as_py(), None, None, dict[int, str]()
        if written:
            side = self._encoder.image_size
            found = self._embedder.embed(
                pixels.reshape(-1, side, side, 3),
                valid.reshape(written, -1, self._encoder.n_patches),
                motions.reshape(written, -1, 2, 3),
                blocks.reshape(written, -1),
            )
            embeddings, side_arrays = found.embeddings, found.side_arrays.columns()
            faults = zip(np.flatnonzero(fresh).tolist(), found.faults, strict=True)
            told = {row: in_settings(fault) for row, fault in faults if fault}
            receipts = _failed(receipts, told)
        filled = self._store.write_unit(unit_id, receipts, embeddings, side_arrays)
        done = [is_fresh and row not in told for row, is_fresh in enumerate(fresh.to_pylist())]
        brought = Brought(unit_id, group_id, sum(done), written, read_bytes)._asdict()
        filled = filled.append_column("written", pa.array(done, pa.bool_()))
        return filled.append_column(_BROUGHT, pa.array([brought] + [None] * (len(filled) - 1), _BROUGHT_TYPE))


def _failed(receipts: pa.Table, told: Mapping[int, str]) -> pa.Table:
    """Fail the receipts for which there is a reason, by row: one bad image does not end everybody's night."""
    errors = pa.array([told.get(row) for row in range(receipts.num_rows)], pa.string())
    for name, column in (
        ("status", pc.if_else(pc.is_valid(errors), FAILED, receipts["status"])),
        ("error", pc.coalesce(errors, receipts["error"])),
    ):
        receipts = set_column(receipts, name, column)
    return receipts


def _run(
    executor: Executor, work: pa.Table, settings: DecodeSettings, shared: Shared, spec: EmbedSpec, pool: Pool
) -> Iterator[tuple[pa.Table, pa.ChunkedArray, Brought]]:
    """Receipts of each unit as it is finished, which of its images were embedded for it, and what it has brought."""
    function = partial(decode_unit, settings=settings, shared=executor.stream([executor.put(shared)]))
    memory = settings.memory_bytes(pc.list_flatten(work["size"]))
    found = executor.map_units(work, function, EmbedActor, spec, pool, starts=MOST_STARTS, memory=memory)
    for batch in found:
        receipts = batch.drop_columns(["written", _BROUGHT]).cast(RECEIPTS)
        yield receipts, batch["written"], Brought(**batch[_BROUGHT][0].as_py())


def _in_order_of(wanted: pa.Table, receipts: pa.Table) -> pa.Table:
    return receipts.take(pc.index_in(keys(wanted, SAMPLE_KEY), value_set=keys(receipts, SAMPLE_KEY)))

"""The stages of one night, each as a call: list, embed, plan, explain, publish. `run` puts them in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import by_group
from patchead.errors import TooManyFailuresError
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.publication import publish
from patchead.lake.staging import RunFolder
from patchead.nightly import wiring
from patchead.nightly.accepted import AcceptedGroups, find_accepted
from patchead.nightly.bit_depth import settle_night, with_bits
from patchead.nightly.decode import decoding_memory
from patchead.nightly.embed import Embedded, EncoderFacts, embed, identify
from patchead.nightly.embedded_night import EmbeddedNight, Groups
from patchead.nightly.explain import Explained
from patchead.nightly.group import GroupPrompts
from patchead.nightly.landed import Landed, with_receipts
from patchead.nightly.manifest import make_manifest
from patchead.nightly.meanwhile import Meanwhile, References
from patchead.nightly.noted import note_embedded, note_held, note_published, which_failed
from patchead.nightly.progress import Stages
from patchead.nightly.prompt_nulls import NullSamples
from patchead.nightly.prompts import PromptSet, guides_of, list_prompts, require_usable
from patchead.nightly.refusals import refuse_too_many_failures, refuse_unplanned, refuse_unread
from patchead.nightly.run_record import RunRecord
from patchead.nightly.run_rows import run_rows
from patchead.nightly.score_spec import ScoreSpec
from patchead.nightly.told import count_images, tell_published
from patchead.nightly.try_bounds import with_bounds
from patchead.nightly.twins import prompts_with_twins, with_twins
from patchead.plan.group_plan import make_plan
from patchead.plan.planned import Plan, PromptCounts
from patchead.printed import say
from patchead.review.same_scores import prompt_contents
from patchead.runtime.executor import Executor
from patchead.runtime.in_hand import MOST_STARTS
from patchead.runtime.pool import Pool
from patchead.schema import OK
from patchead.scoring.precision_probe import probe_with, to_time, warning
from patchead.search.bound_choice import warning_on
from patchead.settings.argument_names import in_settings
from patchead.settings.identity import store_id
from patchead.settings.model import Config
from patchead.settings.resolve import aggregation_of, with_precision

Counts = Mapping[str, PromptCounts] | None


class Night:
    """Do the stages of one run; hold what they share: settings, storage, pools, the record and its clock."""

    def __init__(
        self, config: Config, record: RunRecord, folder: RunFolder, stages: Stages, executor: Executor
    ) -> None:
        self.config, self.record, self.folder, self.stages = config, record, folder, stages
        self.storage, self.executor, self.in_hand = wiring.storage(config), executor, executor.in_hand()
        executor.tell = stages.warn
        memory = decoding_memory(config.archive.max_pixels, config.archive.bytes_in_flight)
        self.run_images = partial(executor.run_tasks, starts=MOST_STARTS, memory=memory)  # one may end its process
        self.embed_pool, self.score_pool = executor.pools(request := wiring.pool_request(config))
        self.meanwhile_pool: Pool | None = None
        if config.resources.overlap and (together := executor.pools_together(request)):
            self.embed_pool, self.meanwhile_pool = together
        # Where all scoring actors work meanwhile, as those that share a GPU with an encoder do, they go on behind it.
        self.goes_on = self.meanwhile_pool is not None and self.meanwhile_pool.size == self.score_pool.size
        self.scoring_pool = self.score_pool
        if self.meanwhile_pool is not None and self.goes_on:
            self.scoring_pool = replace(self.meanwhile_pool, grows=self.score_pool.grows)
        self.meanwhile: Meanwhile | None = None
        places = [config.archive.uri, folder.uri_of("run.json"), config.prompts.uri, config.prompts.manifest]
        executor.require_shared_folders([uri for uri in places if uri is not None])
        record.seconds = stages.seconds
        self.probes: list[dict[str, float]] = []
        self.store: EmbeddingStore | None = None  # once the encoder is known
        self.files: set[str] = set()
        """The embedding files that this night reads, once they are there."""
        self.bits: dict[str, int] = {}  # of 16-bit images, by group
        self.prompt_contents: dict[str, dict[str, Any]] = {}  # by group of prompts
        self.twins = 0
        self.refused: Mapping[str, str] = {}
        """Why, by the id of each group that cannot be planned."""
        self._settle_precision()
        if slow := warning_on(self.score_pool.device, config.scoring.schedule, aggregation_of(config).window):
            say(stages.console, f"warning: {in_settings(slow)}")

    def _settle_precision(self) -> None:
        """Put one arithmetic in the place of ``scoring.precision`` auto: of a group, every tile must be of the same."""
        device, asked = self.score_pool.device, self.config.scoring.precision
        if not (candidates := to_time(asked, device)):
            self.config = with_precision(self.config, device)
            return
        probes = self.executor.on_every_node(partial(probe_with, self.score_pool.threads, device, candidates))
        self.config, self.probes = with_precision(self.config, device, probes), probes
        where = "" if len(probes) == 1 else f"the slowest of {len(probes)} nodes"
        if text := warning(asked, probes, where):
            say(self.stages.console, f"warning: {in_settings(text)}")

    def embedded(self, manifest: pa.Table) -> EmbeddedNight:
        """Decode and embed; what cannot be scored is refused before anything is embedded."""
        readable = by_group(manifest.filter(pc.is_null(manifest["status"])))
        prompts = self.prompts(readable)
        encoder = self.encoder()
        store = EmbeddingStore(self.config.lake.uri, self.storage, store_id(self.config, encoder.encoder_id))
        accepted = find_accepted(self.config, self.storage, readable, encoder.encoder_id, store)
        by_manifest = self.plan(readable, encoder, prompts.counts(readable) if prompts else accepted.counts(readable))
        decoding = wiring.decode_settings(self.config, encoder.grid, self.in_hand)
        self.bits = settle_night(readable, prompts, accepted, decoding, self.run_images, self.stages.console)
        filed = self.embed_prompts(prompts, accepted, encoder, store) if prompts else {}
        if prompts:  # which of them differ is known now
            by_manifest = self.plan(readable, encoder, {name: prompts.of(filed, name).counts for name in readable})
        guides = guides_of(readable, prompts, filed) if self.config.align.enabled else {}
        references = partial(prompts.of, filed) if prompts else lambda name: accepted.images([name]).get(name)
        self.meanwhile = self.scoring_meanwhile(by_manifest, encoder, store, references)
        with_them = with_bits(manifest, self.bits)
        with self.meanwhile.scoring(with_them) if self.meanwhile else nullcontext() as landed:
            images = self.embed(with_them, encoder, store, guides, landed)
        groups = by_group(images.filter(pc.equal(images["status"], OK)))
        of_groups = {name: prompts.of(filed, name) for name in groups} if prompts else accepted.images(groups)
        groups, self.twins = with_twins(groups, of_groups, store, self.executor.run_tasks, self.stages.console)
        accepted = accepted.without_own(groups, self.config, self.storage, self.stages.console)
        plan = self.plan(groups, encoder, {name: of.counts for name, of in of_groups.items()} or None, store)
        self.record.scoring |= {"prompts": prompts.ids() if prompts else {}, "accepted": accepted.facts()}
        self.record.scoring["prompt_contents"] = self.prompt_contents
        self.record.scoring["scored_meanwhile"] = len(self.meanwhile.scored) if self.meanwhile else 0
        return EmbeddedNight(
            manifest=manifest,
            images=images,
            groups=groups,
            prompts=of_groups,
            accepted=accepted,
            plan=plan,
            encoder=encoder,
            store=store,
        )

    def catalog(self) -> pa.Table:
        """List the archive, or read what an earlier try of the run has listed. Returns MANIFEST."""
        with self.stages.stage("catalog") as advance:
            request = wiring.catalog_request(self.config)
            manifest, left_out, unreadable = make_manifest(request, self.folder, self.executor)
            advance(manifest.num_rows)
        self.stages.nights = self.record.nights = sorted(pc.unique(manifest["night"]).drop_null().to_pylist())
        self.record.archive_root = wiring.archive_root(self.config, manifest)
        self.record.note("images", manifest["night"])
        count_images("patchead_images_listed", manifest, "catalog")
        self.record.images, self.record.ignored_files = manifest.num_rows, left_out.total
        self.record.ignored, self.record.unreadable = left_out.as_json(), unreadable.as_json()
        return manifest

    def prompts(self, groups: Groups) -> PromptSet | None:
        """List the prompts of few-shot mode; every group has some. None in batch mode."""
        if not wiring.few_shot(self.config):
            return None
        request = wiring.prompt_request(self.config)
        found = list_prompts(request, groups)
        found.require(groups, request.catalog.uri)
        return found

    def encoder(self) -> EncoderFacts:
        """Build the encoder once, for its id and its grid."""
        with self.stages.stage("encoder"):
            facts = identify(wiring.encoder_spec(self.config, self.embed_pool.device))
        self.record.encoder_id = facts.encoder_id
        return facts

    def embed_prompts(
        self, prompts: PromptSet, accepted: AcceptedGroups, encoder: EncoderFacts, store: EmbeddingStore
    ) -> dict[str, GroupPrompts]:
        """Embed the prompts, as references and as what is scored to know how normal images score; by group."""
        wanted = with_bits(prompts.to_embed(), self.bits)
        with self.stages.stage("prompts", wanted.num_rows) as advance:
            receipts = self._embed(wanted, encoder, store, {}, advance, proven=False).receipts
            require_usable(receipts)
            tell = self.executor.run_tasks, self.stages.console
            found = prompts.embedded(receipts)
            self.prompt_contents = {n: prompt_contents(rows["content_hash"].to_pylist()) for n, rows in found.items()}
            accepted.require_prompts(self.prompt_contents)
            references = prompts_with_twins(found, store, *tell)
            nulls = NullSamples.of(prompts.upright(), references)
            guides = prompts.own_guides(references) if self.config.align.enabled else {}
            receipts = self._embed(
                with_bits(nulls.to_embed, self.bits), encoder, store, guides, lambda count: None, proven=True
            ).receipts
            require_usable(receipts)
        return nulls.with_references(references, receipts)

    def embed(
        self,
        manifest: pa.Table,
        encoder: EncoderFacts,
        store: EmbeddingStore,
        guides: dict[str, pa.Table],
        landed: Landed | None = None,
    ) -> pa.Table:
        """Embed the images. Returns the manifest with the receipts' columns behind its own, one row per image."""
        with self.stages.stage("embed", manifest.num_rows) as advance:
            # Prompts are all usable by now, or the night has ended; so were accepted images on their own night.
            proven = wiring.few_shot(self.config) or wiring.accepted_references(self.config)
            done = self._embed(manifest, encoder, store, guides, advance, proven=proven, landed=landed)
        note_embedded(self.record, manifest, done)
        say(self.stages.console, f"         {done.summary()}")
        try:
            refuse_unread(self.record, done.unread, self.config.run.max_unread_fraction)
            refuse_too_many_failures(self.record, done.receipts, self.config.run.max_failed_fraction)
        except TooManyFailuresError:
            self.folder.forget_manifest()  # the remedy is to mend the archive: it is another one then
            raise
        self.folder.write_receipts(done.receipts, store_id=store.encoder_id)
        return with_receipts(manifest, done.receipts)

    def _embed(
        self,
        manifest: pa.Table,
        encoder: EncoderFacts,
        store: EmbeddingStore,
        guides: dict[str, pa.Table],
        advance: Callable[[int], None],
        *,
        proven: bool,
        landed: Landed | None = None,
    ) -> Embedded:
        self.store = store
        done = embed(
            self.executor,
            manifest,
            wiring.encoder_spec(self.config, self.embed_pool.device),
            store,
            wiring.decode_settings(self.config, encoder.grid, self.in_hand),
            self.embed_pool,
            batch_size=self.config.encoder.batch_size,
            images_per_file=wiring.images_per_unit(self.config, guides),
            run_id=self.record.run_id,
            advance=advance,
            guides=guides,
            proven=proven,
            landed=landed,
        )
        self.files |= set(pc.unique(done.receipts["embedding_uri"]).drop_null().to_pylist())
        return done

    def plan(self, groups: Groups, encoder: EncoderFacts, prompts: Counts, store: EmbeddingStore | None = None) -> Plan:
        """Plan the scoring of every group, and note it in the record; with ``store`` by what is in it too."""
        sizes, device = [(name, rows.num_rows) for name, rows in groups.items()], self.score_pool.device
        limits = wiring.limits(self.config, self.score_pool.size, device, self.score_pool.threads)
        make = partial(make_plan, sizes, wiring.patches_per_sample(self.config, encoder), encoder.dim, prompts=prompts)
        plan = make(limits, refused=(refused := dict[str, str]()))
        refuse_unplanned(refused, len(plan.scored) + len(refused), self.config.run.max_failed_groups)
        self.refused, make = refused, partial(make, refused={})
        if store is not None:
            settings = wiring.score_settings(self.config, encoder, device)
            plan = with_bounds(plan, make, limits, groups, store, settings, self.executor.run_tasks, device=device)
        self.record.groups = len(plan.groups)
        self.record.scoring = plan.facts() | {
            "precision": wiring.precision(self.config, device),
            "actors": self.score_pool.size,
            "probes": self.probes,
            "bit_depth": self.bits,
            "twins": self.twins,
        }
        return plan

    def score_spec(self, encoder: EncoderFacts, store: EmbeddingStore) -> ScoreSpec:
        """Put together what the scoring actors are set up with."""
        settings = wiring.score_settings(self.config, encoder, self.score_pool.device)
        self.record.scoring["embeddings"] = store.encoder_id
        counter = self.meanwhile.spec.counter if self.meanwhile else self.executor.call_counter()
        return ScoreSpec(store, self.folder, settings, self.scoring_pool, counter)

    def scoring_meanwhile(
        self, plan: Plan, encoder: EncoderFacts, store: EmbeddingStore, references: References
    ) -> Meanwhile | None:
        """Get ready to score groups while others are embedded; None where that is not wanted, or there is no room."""
        if self.meanwhile_pool is None:
            return None
        self.meanwhile = None  # of an earlier attempt
        pool, spec = self.score_pool, self.score_spec(encoder, store)
        limits = wiring.limits(self.config, 1, pool.device, pool.threads)
        return Meanwhile(self.executor, spec, self.meanwhile_pool, plan, limits, references, self.goes_on)

    def publish(self, manifest: pa.Table, explained: Explained, before_commit: Callable[[], None]) -> None:
        """Close the record and publish the tables; ``before_commit`` raises where another process has taken over."""
        record, scores = self.record, explained.scores
        note_published(record, scores, explained.verdicts, explained.incomplete)
        note_held(record, self.stages.seconds, self.embed_pool, self.score_pool, self.meanwhile)
        with self.stages.stage("publish"):
            record.finish("published", which_failed(record))
            rows = (scores, explained.regions, explained.verdicts, run_rows(record), explained.vectors)
            publish(self.config.lake.uri, self.storage, manifest, *rows, before_commit=before_commit)
        tell_published(scores, explained.verdicts, map(str, record.nights or []))

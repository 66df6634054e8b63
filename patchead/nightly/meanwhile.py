"""Groups are scored while others are embedded: each as soon as its images are, on actors beside those that embed.

What is scored here is staged as the score stage would have staged it, under the same digest, and that stage passes over
it. What fails here, and what is not begun when the last image is embedded, is left to that stage: nothing that goes
wrong here can cost more than time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Event

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import compact
from patchead.errors import PatcheadError
from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.group import Group, GroupJob, GroupPrompts, compared_digest
from patchead.nightly.landed import Landed
from patchead.nightly.score_actor import ScoreActor
from patchead.nightly.score_spec import ScoreSettings, ScoreSpec
from patchead.nightly.twins import same_as, twins_of
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.planned import GroupPlan, Plan
from patchead.plan.tasks import Task
from patchead.runtime.executor import ActorPool, Executor
from patchead.runtime.pool import Pool
from patchead.schema import OK

References = Callable[[str], GroupPrompts | None]


@dataclass
class Meanwhile:
    """Score groups of a night while others of it are embedded.

    Only those that one actor holds: of larger ones all tiles can begin together, with all actors, once embedding is
    over.
    """

    executor: Executor
    spec: ScoreSpec
    pool: Pool
    """Of the scoring actors that work meanwhile."""
    plan: Plan
    """Of the night by its manifest: which groups are one actor's."""
    limits: Limits
    """Of one actor: a group is planned again once it is known how many of its images are embedded."""
    references: References
    """What a group is compared with in place of itself."""
    keep: bool = False
    """Whether the score stage goes on with the same actors."""
    scored: list[str] = field(default_factory=list)
    """The groups that were."""
    seconds: float = 0.0
    """For which the pool was held."""
    work: Future[None] = field(init=False)
    """Which ends with the block, unless something has ended it before."""
    _begun: Event = field(init=False)
    _ready: SimpleQueue[tuple[str, pa.Table] | None] = field(init=False)
    _actors: ActorPool | None = field(init=False, default=None)
    _over: bool = field(init=False, default=False)

    @contextmanager
    def scoring(self, manifest: pa.Table) -> Iterator[Landed]:
        """Score what is given to the yielded `Landed` while the block runs; ends the calls in hand behind it."""
        staged = self.spec.folder.digests()  # by an earlier try of the run: the score stage knows if they are right
        names = [group.group_id for group in self.plan.scored if group.whole and group.group_id not in staged]
        self._begun, self._ready = Event(), SimpleQueue()
        self._over, self._actors = False, None
        began = time.perf_counter()
        threads = ThreadPoolExecutor(1, thread_name_prefix="patchead-meanwhile")
        self.work = threads.submit(self._work)
        self.work.add_done_callback(lambda work: self._begun.set())
        self._begun.wait()  # the actors have their places before others ask for some
        try:
            yield Landed(manifest, {name: at for at, name in enumerate(names)}, self._take)
            self._end()
            try:
                self.work.result()
            except PatcheadError as exc:
                self.executor.tell(f"warning: scoring meanwhile has ended: {exc}")
        finally:
            self._end()
            if self._actors is not None:
                self._actors.give_up()  # what is in hand, where an error ends the night: else nothing is
            threads.shutdown()
            self.seconds += time.perf_counter() - began

    def _take(self, name: str, rows: pa.Table) -> None:
        self._ready.put((name, rows.filter(pc.equal(rows["status"], OK))))

    def _end(self) -> None:
        self._over = True
        self._ready.put(None)

    def _work(self) -> None:
        """Have the actors score groups in the order in which they come, until embedding is over."""
        with self.executor.actors(ScoreActor, self.spec, self.pool, keep=self.keep) as actors:
            self._actors = actors
            self._begun.set()
            while (ready := self._ready.get()) is not None and not self._over:
                name, rows = ready
                plan = self._planned(name, rows.num_rows)
                if plan.schedule == "none" or not plan.whole:
                    continue
                parts = (compact(rows), self.references(name), plan, self.spec.store, self.spec.settings)
                job = self.executor.submit(job_of, *parts, num_cpus=self.pool.decode_cpus)
                task = Task(group_id=name, kind="whole")
                actors.call("whole", task, job, failed=_left_to_the_stage, done=partial(self.scored.append, name))

    def _planned(self, name: str, images: int) -> GroupPlan:
        counts = None if (of := self.references(name)) is None else {name: of.counts}
        (plan,) = make_plan([(name, images)], self.plan.n_patches, self.plan.dim, self.limits, counts).groups
        return plan


def job_of(
    rows: pa.Table, prompts: GroupPrompts | None, plan: GroupPlan, store: EmbeddingStore, settings: ScoreSettings
) -> GroupJob:
    """Make the job of one group, its twins found, as `twins.with_twins` and the score stage do.

    Raises:
        LakeError: an embedding file is missing or damaged.
    """
    same = same_as(twins_of(rows, prompts), store=store)
    images = rows.append_column("same_as", pa.array(same, pa.string()))
    group = Group.of(plan.group_id, images, prompts)
    compared = compared_digest([images], [] if prompts is None else [prompts])
    return GroupJob(group, plan, settings.panel(group), settings.digest_of(compared))


def _left_to_the_stage(exc: PatcheadError) -> None:
    """Do nothing: the score stage tries the group again, and says what it finds."""

"""One night's run: the seven stages, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from rich.console import Console

from patchead.archive.catalog import first_look
from patchead.encoders import built_once
from patchead.errors import PatcheadError, SettingsError, bad_value
from patchead.lake.lease import Lease, lease
from patchead.lake.preflight import preflight
from patchead.lake.publication import published_settings, record_failure, remove_replaced
from patchead.lake.staging import RunFolder
from patchead.nightly import wiring
from patchead.nightly.damage import attempts
from patchead.nightly.explained_night import explain_night
from patchead.nightly.name import name
from patchead.nightly.night import Night
from patchead.nightly.noted import note_held, note_scored
from patchead.nightly.progress import Stages
from patchead.nightly.refusals import refuse_failed_groups, refuse_other_run, refuse_trial_among_full_runs
from patchead.nightly.run_record import RunRecord, new_run_id
from patchead.nightly.run_rows import run_rows
from patchead.nightly.score import score_groups
from patchead.nightly.told import Scoring
from patchead.printed import say
from patchead.retries import RETRIES
from patchead.runtime import logs
from patchead.runtime.executor import Executor
from patchead.runtime.stop import Stop, what_is_kept
from patchead.settings.argument_names import in_settings, named_as_settings
from patchead.settings.model import Config
from patchead.settings.resolve import concrete
from patchead.settings.without_use import thresholds_of_others
from patchead.storage import Storage

STAGES = ("catalog", "embed", "score", "publish")
"""Stages that a run may end with; the same run id goes on from there. The last is the whole run."""


@named_as_settings()
def run_night(config: Config, console: Console, executor: Executor, *, until: str = STAGES[-1]) -> RunRecord:
    """Score the archive's night and publish the result; a run id that is already published is a no-op.

    Args:
        config: the settings.
        console: where progress is printed.
        executor: what does the work: a Ray cluster, or this process.
        until: the last of the `STAGES` to do. What an earlier call with this run id has done is not done again, so a
            stage can be started alone.

    Raises:
        SettingsError: ``until`` is no stage.
        PatcheadError: with the text for the terminal and the exit code. Nothing is published then, and the tables are
            as they were; embeddings and staged scores stay, so the same run id goes on where this one stopped.
    """
    if until not in STAGES:
        raise SettingsError(bad_value("until", until, f"one of {', '.join(STAGES)}"))
    config = concrete(wiring.absolute(config))
    storage = wiring.storage(config)
    record = RunRecord(config.run.run_id or new_run_id(), config)
    say(console, f"run {record.run_id}")
    preflight(config.lake.uri, storage)
    if earlier := published_settings(config.lake.uri, storage, record.run_id):
        refuse_other_run(record, earlier[0])
        remove_replaced(config.lake.uri, storage, record.run_id)  # its process may have been killed before it did
        record.finish("already published")
        return record
    refuse_trial_among_full_runs(config, storage)
    folder = RunFolder(config.lake.uri, storage, record.run_id)
    stop = Stop(record.run_id, config.run.grace_seconds, partial(say, console))
    recorded = _recorded(record, folder, storage, console)
    with (
        logs.json_logs(config.run.log_level, record.run_id),
        stop.listening(),
        recorded as held,
        _session(executor, config, folder),
        stop.again(),
        named_as_settings(),
    ):
        checks = [stop.may_go_on, held.require_unless_told]
        stages = Stages(console, checks, lines_every=config.run.progress_seconds)
        held.progress = stages.now
        night = Night(config, record, folder, stages, executor)
        words = wiring.words_of_night(config)
        for attempt in attempts(night):
            with attempt, _held(night):
                manifest = night.catalog()
                for text in thresholds_of_others(config, manifest["product"].unique().drop_null().to_pylist()):
                    stages.warn(f"warning: {text}")
                if until == "catalog":
                    return record.stopped_after(until)
                # One process needs one encoder, for its id and to embed; of a cluster's, none stays with the driver.
                with built_once() if executor.name == "inline" else nullcontext():
                    embedded = night.embedded(manifest)
                if until == "embed":
                    return record.stopped_after(until)
                spec, group_of = night.score_spec(embedded.encoder, embedded.store), embedded.group_of
                with night.stages.stage("score", sum(group.images for group in embedded.plan.scored)) as advance:
                    told, plan, pool = Scoring.of(embedded.images, embedded.plan), embedded.plan, night.scoring_pool
                    digests = embedded.digests(spec.settings)
                    done = score_groups(
                        executor, plan, group_of, spec, pool, advance=advance, told=told, digests=digests
                    )
                failed = {name: in_settings(why) for name, why in night.refused.items()} | done.failed
                note_scored(record, done.summary, failed)
                groups = len(plan.scored) + len(night.refused)
                refuse_failed_groups(record, failed, groups, config.run.max_failed_groups)
                if until == "score":
                    return record.stopped_after(until)
                explained = name(night, embedded, explain_night(night, embedded, failed))
                if words is not None:
                    from patchead.nightly.name_by_words import with_words  # open_clip

                    explained = with_words(words, night, embedded, explained)
                night.publish(embedded.manifest, explained, held.require)
    return record


@contextmanager
def _recorded(record: RunRecord, folder: RunFolder, storage: Storage, console: Console) -> Iterator[Lease]:
    """Hold the run's lease and keep ``run.json`` true around it; a failure is a row of the table of runs too.

    What another process has taken over is that one's to record.
    """
    retries = RETRIES.total
    with lease(folder, record.run_id, partial(say, console)) as held:
        folder.write_json("run.json", record.as_json())
        try:
            yield held
        except BaseException as exc:
            why = str(exc) or type(exc).__name__
            if isinstance(exc, KeyboardInterrupt):
                why = f"interrupted (SIGINT). {what_is_kept(record.run_id)}"
                say(console, why)
            record.finish("failed", why)
            logs.LOGGER.error(f"run failed: {why}")
            record.storage_retries = RETRIES.total - retries
            if held.is_ours:
                _record_failure(record, folder, storage, console)
            raise
        record.storage_retries = RETRIES.total - retries
        if held.is_ours:
            folder.write_json("run.json", record.as_json())
    if held.missed:
        say(console, f"warning: {len(held.missed)} heartbeats could not be written, e.g. {held.missed[-1]}")


@contextmanager
def _held(night: Night) -> Iterator[None]:
    """Around the work: what it took is recorded of a run that fails, too."""
    try:
        yield
    finally:
        note_held(night.record, night.stages.seconds, night.embed_pool, night.score_pool, night.meanwhile)


@contextmanager
def _session(executor: Executor, config: Config, folder: RunFolder) -> Iterator[None]:
    """What does the work, once the archive is known to hold something to do."""
    if not folder.has_manifest():
        first_look(wiring.catalog_request(config))
    with executor.session():
        yield


def _record_failure(record: RunRecord, folder: RunFolder, storage: Storage, console: Console) -> None:
    """Have SQL see that the night is missing; what cannot be written is a warning beside the error of the run."""
    try:
        record_failure(record.config.lake.uri, storage, run_rows(record))
    except PatcheadError as exc:
        say(console, f"warning: the failure could not be written to the table of runs: {exc}")
    try:
        folder.write_json("run.json", record.as_json())
    except PatcheadError as exc:
        say(console, f"warning: the failure could not be written to run.json: {exc}")

"""A night whose groups are scored is explained: the settings of the run, and what they need to know of all groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from patchead.nightly import wiring
from patchead.nightly.accepted import drift_warnings, level_of_night
from patchead.nightly.embedded_night import EmbeddedNight
from patchead.nightly.explain import Explained, ExplainSettings, explain, failed_rows
from patchead.nightly.lacking import Lacking
from patchead.nightly.night import Night
from patchead.nightly.noted import note_failed_groups
from patchead.nightly.refusals import refuse_failed_groups
from patchead.nightly.repeated import found_in
from patchead.nightly.search_shown import search_shown
from patchead.nightly.told import tell_lacking
from patchead.printed import say
from patchead.schema import FAILED


def explain_night(night: Night, embedded: EmbeddedNight, failed: Mapping[str, str]) -> Explained:
    """Rank, judge and draw; score rows of every image, regions and verdicts. ``failed``: see `score.Scored`.

    Groups that cannot be judged or drawn are told, and the others go on.

    Raises:
        TooManyFailuresError: too many cannot be.
    """
    images, encoder_id = embedded.images, embedded.encoder.encoder_id
    decoding = wiring.decode_settings(night.config, embedded.encoder.grid, night.in_hand)
    root = night.record.archive_root or night.config.archive.uri
    settings = wiring.explain_settings(night.config, night.record.run_id, encoder_id, decoding, root)
    with night.stages.stage("explain", sum(rows.num_rows for rows in embedded.groups.values())) as advance:
        settings, unread = _at_level_of_night(night, replace(settings, failed=failed), embedded)
        groups, given = embedded.groups, embedded.accepted.groups
        spec = partial(night.score_spec, embedded.encoder, embedded.store)
        search = partial(search_shown, night.executor, embedded.plan, embedded.group_of, spec)
        how = partial(explain, map_tasks=night.run_images, advance=advance)
        done = how(groups, night.folder, settings, accepted=given, search=search)
    done = replace(done, unjudged=unread | {**done.unjudged})
    _tell_failed(night, embedded, done, failed)
    for text in drift_warnings(done.verdicts):
        say(night.stages.console, f"warning: {text}")
    night.record.scoring |= found_in(done, aligned=night.config.align.enabled)
    undecoded = failed_rows(images.filter(pc.equal(images["status"], FAILED)), settings)
    return replace(done, scores=pa.concat_tables([done.scores, undecoded]))


def _tell_failed(night: Night, embedded: EmbeddedNight, done: Explained, failed: Mapping[str, str]) -> None:
    """Name and note the groups without verdict, regions or heatmaps; refuse to publish where they are too many."""
    unscored = {**failed, **done.unjudged}
    note_failed_groups(night.record, unscored)
    allowed, groups = night.config.run.max_failed_groups, len(embedded.plan.scored) + len(night.refused)
    refuse_failed_groups(night.record, {**unscored, **done.incomplete}, groups, allowed, "scored and explained")
    tell_lacking(night.stages.warn, embedded.images, {**done.unjudged, **done.incomplete})


def _at_level_of_night(
    night: Night, settings: ExplainSettings, embedded: EmbeddedNight
) -> tuple[ExplainSettings, dict[str, str]]:
    """Settle the level of the p-values where a false-discovery rule finds it from the whole night's.

    Also says why the scores of which groups could not be read for it: these have no verdict.
    """
    lacking = Lacking()
    if (rate := night.config.scoring.false_discovery) is None:
        return settings, lacking.unjudged
    judged = settings.judged(embedded.groups)
    tasks = partial(night.executor.run_tasks, failed=lambda number, exc: lacking.no_verdict(judged[number], exc))
    found = level_of_night(judged, embedded.accepted, night.folder, rate, map_tasks=tasks)
    night.record.scoring["level"] = found
    failed = {**settings.failed, **lacking.unjudged}
    judging = replace(settings.judging, level=found)
    return replace(settings, failed=failed, judging=judging), lacking.unjudged

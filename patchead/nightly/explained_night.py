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
from patchead.nightly.night import Night
from patchead.nightly.repeated import found_in
from patchead.nightly.search_shown import search_shown
from patchead.printed import say
from patchead.schema import FAILED


def explain_night(night: Night, embedded: EmbeddedNight, failed: Mapping[str, str]) -> Explained:
    """Rank, judge and draw; score rows of every image, regions and verdicts. ``failed``: see `score.Scored`."""
    images, encoder_id = embedded.images, embedded.encoder.encoder_id
    decoding = wiring.decode_settings(night.config, embedded.encoder.grid, night.in_hand)
    root = night.record.archive_root or night.config.archive.uri
    settings = wiring.explain_settings(night.config, night.record.run_id, encoder_id, decoding, root)
    with night.stages.stage("explain", sum(rows.num_rows for rows in embedded.groups.values())) as advance:
        settings = _at_level_of_night(night, replace(settings, failed=failed), embedded)
        groups, given = embedded.groups, embedded.accepted.groups
        spec = partial(night.score_spec, embedded.encoder, embedded.store)
        search = partial(search_shown, night.executor, embedded.plan, embedded.group_of, spec)
        how = partial(explain, map_tasks=night.run_images, advance=advance)
        done = how(groups, night.folder, settings, accepted=given, search=search)
    for text in drift_warnings(done.verdicts):
        say(night.stages.console, f"warning: {text}")
    night.record.scoring |= found_in(done, aligned=night.config.align.enabled)
    unread = failed_rows(images.filter(pc.equal(images["status"], FAILED)), settings)
    return replace(done, scores=pa.concat_tables([done.scores, unread]))


def _at_level_of_night(night: Night, settings: ExplainSettings, embedded: EmbeddedNight) -> ExplainSettings:
    """Settle the level of the p-values where a false-discovery rule finds it from the whole night's."""
    if (rate := night.config.scoring.false_discovery) is None:
        return settings
    judged = settings.judged(embedded.groups)
    found = level_of_night(judged, embedded.accepted, night.folder, rate, map_tasks=night.executor.run_tasks)
    night.record.scoring["level"] = found
    return replace(settings, judging=replace(settings.judging, level=found))

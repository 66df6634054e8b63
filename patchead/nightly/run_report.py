"""What a person sees at the end of a run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from patchead.archive.left_out import LeftOut
from patchead.lake.tables import table_uri
from patchead.nightly.repeated import repeat_line
from patchead.nightly.run_record import RunRecord
from patchead.printed import add_cells, say, tell


def print_record(record: RunRecord, console: Console) -> None:
    """Print counts, seconds per stage, and where the results are."""
    lake = record.config.lake.uri
    if record.state == "already published":
        say(console, f"run {record.run_id} is already published in {lake}: nothing to do.")
        return
    say(console, f"run {record.run_id}: {record.state}")
    stages = Table("stage", "seconds")
    for name, seconds in record.seconds.items():
        add_cells(stages, [name, f"{seconds:.1f}"])
    console.print(stages)
    if record.state.startswith("stopped"):
        tell(
            console,
            f"{record.images} images found, {record.embedded} embedded, {record.reused} reused, {record.failed} "
            f"failed. Nothing was published; --run-id {record.run_id} goes on from here.",
        )
        _print_ignored(record, console)
        return
    tell(
        console,
        f"found {record.images} images = {record.ok} scored + {record.failed} failed + {record.skipped} skipped, in "
        f"{record.groups} groups; {record.anomalous} anomalous. {record.embedded} embedded, {record.reused} reused.",
    )
    if record.error:
        tell(console, f"warning: {record.error}; --retry-failed tries them again")
    _print_ignored(record, console)
    if record.config.align.enabled:
        left = record.scoring["not_aligned"]
        say(console, f"{record.ok - left} of {record.ok} images aligned; the others were compared as they are.")
    for group_id, repeats in record.scoring.get("repeats", {}).items():
        for repeat in repeats:
            say(console, repeat_line(group_id, repeat))
    say(console, "\n".join(f"{name}: {table_uri(lake, name)}" for name in ("scores", "regions", "verdicts")))


def _print_ignored(record: RunRecord, console: Console) -> None:
    for line in LeftOut.of_json(record.unreadable).lines():
        say(console, f"warning: {line}")
    if not record.ignored_files:
        return
    say(console, f"{record.ignored_files} other files ignored:")
    for line in LeftOut.of_json(record.ignored).lines():
        say(console, f"  {line}")

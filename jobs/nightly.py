"""The nightly job: `patchead score` as a file, for `ray job submit -- python jobs/nightly.py --config …`."""

from __future__ import annotations

import typer

from patchead.cli import run_command, score

if __name__ == "__main__":
    job = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    job.command()(score)
    run_command(job)

"""The evaluation: `patchead evaluate` as a file, e.g. for `ray job submit -- python jobs/evaluate.py --dataset …`."""

from __future__ import annotations

import typer

from patchead.cli import evaluate, run_command

if __name__ == "__main__":
    job = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    job.command()(evaluate)
    run_command(job)

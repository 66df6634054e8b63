"""The `patchead` command: score, plan, calibrate, query, evaluate, encoders, settings; `commands` has the others.

Exit codes of `score`: 0 every image scored; 2 bad settings; 3 published, but some images or groups failed; 4 not
published, too many images or groups failed; 5 asked to end by SIGTERM, 130 by SIGINT (the same run id goes on); 6
published, but the report of run.report could not be written; 1 anything else. With --until, 0 also where some images
failed so far: nothing is published then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import patchead
from patchead.commands import (
    accept,
    cluster,
    feedback,
    forecast,
    gc,
    listings,
    name,
    query,
    report,
    runs,
    sql_setup,
    submit,
    watch,
)
from patchead.commands.folder import of_folder, with_a_night, with_weights_at_hand
from patchead.commands.machine import JsonOption, QuietOption, print_json, told_on
from patchead.commands.options import (
    ArchiveOption,
    ConfigOption,
    LakeOption,
    LimitOption,
    NightOption,
    ProductOption,
    SetOption,
    err,
    out,
    require_one_night,
    settings_of,
    short_options,
)
from patchead.commands.outside import errors_from_outside
from patchead.errors import PUBLISHED_WITH_FAILURES, PatcheadError
from patchead.printed import say, tell
from patchead.settings.load import UNUSED_PLACES, load_config
from patchead.settings.model import Config

if TYPE_CHECKING:
    from patchead.runtime.executor import Executor

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__, rich_markup_mode="markdown")


def _print_version(wanted: bool) -> None:
    if wanted:
        say(out, f"patchead {patchead.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def score(
    folder: Annotated[str | None, typer.Argument(help="A folder of photos as it is; names --archive.")] = None,
    *,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    lake: LakeOption = None,
    night: NightOption = None,
    product: ProductOption = None,
    limit: LimitOption = None,
    run_id: Annotated[str | None, typer.Option(help="Name of the run; publishing a name twice is a no-op.")] = None,
    overrides: SetOption = None,
    until: Annotated[str, typer.Option(help="Last stage: catalog, embed, score or publish.")] = "publish",
    local: Annotated[bool, typer.Option("--local", help="Work in this process; no Ray is started.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing, start nothing.")] = False,
    parallel: Annotated[int, typer.Option(min=1, help="Nights of a range FIRST..LAST that are run at once.")] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Of --night, products with failures.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score a night of the archive and publish the tables scores, regions and runs to the lake.

    `patchead score ./photos` is enough for a folder: its name is the product, the date of its newest file the night,
    and ./patchead-lake the lake, where no setting says otherwise.

    --night 2026-01-01..2026-03-31 runs every night of the archive in between that has no published run, each under the
    run id nightly-DATE (with --run-id X, X-DATE, whether or not another run has published it); one that fails stops no
    other, and the same command goes on.

    Exit codes: 0 every image scored, 2 bad settings, 3 published but some images failed or groups could not be scored,
    4 not published because too many did (run.max_failed_fraction, run.max_failed_groups), 5 asked to end (SIGTERM), 130
    interrupted (SIGINT), 6 published but without its report (run.report), 1 anything else. A run that ends with --until
    has published nothing: 0. After 5, 6 and 130 the same --run-id goes on.

    --json prints what is in run.json; of a range of nights a list with one object for each that was run; of --dry-run
    the plan.
    """
    told = told_on(quiet=quiet, as_json=as_json)
    nights = night if night is not None and ".." in night else None
    given = {"--dry-run": dry_run, "--retry-failed": retry_failed, "FOLDER": folder, "--parallel": parallel > 1}
    require_one_night(nights, [name for name, value in given.items() if value])
    chosen = short_options(archive, lake, None if nights else night, product, limit) | {"run.run_id": run_id}
    if folder is not None:
        chosen |= of_folder(folder, archive, lake)
    settings = settings_of(config, overrides, chosen)
    if folder is not None:
        settings = with_weights_at_hand(with_a_night(settings, told), told)
    if retry_failed:
        from patchead.nightly.retry_failed import only_failed

        if (narrowed := only_failed(settings, told)) is None:
            if as_json:
                print_json({"state": "nothing to do"})
            return
        settings = narrowed
    if dry_run:
        from patchead.forecast.plan_report import print_plan

        planned = print_plan(settings, told)
        if as_json:
            print_json(planned)
        return
    report.require_what_it_needs(settings)
    if nights:
        from patchead.commands.backfill import score_nights

        executor = _executor(settings, local=local)
        score_nights(settings, nights, told, executor, local=local, parallel=parallel, until=until, as_json=as_json)
        return
    from patchead.nightly.run import run_night
    from patchead.nightly.run_report import print_record

    record = run_night(settings, told, _executor(settings, local=local), until=until)
    print_record(record, told)
    if as_json:
        print_json(record.as_json())
    report.report_of_run(record, told)
    if record.incomplete and record.state == "published":
        raise typer.Exit(PUBLISHED_WITH_FAILURES)


@app.command()
def evaluate(
    *,
    dataset: Annotated[
        str, typer.Option(help="folder or csv (your own); mvtec, visa, mpdd, btad, ksdd, dagm, real-iad, elpv …")
    ],
    root: Annotated[Path | None, typer.Option(help="Where the dataset was unpacked; not needed for elpv.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    class_name: Annotated[list[str] | None, typer.Option("--class", help="This class only; may be repeated.")] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="SECTION.KEY=A,B,C", help="Evaluate each value; several give every combination."),
    ] = None,
    plus: Annotated[bool, typer.Option("--plus", help="PatchEAD+: mask and alignment as the paper has them.")] = False,
    seeds: Annotated[int, typer.Option(help="Draws of the prompts in few_shot mode: mean and deviation.")] = 3,
    map_side: Annotated[int, typer.Option(help="Side in pixels of the maps that pixel metrics compare.")] = 256,
    output: Annotated[Path, typer.Option(help="Folder of the tables and of finished parts.")] = Path("evaluation"),
    name: Annotated[str | None, typer.Option(help="Of the tables; default: the dataset's.")] = None,
) -> None:
    """Score a labelled dataset: image AUROC and AP, pixel AUROC, PRO, F1-max per class, as text, Markdown and Parquet.

    What is done already is not done again: a stopped evaluation goes on at the class where it stopped.
    """
    from patchead.evaluation.command import run_evaluation

    run_evaluation(
        lambda more: load_config(config, [*(overrides or []), *more], UNUSED_PLACES, unused_ok=True),
        out,
        dataset=dataset,
        root=root,
        output=output,
        classes=class_name or (),
        sweeps=sweep or (),
        plus=plus,
        seeds=seeds,
        map_side=map_side,
        name=name,
    )


_OF_RUNS = (query.query, sql_setup.sql_setup, report.report, runs.runs, submit.submit, watch.watch, gc.gc)
_OF_PEOPLE = (accept.accept, accept.accepted, feedback.feedback, feedback.thresholds, name.name)
for command in (forecast.plan, forecast.calibrate, *_OF_RUNS, *_OF_PEOPLE, listings.encoders, listings.settings):
    app.command()(command)
app.add_typer(cluster.app, name="cluster")


def _executor(settings: Config, *, local: bool) -> Executor:
    """This process, or the cluster of RAY_ADDRESS, or a Ray that is started here."""
    if local:
        from patchead.runtime.inline_executor import InlineExecutor

        return InlineExecutor()
    from patchead.runtime.ray_executor import RayExecutor

    return RayExecutor(settings.resources.local_cpus)


def run_command(command: Callable[[], Any]) -> None:
    """Run a command; an error this package raises on purpose ends it with one message and its exit code."""
    try:
        command()
    except PatcheadError as exc:
        tell(err, f"error: {exc}", style="red")
        sys.exit(exc.exit_code)
    except errors_from_outside() as exc:
        say(err, f"error: {type(exc).__name__}: {' '.join(str(exc).split())[:1000]}", style="red")
        sys.exit(PatcheadError.exit_code)


@lru_cache(maxsize=1)
def whole_command() -> Any:
    """Make the command with all its subcommands and options, once in a process."""
    return typer.main.get_command(app)


def main() -> None:
    """Entry point of the console script."""
    run_command(whole_command())

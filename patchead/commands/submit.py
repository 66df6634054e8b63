"""`patchead submit`: a night as a job of a Ray cluster; its id is the run's, so that a retry is the same run."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

import patchead
from patchead.commands.options import (
    ArchiveOption,
    ConfigOption,
    LakeOption,
    LimitOption,
    NightOption,
    ProductOption,
    SetOption,
    finite,
    out,
    settings_of,
    short_options,
)
from patchead.errors import SettingsError, bad_value
from patchead.printed import say
from patchead.redaction import redacted_values
from patchead.settings.model import Config
from patchead.settings.places import NIGHTLY

_SETTINGS = "settings.yaml"


def submit(
    *,
    address: Annotated[str, typer.Option(help="Of the job server: http://HEAD:8265.")],
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    lake: LakeOption = None,
    night: NightOption = None,
    product: ProductOption = None,
    limit: LimitOption = None,
    run_id: Annotated[str | None, typer.Option(help="Default: nightly-NIGHT; also the job's submission id.")] = None,
    overrides: SetOption = None,
    code: Annotated[bool, typer.Option("--code", help="Send this package along, in place of the cluster's.")] = False,
    pip: Annotated[list[str] | None, typer.Option(help="Install on the workers first; may be repeated.")] = None,
    entrypoint_cpus: Annotated[
        float, typer.Option(min=0, callback=finite, help="CPUs that the driver reserves.")
    ] = 0.0,
    entrypoint_memory: Annotated[int, typer.Option(min=0, help="Bytes that the driver reserves.")] = 0,
    entrypoint_resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="Custom resource of the driver; may be repeated.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="With the cluster's token; else as Ray finds it.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print its output; end with its exit code.")] = False,
) -> None:
    """Submit one night to a Ray cluster. The settings are checked here and travel with the job; keys do not.

    The run's id is the submission id: the same command again follows the job that is under way, tries one that failed
    again under the same run id, and does nothing for one that has succeeded. With --follow the exit code is the job's.
    """
    from patchead.runtime.submit import PUBLISHED, JobRequest, Jobs

    chosen = short_options(archive, lake, night, product, limit) | {"run.run_id": run_id}
    settings = _with_id(settings_of(config, overrides, chosen))
    _require_shared(settings)
    resources = dict(map(_resource, entrypoint_resource or []))
    name = str(settings.run.run_id)
    jobs = Jobs(address, token_file)
    with tempfile.TemporaryDirectory(prefix="patchead-") as folder:
        environment: dict[str, Any] = {"working_dir": _packed(Path(folder), settings, code=code)}
        if pip:
            environment["pip"] = pip
        command = ["python", "-m", "patchead", "score", "--config", _SETTINGS]
        request = JobRequest(
            submission_id=name,
            entrypoint=shlex.join(command),
            runtime_env=environment,
            metadata=_metadata(settings),
            num_cpus=entrypoint_cpus,
            memory=entrypoint_memory,
            resources=resources,
        )
        done = jobs.submit(request)
    say(out, f"run {name}: {done}")
    if done == PUBLISHED:
        return
    if not follow:
        say(out, f"patchead runs --lake {settings.lake.uri} --follow {name}   # says where it is")
        return
    if code_of_job := jobs.follow(name, lambda text: say(out, text)):
        raise typer.Exit(code_of_job)


def _with_id(settings: Config) -> Config:
    if settings.run.run_id is not None:
        return settings
    if settings.archive.night is None:
        raise SettingsError("a submitted run needs an id, so that a retry is the same run: --run-id, or --night.")
    named = settings.run.model_copy(update={"run_id": f"{NIGHTLY}-{settings.archive.night}"})
    return settings.model_copy(update={"run": named})


def _require_shared(settings: Config) -> None:
    """Refuse relative folders: the job's own folder is another one than this."""
    for name, uri in (("archive.uri", settings.archive.uri), ("lake.uri", settings.lake.uri)):
        if "://" not in uri and not Path(uri).is_absolute():
            raise SettingsError(bad_value(name, uri, "an address, or an absolute path that all nodes see"))


def _packed(folder: Path, settings: Config, *, code: bool) -> str:
    """Put what travels into a folder: the settings, and the package where it is asked for."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    (folder / _SETTINGS).write_text(text, encoding="utf-8")
    if code:
        source = Path(patchead.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return str(folder)


def _metadata(settings: Config) -> dict[str, str]:
    """What the dashboard shows of the job; all of it text."""
    facts = {
        "run_id": settings.run.run_id,
        "night": settings.archive.night,
        "archive": settings.archive.uri,
        "lake": settings.lake.uri,
        "products": " ".join(settings.archive.products) or "all",
        "encoder": settings.encoder.name,
        "patchead": patchead.__version__,
        "progress": f"patchead runs --lake {settings.lake.uri} --follow {settings.run.run_id}",
    }
    return redacted_values({name: str(value) for name, value in facts.items() if value is not None})


def _resource(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        return name, float(amount)
    except ValueError as exc:
        raise SettingsError(bad_value("--entrypoint-resource", text, "NAME=AMOUNT, e.g. head=1")) from exc

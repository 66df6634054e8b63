"""`patchead cluster render`: the files of a cluster, from its values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchead.commands.cluster_render import render as rendered
from patchead.commands.cluster_values import read_values
from patchead.commands.options import out
from patchead.printed import say

app = typer.Typer(no_args_is_help=True, help="Files of a cluster.")


@app.callback()
def _several() -> None:
    """Keep `render` a command of its own."""


@app.command()
def render(
    folder: Annotated[Path, typer.Argument(help="Where the files go; it is made.")],
    values: Annotated[Path | None, typer.Option("--values", "-f", help="YAML; default: the built-in values.")] = None,
    templates: Annotated[Path, typer.Option(help="The folder cluster/ of the repository.")] = Path("cluster"),
) -> None:
    """Write the Kubernetes files and the AWS YAML of one cluster from its values.

    cluster/values.yaml lists every value with its default and meaning; `kubectl apply -f` takes cronjob.yaml,
    extras.yaml and configmap.yaml.
    """
    files = rendered(read_values(values), templates)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        say(out, str(folder / name))

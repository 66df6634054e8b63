"""`patchead watch`: what Prometheus sees of a lake between the runs, and when no cluster is there."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console

from patchead.commands.options import OneLakeOption, SetOption, finite, storage_of
from patchead.errors import LakeError
from patchead.printed import say


def watch(
    lake: OneLakeOption,
    port: Annotated[int, typer.Option(help="Of http://HOST:PORT/metrics.")] = 9108,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    every: Annotated[
        float, typer.Option(min=0.1, max=100_000, callback=finite, help="Seconds between two looks at the runs.")
    ] = 30.0,
    bytes_every: Annotated[
        float, typer.Option(min=1, callback=finite, help="Seconds between two looks at all files.")
    ] = 3600.0,
    overrides: SetOption = None,
) -> None:
    """Serve Prometheus what there is to know of a lake: runs by state, heartbeats, the newest night, bytes.

    It reads only, and goes on until it is ended; while the lake cannot be read, patchead_lake_up is 0.
    """
    from prometheus_client import start_http_server

    from patchead.commands.watched import Watched

    seen, console = Watched(lake, storage_of(lake, overrides)), Console(soft_wrap=True)
    server, thread = start_http_server(port, addr=host, registry=seen.registry)
    say(console, f"watching {lake} on http://{host}:{server.server_port}/metrics")
    try:
        measured = -bytes_every
        while thread.is_alive():
            now = time.monotonic()
            try:
                seen.look(with_bytes=(due := now - measured >= bytes_every))
                measured = now if due else measured
            except LakeError as exc:
                say(console, f"warning: {exc}")
            time.sleep(every)
    finally:
        server.shutdown()

"""A night in a process that gets a signal at a chosen point.

``CODE`` with FOLDER and SCENARIO scores FOLDER/archive to FOLDER/SCENARIO/lake under the run id "night".
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patchead import cli
from patchead.lake import publication
from patchead.lake.embeddings import EmbeddingStore
from tests.helpers.e2e_tools import SMALL_OPTIONS

CODE = "import sys; from tests.helpers.signalled import main; main(*sys.argv[1:])"


def options(folder: Path, scenario: str) -> list[str]:
    """The command of a scenario; the same one goes on with its night."""
    places = ["--archive", str(folder / "archive"), "--lake", str(folder / scenario / "lake"), "--run-id", "night"]
    more = ["--set=lake.images_per_file=2", "--set=run.grace_seconds=" + ("0.3" if scenario == "stuck" else "600")]
    return ["score", "--local", *SMALL_OPTIONS, *more, *places]


def main(folder: str, scenario: str) -> None:
    Path(folder, scenario).mkdir()
    _SCENARIOS[scenario]()
    sys.argv = ["patchead", *options(Path(folder), scenario)]
    cli.main()


def _in_the_second_unit(act: Callable[[], None]) -> None:
    write, calls = EmbeddingStore.write_unit, []

    def written(self: EmbeddingStore, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            act()
        return write(self, *arguments)

    EmbeddingStore.write_unit = written  # type: ignore[method-assign]


def _signal(which: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), which)


def _stuck() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3600)


def _while_it_publishes() -> None:
    commit, calls = publication.committed, []

    def committed(change: Callable[[], None], uri: str) -> None:
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        commit(change, uri)

    publication.committed = committed


_SCENARIOS: dict[str, Callable[[], None]] = {
    "sigterm": lambda: _in_the_second_unit(_signal(signal.SIGTERM)),
    "sigint": lambda: _in_the_second_unit(_signal(signal.SIGINT)),
    "stuck": lambda: _in_the_second_unit(_stuck),
    "publishing": _while_it_publishes,
}

"""Processes that publish a run of two images and end, or stop, themselves after a chosen commit.

``CODE`` with RUN_ID SIGNAL LAKE:COMMITS … publishes to each lake in its own process, which
sends itself SIGNAL once so many commits are done; the exit status of each is printed. With SIGSTOP it is one lake, and
this process publishes to it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from patchead.errors import PatcheadError
from patchead.lake import publication
from patchead.storage import Storage
from tests.helpers.sample_rows import NIGHT, Rows, group, rows_of

CODE = "import sys; from tests.helpers.publishers import main; main(*sys.argv[1:])"


def night_of(run_id: str) -> Rows:
    """Two images of one group, both with a region."""
    return rows_of(run_id, [group(NIGHT, "x", "a", "b")])


def main(run_id: str, name: str, *lakes: str) -> None:
    sent = signal.Signals[name]
    for place in lakes:
        lake, _, commits = place.rpartition(":")
        if sent == signal.SIGSTOP:
            _publish(lake, run_id, int(commits), sent)
            return
        if not (pid := os.fork()):
            _publish(lake, run_id, int(commits), sent)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _publish(lake: str, run_id: str, commits: int, sent: signal.Signals) -> None:
    left, commit = commits, publication.committed

    def counted(change: Callable[[], None], uri: str) -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), sent)
        left -= 1
        commit(change, uri)

    publication.committed = counted
    try:
        publication.publish(lake, Storage(), *night_of(run_id).tables)
    except PatcheadError as exc:
        sys.exit(f"error: {exc}")

"""Lines of Ray's that say nothing to who runs a night: they go to a log in place of the terminal.

What Ray's Python writes goes to the logger of this package (`run.log_level`); what its C++ writes stays in Ray's own
log of the driver, ``logs/python-core-driver-….log`` of the session's folder.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from patchead.runtime.data_callbacks import ExecutionCallback
from patchead.runtime.logs import LOGGER

_OF_PYTHON: Mapping[str, tuple[str, ...]] = {
    "ray._private.authentication.authentication_token_setup": ("Token authentication is enabled",),
    "ray._private.worker": ("Started a local Ray instance",),
    "ray.data._internal.progress": ("Progress bars disabled",),
    # Of every night on a GPU: its actors take a little of a CPU, and a gigabyte of a node's memory each.
    "ray.data._internal.execution.operators.map_operator": ("Specifying both num_cpus and num_gpus",),
    "ray.data._internal.issue_detection.issue_detector_manager": ("Operator '", "Found "),
}
"""How the lines begin, by the logger that writes them; all others of these loggers stay."""
_OF_C = b"has constructor arguments in the object store and max_restarts > 0"
"""Of every pool of Ray Data; what it warns of cannot be: the driver holds these objects as long as the pool lives."""
_STDERR = 2


def _to_the_log(record: logging.LogRecord) -> bool:
    message = record.getMessage().strip()
    if not message.startswith(_OF_PYTHON[record.name]):
        return True
    LOGGER.log(record.levelno, f"Ray: {message}")
    return False


@contextmanager
def known_lines_in_the_log() -> Iterator[None]:
    """Send the known lines of Ray's Python to the log while the block runs."""
    loggers = [logging.getLogger(name) for name in _OF_PYTHON]
    for logger in loggers:
        logger.addFilter(_to_the_log)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_to_the_log)


@contextmanager
def started_quietly() -> Iterator[None]:
    """Hold back what this process writes to stderr while Ray Data makes its actors, and let go of all but the known.

    It ends with the execution's first step, or with the block: what is held back are milliseconds.
    """
    with tempfile.TemporaryFile() as held, ExitStack() as ended:
        sys.stderr.flush()
        stderr = os.dup(_STDERR)
        os.dup2(held.fileno(), _STDERR)

        def let_go() -> None:
            sys.stderr.flush()
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if _OF_C not in line:
                    os.write(_STDERR, line)

        ended.callback(let_go)
        WhenStarted.waiting.append(ended.close)
        try:
            yield
        finally:
            WhenStarted.waiting.clear()


class WhenStarted(ExecutionCallback):
    """Tell that an execution of Ray Data has made its actors: it calls this in the driver."""

    waiting: ClassVar[list[Callable[[], None]]] = []
    """What is called then, once."""

    def before_execution_starts(self, executor: Any) -> None:
        """Tell it."""
        while self.waiting:
            self.waiting.pop()()

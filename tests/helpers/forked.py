"""Real processes that need not import anything: each is forked from one that has imported what a night needs.

:func:`main` is that one; it obeys lines of JSON. :class:`Forkserver` starts it and asks it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.helpers.warm_python import python

ROOT = Path(__file__).parents[2]
STOPPED = "stopped"


class Forked:
    """A process that runs; its standard output and error go to files."""

    def __init__(self, server: Forkserver, pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server, self._out, self._err = server, out, err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it lives."""
        self._looked(os.WNOHANG)
        return self.returncode

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code, negative for a signal."""
        self._looked(0)
        assert self.returncode is not None
        return self.returncode

    def wait_until_stopped(self) -> None:
        """Wait until it has stopped itself."""
        assert self._looked(os.WUNTRACED) == STOPPED, self.out + self.err

    def has_stopped(self) -> bool:
        """Say whether it has stopped itself since this was asked last."""
        return self._looked(os.WUNTRACED | os.WNOHANG) == STOPPED

    def send_signal(self, which: signal.Signals) -> None:
        os.kill(self.pid, which)

    def _looked(self, options: int) -> int | str | None:
        if self.returncode is None:
            found = self._server.ask(wait=self.pid, options=options)
            if found == STOPPED:
                return STOPPED
            self.returncode = found
        return self.returncode


class Forkserver:
    """``with Forkserver(folder) as server:`` has one process import everything, and fork on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, 0

    def __enter__(self) -> Forkserver:
        command = [*python(), "-c", "from tests.helpers.forked import main; main()"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    @contextmanager
    def started(self, code: str, *arguments: str, env: Mapping[str, str]) -> Iterator[Forked]:
        """Run ``python -c CODE ARGUMENTS`` in a process of its own, which is killed if it lives at the end."""
        self._count += 1
        out, err = (self.folder / f"{self._count}.{name}" for name in ("out", "err"))
        pid = self.ask(code=code, arguments=arguments, env=dict(env), out=str(out), err=str(err))
        work = Forked(self, pid, out, err)
        try:
            yield work
        finally:
            if work.poll() is None:
                work.send_signal(signal.SIGKILL)
                work.wait()

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return json.loads(line)


def _answer(request: dict[str, Any]) -> Any:
    if "code" in request:
        return os.fork() or _run(**request)
    pid, status = os.waitpid(request["wait"], request["options"])
    if os.WIFSTOPPED(status):
        return STOPPED
    return os.waitstatus_to_exitcode(status) if pid else None


def _run(code: str, arguments: list[str], env: dict[str, str], out: str, err: str) -> None:
    """Be ``python -c CODE ARGUMENTS``, to the end of this process: also its errors end it as they end Python."""
    for number, place in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(place, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell
    exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
    sys.exit()


def main() -> None:
    import patchead.cli
    import patchead.lake.publication
    import patchead.lake.query
    import patchead.nightly.run  # noqa: F401 - all of them so that no child has to

    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)

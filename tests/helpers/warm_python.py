"""A Python that need not import: each is forked from one process that has imported what the tests need.

``python warm_python.py SOCKET ... -c CODE ARGUMENTS`` is ``python -c CODE ARGUMENTS``: with its own standard streams,
working directory and environment, from its first line to its exit code. :class:`WarmPython` starts the process that it
is forked from, and :func:`python` says how to start one.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, TracebackType

ROOT = Path(__file__).parents[2]
STREAMS = (0, 1, 2)
LIBRARIES = [
    *("cluster.kubernetes.launch", "hypothesis.extra.numpy", "onnx", "open_clip", "pandas", "playwright.sync_api"),
    *("pyarrow.dataset", "ray.data", "ray.job_submission", "skimage.data", "sklearn.metrics"),
]
"""What test modules import, and the package when needed; without duckdb and onnxruntime: see `_threads`."""
VARIABLE = "PATCHEAD_WARM_PYTHON"


def python() -> list[str]:
    """How to start a Python that need not import, or any Python where there is no process to fork it from."""
    place = os.environ.get(VARIABLE)
    return [sys.executable, "-I", "-S", __file__, place] if place else [sys.executable]


class WarmPython:
    """``with WarmPython(folder):`` :func:`python` starts one that need not import, here and in all that it starts."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "warm"

    def __enter__(self) -> WarmPython:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.place))
            listener.listen()
            command = [sys.executable, "-m", "tests.helpers.warm_python", str(listener.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
        os.environ[VARIABLE] = str(self.place)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        del os.environ[VARIABLE]
        self._process.communicate()
        assert self._process.returncode == 0


def ask(place: str, code: str, *arguments: str) -> int:
    """Have the code run in a fork, with the streams of this process; return its exit code when it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fork hears it too
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place)
        request = {"code": code, "arguments": arguments, "folder": str(Path.cwd()), "env": dict(os.environ)}
        socket.send_fds(connection, [b"."], STREAMS)
        connection.sendall(json.dumps(request).encode() + b"\n")
        for stream in STREAMS:
            os.close(stream)  # who reads what the fork writes learns that it has ended
        status = connection.recv(1)
    return status[0] if status else 1


def serve(listener: socket.socket) -> None:
    """Import what the tests need, then fork for each that asks, until the standard input ends."""
    warm = _import()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave nothing to wait for
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection, warm=warm)
            return
        connection.close()


def _import() -> bool:
    """Whether forks of this process can be used; else each starts a Python anew, in the same way."""
    gc.disable()
    for name in LIBRARIES:
        importlib.import_module(name)
    for module in pkgutil.walk_packages([str(ROOT / "patchead")], "patchead."):
        if module.name != "patchead.__main__":
            importlib.import_module(module.name)
    if started := _threads():
        print(f"tests start Pythons anew: forks have no such threads, and wait for them: {started}", file=sys.stderr)
    return not started


def _threads() -> list[str]:
    """Names of the threads that libraries have started, but for jemalloc's, which starts anew in a fork."""
    others = (task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid()))
    return [name for task in others if (name := (task / "comm").read_text().strip()) != "jemalloc_bg_thd"]


def _answer(connection: socket.socket, *, warm: bool) -> None:
    """Run what is asked for in another fork, and wait for it: its code is the answer."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, *_ = socket.recv_fds(connection, 1, len(STREAMS))
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    if pid := os.fork():
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.send(bytes([code if code >= 0 else 128 - code]))
        os._exit(0)
    connection.close()
    for stream, number in zip(streams, STREAMS, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    _run(**request, warm=warm)


def _run(code: str, arguments: list[str], folder: str, env: dict[str, str], *, warm: bool) -> None:
    os.chdir(folder)
    if not warm:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execve(sys.executable, [sys.executable, "-c", code, *arguments], env)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(stream, "w" if stream else "r", 1) for stream in STREAMS)
    sys.argv = ["-c", *arguments]
    sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(code, "<warm>", "exec"), vars(sys.modules["__main__"]))


if __name__ == "__main__":
    if "-c" in sys.argv:
        sys.exit(ask(sys.argv[1], *sys.argv[sys.argv.index("-c") + 1 :]))
    with socket.socket(fileno=int(sys.argv[1])) as _listener:
        serve(_listener)

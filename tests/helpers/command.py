"""The command `patchead` in this process: what it prints and its exit code, without importing the libraries again."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest import mock

from patchead.cli import main


class Ended(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str


def patchead(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """``patchead ARGUMENTS`` from its console script on; ``env`` is added to this process's environment."""
    out, err, code = io.StringIO(), io.StringIO(), None
    with (
        mock.patch("sys.argv", ["patchead", *arguments]),
        mock.patch.dict(os.environ, {"COLUMNS": "200", **(env or {})}),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            code = left.code
    return Ended(int(code or 0), out.getvalue(), err.getvalue())

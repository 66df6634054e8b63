"""Polars in a process of its own.

Once it has read from S3, a thread of Polars asks for a variable of the environment every few milliseconds, as long as
its process lives. The C library has no lock between that and a test that sets a variable: the process ends with a
segmentation fault, in whichever test happens to run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

_READ = """
import json, sys
import polars as pl
uri, options, where, file = json.loads(sys.stdin.read())
scan = pl.scan_delta(uri, storage_options=options)
for name, value in where.items():
    scan = scan.filter(pl.col(name) == value)
scan.collect().write_ipc(file, compat_level=pl.CompatLevel.oldest())
"""


def read_delta(folder: Path, uri: str, options: dict[str, str], **where: Any) -> pa.Table:
    """Read the rows of a Delta table whose columns have the values of ``where`` with Polars; ``folder`` is scratch."""
    file = folder / "polars.arrow"
    given = json.dumps([uri, options, where, str(file)])
    subprocess.run([sys.executable, "-c", _READ], input=given, text=True, check=True)
    return pa.ipc.open_file(file).read_all()

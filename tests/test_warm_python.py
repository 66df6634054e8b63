"""What a Python does that is forked from one that has imported everything, as the suite's workers are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.warm_python import python

CODE = """
import os, sys
print(sys.stdin.read(), os.getcwd(), os.environ["OWN"], __name__, sys.argv)
print("to whom it concerns", file=sys.stderr)
"""


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("", 0), ("raise ValueError", 1)])
def test_it_is_like_any_python(end: str, code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [*python(), "-c", CODE + end, "-c", "two words"],
        input="given",
        cwd=tmp_path,
        env=os.environ | {"OWN": "one"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"given {tmp_path} one __main__ ['-c', '-c', 'two words']\n"
    assert done.stderr.startswith("to whom it concerns\n")
    assert ("ValueError" in done.stderr) == (code == 1)
    assert done.returncode == code

"""How far it is from the command to the matrix multiplication."""

from __future__ import annotations

import frames
import pytest

INVENTED = """
from threading import Thread
import torch

def outside():
    thread = Thread(target=inside)
    thread.start()
    thread.join()

def inside():
    torch.mm(torch.ones(2, 2), torch.ones(2, 2))
"""


# Row-stationary, a whole group is taken in query blocks; in pieces it is as far as symmetric.
@pytest.mark.parametrize(("schedule", "most"), [("auto", 8), ("symmetric", 8), ("row_stationary", 9)])
def test_few_functions_stand_between_the_command_and_the_matrix_multiplication(schedule: str, most: int) -> None:
    paths = frames.night([f"--set=scoring.schedule={schedule}", "--set=scoring.precision=fp32"])
    assert paths
    for path in paths:
        assert path[0].startswith("patchead/cli.py:")
        assert path[-1].startswith("patchead/scoring/")
        assert len(path) <= most, "\n".join(path)


def test_a_thread_goes_on_where_it_was_started() -> None:
    names: dict[str, object] = {}
    exec(compile(INVENTED, str(frames.PACKAGE / "invented.py"), "exec"), names)
    with frames.watched() as paths:
        names["outside"]()  # type: ignore[operator]
    assert [frame.split()[1] for frame in paths[0]] == ["outside", "inside"]

"""Errors of the workers: as themselves, or as one clear line, whatever Ray has wrapped around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from ray.exceptions import RayError, RayTaskError

from patchead.errors import PatcheadError, WorkerError
from patchead.runtime.ray_folder import ROOM, without_room

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r'File "(?:[^"]*/)?(patchead/[^"]+)", line (\d+)')
_LONGEST = 500
_ADVICE = ("Failed to apply UDF transform", "To change retry attempts")
_REMEDY = "Run again under the same run id: what was finished is kept."


@contextmanager
def worker_errors(work: str = "a worker") -> Iterator[None]:
    """Raise a `PatcheadError` of a worker as itself, and anything else of it as one `WorkerError`, without a traceback.

    ``work`` names what failed. What it was made of stays its cause, for whoever debugs.
    """
    try:
        yield
    except RayError as exc:
        raise told(exc, work) from exc


def told(error: BaseException, work: str = "a worker") -> PatcheadError:
    """Find what went wrong inside of Ray's wrappers, and say it in one line."""
    chain = list(_inside(error))
    for inner in chain:
        if isinstance(inner, PatcheadError):
            # Ray's cause derives from both classes; only the plain one has the plain text.
            return _plain(inner)
    # Ray's own come last: those of Ray Data say nothing, and one that stands for what cannot travel has it in its text.
    spoken = [each for each in chain if not _is_rays(each)] + [each for each in reversed(chain) if str(each).strip()]
    inner = [*spoken, error][0]
    if _is_rays(inner) and (without := without_room()):  # a process that cannot open its logs dies as it starts
        return WorkerError(f"{without}, and {work} failed: {_kind(inner)}. {ROOM}")
    place = next((found for each in chain if (found := _place(each))), "")
    return WorkerError(f"{work} failed{place}: {_kind(inner)}: {one_line(str(inner))} {_REMEDY}")


def one_line(text: str) -> str:
    """Make one line of a text: no colours, no traceback, not longer than 500 characters."""
    lines = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]
    if any(line.startswith(("Traceback", 'File "')) for line in lines):
        lines = lines[-1:]  # the error stands at its end
    whole = " ".join(line for line in lines if not line.startswith(_ADVICE))
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]} …"


def _inside(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was made of, from the outside to the inside, each once."""
    left, seen = [error], set[int]()
    while left:
        each = left.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        causes = (getattr(each, "cause", None), each.__cause__)
        left += [cause for cause in causes if isinstance(cause, BaseException)]


def _place(error: BaseException) -> str:
    """Where in this package it happened, by the traceback that Ray sends along."""
    text = str(error) if isinstance(error, RayTaskError) else ""
    found = _PLACE.findall(text)
    return f" at {found[-1][0]}:{found[-1][1]}" if found else ""


def _kind(error: BaseException) -> str:
    """The name of an error's own class; Ray's cause is of a class made of two."""
    return type(error).__name__.removeprefix("RayTaskError(").removesuffix(")")


def _plain(error: PatcheadError) -> PatcheadError:
    own = next(c for c in type(error).__mro__ if c.__module__ == PatcheadError.__module__)
    text, *more = error.cause.args if isinstance(error, RayTaskError) else error.args or ("",)
    # Ray Data writes its advice behind the text.
    lines = takewhile(lambda line: not line.startswith(_ADVICE), str(text).splitlines())
    return own("\n".join(lines), *more)


def _is_rays(error: BaseException) -> bool:
    return isinstance(error, RayError) or type(error).__module__.startswith("ray.")

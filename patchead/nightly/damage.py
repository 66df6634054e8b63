"""A damaged file of the lake does not end the night: it is set aside, and what it held is made again."""

from __future__ import annotations

from collections.abc import Callable

from patchead.errors import DamagedFileError
from patchead.nightly.night import Night
from patchead.printed import say

_MOST_FILES = 1000
_MOST_CHECKS = 4  # of all embedding files: a disk that damages what was just written is not worked around


def without_damage(night: Night, work: Callable[[], None]) -> None:
    """Do a night's work; where a file turns out damaged, set it aside with a warning and do the work again.

    What is whole is not done again. The first damaged embedding file has all others of the night compared with their
    checksums as well.

    Raises:
        DamagedFileError: it is no file of the run or the store, or new files are damaged again and again.
        PatcheadError: as the work.
    """
    checks = 0
    for _ in range(_MOST_FILES):
        try:
            return work()
        except DamagedFileError as exc:
            damaged = {exc.uri: str(exc)}
            if night.store is not None and exc.uri in night.files:
                checks += 1
                if checks > _MOST_CHECKS:
                    raise
                damaged |= _others(night, exc.uri)
            moved = {uri: _set_aside(night, uri) for uri in damaged}
            if moved[exc.uri] is None:
                raise
            for uri, text in damaged.items():
                say(night.stages.console, f"warning: {text.removesuffix(' Delete it and run again.')}")
                say(night.stages.console, f"         set aside as {moved[uri]}; what it held is made again")
    raise DamagedFileError(f"more than {_MOST_FILES} files of {night.config.lake.uri} are damaged.")


def _set_aside(night: Night, uri: str) -> str | None:
    if night.store is not None and (moved := night.store.set_aside(uri)):
        return moved
    return night.folder.set_aside(uri)


def _others(night: Night, known: str) -> dict[str, str]:
    """The night's other embedding files that are damaged, with what is wrong."""
    assert night.store is not None
    uris = sorted(night.files - {known})
    found = night.executor.run_tasks(night.store.damage, uris)
    return {uris[place]: text for place, text in found if text is not None}

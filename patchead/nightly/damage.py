"""A damaged file of the lake does not end the night: it is set aside, and what it held is made again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from patchead.errors import DamagedFileError
from patchead.nightly.night import Night
from patchead.printed import say

_MOST_FILES = 1000
_MOST_CHECKS = 4  # of all embedding files: a disk that damages what was just written is not worked around


def attempts(night: Night) -> Iterator[AbstractContextManager[None]]:
    """Yield contexts in which to do a night's work, one after the other, until no damaged file ends it.

    A damaged file is set aside with a warning; what is whole is not done again. The first damaged embedding file has
    all others of the night compared with their checksums as well.

    Raises:
        DamagedFileError: from the context: it is no file of the run or the store, or new files are damaged again and
            again.
    """
    damage = _Damage(night)
    for _ in range(_MOST_FILES):
        yield damage.set_aside()
        if damage.work_is_done:
            return
    raise DamagedFileError(f"more than {_MOST_FILES} files of {night.config.lake.uri} are damaged.")


class _Damage:
    """What was damaged so far."""

    def __init__(self, night: Night) -> None:
        self._night, self._checks = night, 0
        self.work_is_done = False

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Around the work: a damaged file ends it, not the night."""
        try:
            yield
        except DamagedFileError as exc:
            if not self._moved(exc):
                raise
        else:
            self.work_is_done = True

    def _moved(self, exc: DamagedFileError) -> bool:
        night, damaged = self._night, {exc.uri: str(exc)}
        if night.store is not None and exc.uri in night.files:
            self._checks += 1
            if self._checks > _MOST_CHECKS:
                return False
            damaged |= _others(night, exc.uri)
        moved = {uri: _set_aside(night, uri) for uri in damaged}
        if moved[exc.uri] is None:
            return False
        for uri, text in damaged.items():
            say(night.stages.console, f"warning: {text.removesuffix(' Delete it and run again.')}")
            say(night.stages.console, f"         set aside as {moved[uri]}; what it held is made again")
        return True


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

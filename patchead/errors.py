"""What can go wrong, by name. Each error carries the exit code of the command it ends.

Exit codes: 0 every image scored; 1 anything not listed; 2 bad settings; 3 published, some images or
groups failed; 4 not published, too many images or groups failed; 5 asked to end (SIGTERM), not published;
6 published, but its report could not be written. Code 3 is a result, not an error (see :mod:`patchead.cli`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches


class PatcheadError(Exception):
    """Base of every error this package raises on purpose; its text is written for the person at the terminal."""

    exit_code = 1


class SettingsError(PatcheadError):
    """A setting has a value, a name or a combination that cannot be used."""

    exit_code = 2


class ArchiveError(PatcheadError):
    """The archive, or one shard of it, cannot be listed or read."""


class UnreadError(ArchiveError):
    """The storage did not give an image's bytes: nothing is known of the picture."""


class ReplacedFileError(OSError):
    """A file is another one than was listed; readers make an `ArchiveError` of it."""


class DecodeError(PatcheadError):
    """One image cannot be decoded. It becomes a row with this text, never the end of a run."""


class WeightsError(PatcheadError):
    """Encoder weights cannot be found, verified or loaded."""


class LakeError(PatcheadError):
    """Embeddings, tables or heatmaps cannot be read or written."""


class DamagedFileError(LakeError):
    """One file of the lake does not hold what was written; ``uri`` names it, so that it can be set aside."""

    def __init__(self, text: str, uri: str = "") -> None:
        super().__init__(text, uri)  # both, so that it survives pickling

    def __str__(self) -> str:
        """Give the text alone."""
        return str(self.args[0])

    @property
    def uri(self) -> str:
        """Name the file."""
        return str(self.args[1])


class FullDiskError(LakeError):
    """There is no room where something of the lake is to be written: nothing that follows could be, either."""


class PlanError(PatcheadError):
    """A group cannot be scored within the limits of the settings."""


class WorkerError(PatcheadError):
    """A process that did a part of the work failed in a way that this package does not expect."""


class LostNodesError(WorkerError):
    """Nodes of the cluster are gone, and work waits for them: it can be begun again on those that are left."""


class ValidationError(PatcheadError):
    """The rows about to be published contradict the manifest; nothing was published."""


class TooManyFailuresError(PatcheadError):
    """More images or groups failed than ``run.max_failed_fraction`` or its like allows; nothing was published."""

    exit_code = 4


class StoppedError(PatcheadError):
    """A run was asked to end (SIGTERM) before it had published; the same run id goes on."""

    exit_code = 5


PUBLISHED_WITH_FAILURES = 3
"""Exit code of a run that is published although some images or groups failed: a result, no error."""


class ReportError(PatcheadError):
    """A night is published, and the page about it (run.report) could not be written."""

    exit_code = 6


def bad_value(parameter: str, got: object, allowed: str, remedy: str = "") -> str:
    """Write one sentence in the form every settings error takes: parameter, what is allowed, what came, what to do."""
    text = f"{parameter} must be {allowed}; got {got!r}."
    return f"{text} {remedy}" if remedy else text


def argument(name: str) -> str:
    """Mark the name of a function's argument in the text of an error, in backquotes, for `with_names`."""
    return f"`{name}`"


def bad_argument(name: str, got: object, allowed: str, remedy: str = "") -> str:
    """Write the sentence of `bad_value` about a function's argument."""
    return bad_value(argument(name), got, allowed, remedy)


def with_names(text: str, names: Mapping[str, str]) -> str:
    """Put other names in the place of the arguments that a text names, as far as ``names`` has them.

    With memory_bytes: scoring.memory_gb, "`memory_bytes` is 0" becomes "scoring.memory_gb is 0".
    """
    return re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), text)


@contextmanager
def arguments_named(names: Mapping[str, str]) -> Iterator[None]:
    """Raise every `PatcheadError` of a block, or of the function below, with its arguments under other names.

    A function names its own arguments; who calls it knows what the person at the terminal calls them.
    """
    try:
        yield
    except PatcheadError as exc:
        exc.args = tuple(with_names(text, names) if isinstance(text, str) else text for text in exc.args)
        raise


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Ask ``" Did you mean 'x'?"`` for the closest known name, or give an empty string when none is close."""
    match = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""

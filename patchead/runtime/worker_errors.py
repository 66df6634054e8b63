"""Errors of the workers, as themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError

from patchead.errors import PatcheadError


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise a `PatcheadError` that a worker raised as itself, without Ray's wrapping and traceback."""
    try:
        yield
    except RayError as exc:
        cause: BaseException | None = exc
        while cause is not None:
            inner = getattr(cause, "cause", None) or cause.__cause__
            if isinstance(inner, PatcheadError):
                # Ray's cause derives from both classes; only the plain one has the plain text.
                raise _plain(inner) from exc
            cause = inner
        raise


def _plain(error: PatcheadError) -> PatcheadError:
    own = next(c for c in type(error).__mro__ if c.__module__ == PatcheadError.__module__)
    return own(*error.args)

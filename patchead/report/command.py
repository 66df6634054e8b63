"""The report of one night by its settings, for the command and for the nightly run."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from patchead.errors import SettingsError
from patchead.settings.model import Config
from patchead.settings.object_storage import storage

if TYPE_CHECKING:
    from patchead.report.write import Report

_NEEDED = ("jinja2", "matplotlib", "duckdb")


def require_libraries() -> None:
    """Refuse to promise a report that cannot be made.

    Raises:
        SettingsError: a library of the extra `report` is not installed.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise SettingsError(f"a report needs {', '.join(missing)}, not installed. Run: pip install 'patchead[report]'")


def make_report(
    config: Config, lake: str, to: str | None, tell: Callable[[str], None], night: dt.date | None = None
) -> Report:
    """Write the report of a night.

    Args:
        config: the settings; of them the storage, ``report`` and, without ``night``, ``archive.night``.
        lake: its folder or URL.
        to: folder or URL of the page; None: in the lake, see `write.place_in_lake`.
        tell: is told in lines what is done.
        night: which; None: the settings' or the newest.

    Raises:
        SettingsError: no such night is published, or a library is missing.
        LakeError: the lake cannot be read, or the report not be written.
    """
    require_libraries()
    from patchead.report.write import ReportRequest, write_report

    request = ReportRequest(
        lake_uri=lake if "://" in lake else os.path.abspath(lake),  # noqa: PTH100 - as runs record it: no link resolved
        out=to,
        night=night or config.archive.night,
        lane=config.run.lane,
        images=config.report.images,
        pictures=config.report.pictures,
        compared=config.report.compared,
    )
    return write_report(request, storage(config), tell)

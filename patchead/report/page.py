"""The page itself: one HTML file by Jinja2 that holds its data, its style and its script, and asks for nothing else.

Names come from archives: Jinja2 escapes every value, `printed.plain` first shows what would steer a reader's eyes, the
data cannot end their element, and the page's own policy refuses any script that is not this one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from patchead.printed import plain

_NOTHING = "\u2013"
_TEMPLATES = Path(__file__).parent / "templates"
_IN_DATA = {ord(character): f"\\u{ord(character):04x}" for character in "<>&'"}


def render(context: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        context: what the template shows.
        data: what its script works with: plain JSON values.
    """
    script = _asset("page.js")
    return _environment().get_template("page.html").render(
        context, css=Markup(_asset("page.css")), script=Markup(script), hash=_hash(script), data=as_data(data)
    )  # fmt: skip


def as_data(value: Any) -> Markup:
    """Write JSON for a script element: ASCII alone, and nothing in it that HTML takes for markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_IN_DATA))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "signed": _signed}
    return environment


def _shown(value: Any) -> Any:
    """Nothing for None; text without what steers a reader's eyes; markup is our own."""
    if value is None:
        return ""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _number(value: float | None, digits: int = 0) -> str:
    return _NOTHING if value is None else f"{value:,.{digits}f}"


def _percent(share: float | None, digits: int = 1) -> str:
    return _NOTHING if share is None else f"{share:.{digits}%}"


def _signed(value: float | None, digits: int = 1) -> str:
    if value is None:
        return _NOTHING
    rounded = round(value, digits) or 0.0  # no minus nought
    return f"{rounded:+.{digits}f}".replace("-", "\u2212") if rounded else f"{rounded:.{digits}f}"


def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

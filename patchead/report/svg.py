"""Matplotlib figures as SVG inside a page: in the page's colours and letters, with titles to hover over.

The colours of a figure are names of the page's own, written as colours that nothing else has and replaced at the end:
one drawing serves light, dark and paper.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import AbstractContextManager
from io import BytesIO

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

INK, MUTED, LINE, CALM, HOT, NULL = (f"#0a0b{number:02x}" for number in range(6))
"""Text, lesser text, thin lines, what is normal, what is flagged, the fitted normal."""
_NAMES = {INK: "ink", MUTED: "muted", LINE: "line", CALM: "calm", HOT: "hot", NULL: "null"}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
ET.register_namespace("", _SVG.strip("{}"))
ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")  # HTML knows it by this prefix alone
_STYLE = {
    "svg.fonttype": "none",  # letters stay letters
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "text.parse_math": False,
}


def style(name: str) -> AbstractContextManager[None]:
    """Set how figures look inside a block; ``name`` tells the ids of one figure from those of others in the page."""
    found: AbstractContextManager[None] = rc_context({**_STYLE, "svg.hashsalt": name})
    return found


def inline(figure: Figure, label: str, titles: Mapping[str, str]) -> Markup:
    """Write a figure as an element of a page.

    Args:
        figure: drawn in `style`.
        label: what a reader who does not see it is told.
        titles: by the gid of an artist what is shown when one hovers over it.
    """
    sink = BytesIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(sink.getvalue())
    used = set(re.findall(rb"url\(#([^)]+)\)", sink.getvalue()))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}metadata":
                parent.remove(child)
    for element in root.iter():
        found = element.attrib.get("id", "")
        if found in titles:
            title = ET.Element(f"{_SVG}title")
            title.text = titles[found]
            element.insert(0, title)
            element.set("class", "mark")
        if found and found.encode() not in used and not _is_referred_to(root, found):
            del element.attrib["id"]
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", label)
    text = ET.tostring(root, encoding="unicode")
    for colour, name in _NAMES.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text))


def _is_referred_to(root: ET.Element, name: str) -> bool:
    return any(element.attrib.get(_XLINK) == f"#{name}" for element in root.iter(f"{_SVG}use"))

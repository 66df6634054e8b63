"""Group keys of an image: from its path (``key=value`` folders or a template), from columns, or assumed.

Where several give a value, the path wins, then columns and JSON fields, then ``archive.assume``, then the folder's name
where that is taken for the product.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from string import Formatter
from typing import NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa

from patchead.archive.left_out import NO_TIME, LeftOut
from patchead.errors import SettingsError, bad_value
from patchead.schema import FAILED, MANIFEST

CAPTURED_AT = "captured_at"
COLUMN = "column:"  # prefix of the columns of an entry table that hold values found with the image

TEMPLATE = "archive.template"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # what Hive and Spark call the folder of rows without one
_OWN_COLUMNS = {"night", "product", CAPTURED_AT, "filename"}
_SHOWN = 40  # characters of a value that is none
_LONGEST_FOLDER = 255  # bytes of a name, on every file system

# 'lacks': the keys without a value, or archive.template where the path does not fit it, '' where nothing is lacking,
# null where the row failed before its keys were looked for.
CATALOGUED = MANIFEST.append(pa.field("lacks", pa.string()))


@dataclass(frozen=True)
class KeySources:
    """Say where the values of the keys come from.

    Raises:
        SettingsError: ``template`` is not one, or names a key twice.
    """

    group_by: tuple[str, ...]
    template: str | None = None
    assume: tuple[tuple[str, str], ...] = ()
    part_id: str | None = None
    kept: tuple[str, ...] = ()
    """Columns or JSON fields that are kept with the image, and group nothing."""
    top_folder: str | None = None
    """Name of the archive's own folder, where folders' names are the products that nothing else tells."""

    def __post_init__(self) -> None:
        if self.template is not None:
            _patterns(self.template)

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns or JSON fields that are worth reading."""
        named = (*self.group_by, *([self.part_id] if self.part_id else []), CAPTURED_AT, *self.kept)
        return tuple(dict.fromkeys(named))

    def of_path(self, path: str, member: str | None = None) -> Mapping[str, str] | None:
        """Read the keys in a file's path and the member or row key inside it; None where the template does not fit."""
        if self.template is None:
            folders = _hive(path.rpartition("/")[0])
            return {**_hive(member.rpartition("/")[0]), **folders} if member and "/" in member else folders
        whole = _patterns(self.template)[-1]
        match = whole.fullmatch(path) or (whole.fullmatch(f"{path}/{member}") if member else None)
        return match.groupdict() if match else None

    def of_folder(self, folder: str) -> Mapping[str, str]:
        """Read the keys that everything below ``folder`` shares; empty where the name does not tell."""
        if self.template is None:
            return _hive(folder)
        depth = folder.count("/")
        patterns = _patterns(self.template)[:-1]
        match = patterns[depth].fullmatch(folder) if depth < len(patterns) else None
        return match.groupdict() if match else {}

    def of_shard(self, path: str) -> Mapping[str, str]:
        """Read the keys that every image of a shard shares."""
        return {**self.of_folder(path), **(self.of_path(path) or {})} if self.template else self.of_path(path) or {}


@dataclass
class Seen:
    """Collect some nights and products of what a selection left out, for the message when nothing is left.

    And what was passed over in what it took.
    """

    nights: set[str] = field(default_factory=set)
    products: set[str] = field(default_factory=set)
    most: int = 1000
    unreadable: LeftOut = field(default_factory=LeftOut)
    """Values of images that were taken, which cannot be read and are null."""

    def add(self, night: str | None, product: str | None) -> None:
        """Note the values of one image, folder or shard."""
        for value, values in ((night, self.nights), (product, self.products)):
            if value is not None and len(values) < self.most:
                values.add(value)


@dataclass(frozen=True)
class Selection:
    """Name the nights and products to score; None and empty mean all."""

    night: dt.date | None = None
    products: tuple[str, ...] = ()

    def wants(self, keys: Mapping[str, str], seen: Seen) -> bool | None:
        """Tell whether keys pass: False where one says no, True where all say yes, None where one is unknown."""
        night, product = keys.get("night"), keys.get("product")
        date = parse_night(night) if night else None
        other_night = self.night is not None and date is not None and date != self.night
        other_product = bool(self.products) and product is not None and product not in self.products
        if other_night or other_product:
            seen.add(date.isoformat() if date else night, product)
            return False
        unknown = (self.night is not None and date is None) or (bool(self.products) and product is None)
        return None if unknown else True


class _Group(NamedTuple):
    known: Mapping[str, str]
    night: dt.date | None
    product: str | None
    group_id: str | None = None
    error: str | None = None
    lacks: str = ""


def assign(entries: pa.RecordBatch, sources: KeySources, selection: Selection, seen: Seen) -> pa.RecordBatch:
    """Give every entry its keys and its group: `CATALOGUED` rows of those that the selection takes, in their order.

    ``entries`` has the manifest's image_id, uri, key, format, size, offset, etag and error, plus ``path`` (of the file,
    relative to the archive) and, for any of ``sources.columns``, a string column named ``column:<name>``. A row whose
    night or product cannot be told is kept, failed: it may belong to the selection. A capture time that is
    none is null. ``seen`` takes what was left out, and these.
    """
    found = list(_values(entries, sources))
    groups = [_group(sources, values[: len(sources.group_by)], keys is not None) for values, keys in found]
    early = entries["error"].to_pylist()
    place = {name: index for index, name in enumerate(sources.columns)}
    times = [parse_time(values[place[CAPTURED_AT]]) for values, _ in found]
    columns = {
        "night": [group.night for group in groups],
        "product": [group.product for group in groups],
        "group_id": [group.group_id for group in groups],
        "part_id": [values[place[sources.part_id]] if sources.part_id else None for values, _ in found],
        "captured_at": times,
        "keys_json": [_keys_json(sources, values, keys) for values, keys in found],
        "status": [FAILED if error or group.error else None for error, group in zip(early, groups, strict=True)],
        "error": [error or group.error for error, group in zip(early, groups, strict=True)],
        "lacks": [None if error else group.lacks for error, group in zip(early, groups, strict=True)],
    }
    arrays = [
        pa.array(columns[name], type) if name in columns else entries[name]
        for name, type in zip(CATALOGUED.names, CATALOGUED.types, strict=True)
    ]
    wanted = [selection.wants(group.known, seen) is not False for group in groups]
    for image_id, (values, _), time, taken in zip(entries["image_id"].to_pylist(), found, times, wanted, strict=True):
        if taken and time is None and (text := values[place[CAPTURED_AT]]):
            seen.unreadable.add(NO_TIME, f"{image_id} has {text[:_SHOWN]!r}")
    return pa.record_batch(arrays, schema=CATALOGUED).filter(pa.array(wanted, pa.bool_()))


def _values(
    entries: pa.RecordBatch, sources: KeySources
) -> Iterator[tuple[tuple[str | None, ...], Mapping[str, str] | None]]:
    """Per entry the value of each of ``sources.columns``, and the keys of its path; None where the template differs."""
    names, assumed = sources.columns, dict(sources.assume)
    none = [None] * entries.num_rows
    present = entries.schema.names
    columns = [entries[COLUMN + name].to_pylist() if COLUMN + name in present else none for name in names]
    for path, member, *others in zip(entries["path"].to_pylist(), entries["key"].to_pylist(), *columns, strict=True):
        keys = sources.of_path(path, member)
        get = (keys or {}).get
        last = assumed if sources.top_folder is None else {"product": _folder_of(path) or sources.top_folder} | assumed
        values = (get(name) or other or last.get(name) for name, other in zip(names, others, strict=True))
        yield tuple(values), keys


def _keys_json(sources: KeySources, values: tuple[str | None, ...], keys: Mapping[str, str] | None) -> str | None:
    """What is known of an image by name, but for what has a column of its own."""
    named = dict(keys or {}) | {name: value for name, value in zip(sources.columns, values, strict=True) if value}
    left = {name: value for name, value in named.items() if name not in _OWN_COLUMNS and name != sources.part_id}
    return json.dumps(left, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if left else None


@lru_cache(maxsize=65_536)
def _group(sources: KeySources, values: tuple[str | None, ...], fits: bool) -> _Group:
    keys = {name: value for name, value in zip(sources.group_by, values, strict=True) if value}
    night, product = parse_night(keys.get("night")), keys.get("product")
    if not fits:
        error = f"the path does not fit {TEMPLATE} {sources.template!r}; rename the file or change the template"
        return _Group(keys, night, product, error=error, lacks=TEMPLATE)
    if missing := [name for name in sources.group_by if name not in keys]:
        named = " or ".join(f"{name!r}" for name in missing)
        error = f"no value for key {named}: not in the path, no column or JSON field, not in archive.assume"
        return _Group(keys, night, product, error=error, lacks=", ".join(missing))
    if "night" in keys and night is None:
        error = bad_value("night", keys["night"], "a date, YYYY-MM-DD or YYYYMMDD")
        return _Group(keys, None, product, error=error)
    if product and (size := len(_folder("product", product))) > _LONGEST_FOLDER:
        error = (
            f"product {product!r} is too long for a folder's name: {size} bytes as percent-encoded product=…, at most "
            f"{_LONGEST_FOLDER}; give it a shorter name"
        )
        return _Group(keys, night, None, error=error)  # the tables have a folder for each product
    if night:
        keys["night"] = night.isoformat()
    return _Group(keys, night, product, "/".join(_folder(name, keys[name]) for name in sources.group_by))


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]


def _folder(name: str, value: str) -> str:
    return f"{quote(name, safe='')}={quote(value, safe='')}"


@lru_cache(maxsize=4096)
def without_night(group_id: str) -> str:
    """Cut the night from a group's id: ``night=2026-11-21/product=screw`` is ``product=screw`` on every night."""
    return "/".join(part for part in group_id.split("/") if not part.startswith("night="))


def parse_night(text: str | None) -> dt.date | None:
    """Read the date that ``YYYY-MM-DD`` or ``YYYYMMDD`` means, alone or before a time of day, else None."""
    match = re.fullmatch(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})(?:[T ][0-9]{2}:.*)?", text or "")
    if not match:
        return None
    try:
        return dt.date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None


def parse_time(text: str | None) -> dt.datetime | None:
    """Read the moment that an ISO 8601 text means, UTC where it names no zone, else None.

    A number is the time since 1970: seconds, milli-, micro- or nanoseconds by its size, from 1973 to 2286.
    """
    if not text:
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?(e\+?[0-9]+)?", text, re.IGNORECASE):
        return _since_1970(float(text))
    try:
        time = dt.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        return time.replace(tzinfo=dt.timezone.utc) if time.tzinfo is None else time.astimezone(dt.timezone.utc)
    except (ValueError, OverflowError):
        return None


def _since_1970(number: float) -> dt.datetime | None:
    for unit in (1, 1e3, 1e6, 1e9):
        if 1e8 * unit <= number < 1e10 * unit:
            return dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(seconds=number / unit)
    return None


@lru_cache(maxsize=65_536)
def _hive(folder: str) -> Mapping[str, str]:
    parts = (part.partition("=") for part in reversed(folder.split("/")))  # of two equal keys the outer one counts
    named = {unquote(key): unquote(value) for key, separator, value in parts if key and separator and value}
    return {key: value for key, value in named.items() if value != _NO_VALUE}


@lru_cache(maxsize=64)
def _patterns(template: str) -> tuple[re.Pattern[str], ...]:
    """One pattern per depth: of the first folder, of the first two, …, of the whole path."""
    names: list[str] = []
    parts = [_part(part, template, names) for part in template.strip("/").split("/")]
    if len(set(names)) < len(names) or not names:
        raise SettingsError(bad_value(TEMPLATE, template, "a path with at least one {key}, and each key once"))
    return tuple(re.compile("/".join(parts[: depth + 1]), re.DOTALL) for depth in range(len(parts)))


def _part(part: str, template: str, names: list[str]) -> str:
    pattern = ""
    try:
        pieces = list(Formatter().parse(part))
    except ValueError as exc:
        raise SettingsError(bad_value(TEMPLATE, template, f"a path with {{key}} fields ({exc})")) from exc
    for text, name, form, conversion in pieces:
        pattern += re.escape(text)
        if name is None:
            continue
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or form or conversion:
            raise SettingsError(bad_value(TEMPLATE, template, "a path with {key} fields of letters, digits and '_'"))
        names.append(name)
        pattern += f"(?P<{name}>[^/]+?)"
    return pattern

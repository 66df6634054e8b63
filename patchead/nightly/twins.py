"""Twins of a night: before it is planned, images of a group that show the same pixels get one content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from patchead.arrow_columns import compact
from patchead.lake.embeddings import EmbeddingStore
from patchead.printed import say
from patchead.runtime.executor import RunTasks
from patchead.samples.twins import named_as_references, renamed, renamed_prompts, told_of_copies

if TYPE_CHECKING:  # its plan brings torch, and the tasks that look for twins need none
    from patchead.nightly.group import GroupPrompts

_COLUMNS = ["content_hash", "embedding_uri", "row"]


class _Rows(NamedTuple):
    """A group's images and, in few-shot mode, its prompts: `_COLUMNS` of each."""

    images: pa.Table
    prompts: pa.Table | None


def with_twins(
    groups: Mapping[str, pa.Table],
    prompts: Mapping[str, GroupPrompts],
    store: EmbeddingStore,
    run_tasks: RunTasks,
    console: Console,
) -> tuple[dict[str, pa.Table], int]:
    """Give the images of every group the column ``same_as``: equal for twins, and for equal content.

    Args:
        groups: embedded images by group.
        prompts: of each group in few-shot mode, else empty: what is a twin of a prompt has the prompt's content.
        store: with their embeddings.
        run_tasks: calls a function of every item and yields (place, result).
        console: is told how many there are.

    Returns:
        The groups, and how many images have a twin.

    Raises:
        LakeError: an embedding file is missing or damaged.
    """
    names = list(groups)
    items = (twins_of(groups[name], prompts.get(name)) for name in names)
    found = dict(run_tasks(partial(same_as, store=store), items))
    filled, count = dict[str, pa.Table](), 0
    for place, name in enumerate(names):
        same = found[place]
        of_prompts = set(prompts[name].references["content_hash"].to_pylist()) if name in prompts else set[str]()
        again = Counter(same)
        count += sum(again[one] > 1 or one in of_prompts for one in same)
        filled[name] = groups[name].append_column("same_as", pa.array(same, pa.string()))
    if count:
        say(console, f"         {count} images show the same pixels as another one: no references of each other")
    return filled, count


def prompts_with_twins(
    references: Mapping[str, pa.Table], store: EmbeddingStore, run_tasks: RunTasks, console: Console
) -> dict[str, pa.Table]:
    """Give prompts that show one photo one ``content_hash``, whatever the bytes of their files.

    Args:
        references: the embedded prompts by group, with `_COLUMNS` and turn.
        store, run_tasks: as of `with_twins`.
        console: is told how many are copies.

    Raises:
        LakeError: as `with_twins`.
    """
    upright = [_plain(_upright(rows)) for rows in references.values()]
    found = dict(run_tasks(partial(photos_of, store=store), upright))
    filled, copies = dict[str, pa.Table](), 0
    for place, (name, rows) in enumerate(references.items()):
        photos = dict(zip(upright[place]["content_hash"].to_pylist(), found[place], strict=True))
        copies += upright[place].num_rows - len(set(found[place]))
        content = pa.array([photos[digest] for digest in rows["content_hash"].to_pylist()], pa.string())
        filled[name] = rows.set_column(rows.column_names.index("content_hash"), "content_hash", content)
    if text := told_of_copies(copies, sum(rows.num_rows for rows in upright)):
        say(console, f"         {text}")
    return filled


def photos_of(prompts: pa.Table, *, store: EmbeddingStore) -> list[str]:
    """Name the content of each prompt, rows of `_COLUMNS`: its own, or that of the one whose photo it shows.

    Raises:
        LakeError: as `with_twins`.
    """
    content, looks = prompts["content_hash"].to_pylist(), _side_array(prompts, store, "look")
    return content if looks is None else renamed_prompts(content, looks, _side_array(prompts, store, "blocks"))


def twins_of(images: pa.Table, prompts: GroupPrompts | None) -> _Rows:
    """Take what `same_as` needs of a group."""
    return _Rows(_plain(images), None if prompts is None else _plain(_upright(prompts.references)))


def same_as(rows: _Rows, *, store: EmbeddingStore) -> list[str]:
    """Name the content of each image of one group: its own, or that of the image or the prompt that it is a twin of.

    Raises:
        LakeError: as `with_twins`.
    """
    content, looks = rows.images["content_hash"].to_pylist(), _side_array(rows.images, store, "look")
    if rows.prompts is None:
        return content if looks is None else renamed(content, looks, _side_array(rows.images, store, "blocks"))
    theirs = _side_array(rows.prompts, store, "look")
    if looks is None or theirs is None:
        return content
    return named_as_references(content, looks, rows.prompts["content_hash"].to_pylist(), theirs)


def _upright(references: pa.Table) -> pa.Table:
    """Without the turned ones: an image that is a prompt turned is another picture."""
    return references.filter(pc.is_null(references["turn"]))


def _plain(rows: pa.Table) -> pa.Table:
    return compact(rows.select(_COLUMNS))


def _side_array(rows: pa.Table, store: EmbeddingStore, name: str) -> np.ndarray | None:
    """That of `SideArrays` of each image, (n, K); None where an earlier version has written one of the files."""
    uris, places, out = np.array(rows["embedding_uri"].to_pylist()), np.asarray(rows["row"]), list[np.ndarray]()
    order = np.argsort(uris, kind="stable")
    for uri in np.unique(uris).tolist():
        if (values := store.read_side_array(uri, places[uris == uri], name)) is None:
            return None
        out.append(values)
    if not out:
        return None
    together = np.concatenate(out)
    found = np.empty_like(together)
    found[order] = together
    return found

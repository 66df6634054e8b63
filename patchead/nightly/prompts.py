"""Few-shot mode's prompts: which normal images each group is compared with, and the guides of an alignment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.arrow_columns import by_group, digest, values
from patchead.errors import ArchiveError, SettingsError
from patchead.hashing import text_digest
from patchead.nightly.embed import TURN
from patchead.schema import FAILED
from patchead.scoring.panel import reference_panel
from patchead.storage import Storage, explained

_PREFIX = "prompt:"  # of a prompt's image id in the store: the archive may hold an image of the same id
_TEMPLATE_CANDIDATES = 16


@dataclass(frozen=True)
class PromptRequest:
    """`config.PromptsConfig`, with the archive's catalog request as far as it holds for the prompts too."""

    catalog: CatalogRequest
    manifest: str | None
    k: int | None
    seed: int
    rotations: tuple[int, ...]


@dataclass(frozen=True)
class PromptSet:
    """``chosen``: MANIFEST rows of the upright prompts, in order of group and image id; groups have no night."""

    chosen: pa.Table
    rotations: tuple[int, ...]

    def counts(self, groups: Iterable[str]) -> dict[str, int]:
        """References of each group of the archive: its prompts, upright and turned."""
        upright = self._by_group()
        return {name: upright[_without_night(name)].num_rows * (1 + len(self.rotations)) for name in groups}

    def require(self, groups: Iterable[str], uri: str) -> None:
        """Refuse a run that has a group without prompts.

        Raises:
            ArchiveError: naming the group and what the prompts are of.
        """
        known = self._by_group()
        if lacking := [name for name in groups if _without_night(name) not in known]:
            raise ArchiveError(
                f"{uri} has no prompt for the group {lacking[0]} ({len(lacking)} such groups): looked for "
                f"{_without_night(lacking[0])}, found {', '.join(list(known)[:10])}. Add normal images of it, or leave "
                "it out with archive.products."
            )

    def to_embed(self) -> pa.Table:
        """Manifest with the column `TURN`: every prompt as it is, and turned by each of the rotations."""
        parts = []
        for turn in (0, *self.rotations):
            ids = pc.binary_join_element_wise(_PREFIX, values(self.chosen["image_id"]), f"@{turn}" if turn else "", "")
            rows = self.chosen.set_column(self.chosen.schema.get_field_index("image_id"), "image_id", ids)
            parts.append(rows.append_column(TURN, pa.repeat(pa.scalar(turn, pa.int32()), rows.num_rows)))
        return pa.concat_tables(parts)

    def embedded(self, receipts: pa.Table) -> dict[str, pa.Table]:
        """Rows of the prompts by their group, from the receipts of `to_embed`.

        A turned prompt has its upright's content hash: it is the same photo.

        Raises:
            ArchiveError: a prompt could not be read, decoded or embedded.
        """
        if (failed := receipts.filter(pc.equal(receipts["status"], FAILED))).num_rows:
            first = failed.slice(0, 1).to_pylist()[0]
            raise ArchiveError(
                f"{failed.num_rows} prompts cannot be used; {first['image_id'].removeprefix(_PREFIX)}: "
                f"{first['error']}. Mend or remove them."
            )
        upright = values(receipts["content_hash"])[: self.chosen.num_rows]
        hashes = pa.concat_arrays([upright] * (1 + len(self.rotations)))
        manifest = self.to_embed().select(["image_id", "group_id", "part_id"])
        rows = pa.table(
            {n: manifest[n] for n in manifest.column_names}
            | {"content_hash": hashes, **{n: receipts[n] for n in ("embedding_uri", "row")}}
        )
        return by_group(rows)

    def ids(self) -> dict[str, list[str]]:
        """Image ids of the prompts of each group, for the run record."""
        return {name: rows["image_id"].to_pylist() for name, rows in self._by_group().items()}

    def guides(self, groups: Iterable[str]) -> dict[str, pa.Table]:
        """The upright prompts of each group of the archive: what its images are aligned with."""
        known = self._by_group()
        return {name: known[_without_night(name)] for name in groups}

    def of(self, embedded: dict[str, pa.Table], group: str) -> pa.Table:
        """The rows of `embedded` that a group of the archive is compared with."""
        return embedded[_without_night(group)]

    def _by_group(self) -> dict[str, pa.Table]:
        return by_group(self.chosen)


def list_prompts(request: PromptRequest, groups: Iterable[str]) -> PromptSet:
    """List the normal images and choose the prompts: all, those of the manifest, and k of them per group by seed.

    Only those that the archive's ``groups`` are compared with.

    Raises:
        ArchiveError: they cannot be listed, one cannot be read, or the manifest names images that are not there.
        SettingsError: a group has fewer than k.
    """
    try:
        found = catalog(request.catalog).manifest
    except ArchiveError as exc:
        raise ArchiveError(
            f"{exc} (Of the prompts: here archive.uri is prompts.uri, archive.template prompts.template.)"
        ) from exc
    if request.manifest is not None:
        found = _named(found, request.manifest, request.catalog.storage, request.catalog.uri)
    wanted = {_without_night(name) for name in groups}
    if (failed := found.filter(pc.is_valid(found["status"]))).num_rows:
        raise ArchiveError(f"the prompt {failed['image_id'][0].as_py()} cannot be used: {failed['error'][0].as_py()}")
    found = found.filter(pc.is_in(found["group_id"], value_set=pa.array(sorted(wanted), pa.string())))
    chosen = found.sort_by([("group_id", "ascending"), ("image_id", "ascending")])
    if request.k is not None:
        chosen = pa.concat_tables([_drawn(name, rows, request) for name, rows in by_group(chosen).items()])
    return PromptSet(chosen, request.rotations)


def prompt_catalog(archive: CatalogRequest, uri: str, template: str | None) -> CatalogRequest:
    """The archive's catalog request, for the prompts: other address, no night, no limit."""
    keys = tuple(key for key in archive.group_by if key != "night")
    same = replace(archive, group_by=keys, night=None, limit=None, format="auto")
    return replace(same, uri=uri, template=template or archive.template)


def template_candidates(groups: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The first images of each group, in order of image id: the first that can be decoded is its template."""
    return {name: rows.slice(0, _TEMPLATE_CANDIDATES) for name, rows in groups.items()}


def stamped(manifest: pa.Table, guides: Mapping[str, pa.Table], max_pixels: int) -> pa.Table:
    """The manifest with etags that also say what each image is aligned with: an embedding is good for that alone.

    ``max_pixels`` belongs to it: it decides which candidate is an image, and so the template.
    """
    if not guides:
        return manifest
    columns = ["image_id", "etag", "part_id"]
    seen = {name: _short(f"{digest([rows], columns)} {max_pixels}") for name, rows in guides.items()}
    nothing = _short("")
    etags = [
        f"{etag}|{part or ''}|{seen.get(group, nothing)}"
        for etag, part, group in zip(
            *(manifest[name].to_pylist() for name in ("etag", "part_id", "group_id")), strict=True
        )
    ]
    return manifest.set_column(manifest.schema.get_field_index("etag"), "etag", pa.array(etags, pa.string()))


def _short(text: str) -> str:
    return text_digest(text, 8)


def _named(found: pa.Table, uri: str, storage: Storage, prompts: str) -> pa.Table:
    with explained("read prompts.manifest", uri, ArchiveError):
        filesystem, path = storage.filesystem(uri)
        lines = filesystem.cat_file(path).decode("utf-8").splitlines()
    wanted = pa.array([line.strip() for line in lines if line.strip()], pa.string())
    missing = wanted.filter(pc.invert(pc.is_in(wanted, value_set=values(found["image_id"]))))
    if len(missing) or not len(wanted):
        what = (
            f"names {len(missing)} images that are not in {prompts}, e.g. {missing[0]}" if len(missing) else "is empty"
        )
        raise ArchiveError(f"prompts.manifest {uri} {what}. It must hold image ids, one per line.")
    return found.filter(pc.is_in(found["image_id"], value_set=wanted))


def _drawn(name: str, rows: pa.Table, request: PromptRequest) -> pa.Table:
    k = request.k or rows.num_rows
    if rows.num_rows < k:
        raise SettingsError(
            f"prompts.k={k}, but {request.catalog.uri} has only {rows.num_rows} normal images for {name}. "
            "Add some, or lower prompts.k."
        )
    return rows.take(reference_panel(rows["image_id"].to_pylist(), k, request.seed))


def _without_night(group_id: str) -> str:
    """``night=2026-11-21/product=screw`` → ``product=screw``: what the prompts of a group are filed under."""
    return "/".join(part for part in group_id.split("/") if not part.startswith("night="))

"""Few-shot mode's prompts: which normal images each group is compared with, and the guides of an alignment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.catalog import CatalogRequest, catalog
from patchead.archive.keys import without_night
from patchead.arrow_columns import by_group, values
from patchead.errors import ArchiveError, SettingsError
from patchead.nightly.group import GroupPrompts
from patchead.nightly.prompt_nulls import contents, null_count
from patchead.plan.planned import PromptCounts
from patchead.samples.stand_ins import ENOUGH
from patchead.schema import FAILED, PROMPT, TO_EMBED, completed
from patchead.scoring.panel import reference_panel
from patchead.storage import Storage, explained

_TEMPLATE_CANDIDATES = 16
Found = TypeVar("Found")


@dataclass(frozen=True)
class PromptRequest:
    """Hold `settings.images.PromptsConfig` and the archive's catalog request, as far as it holds for the prompts."""

    catalog: CatalogRequest
    manifest: str | None
    k: int | None
    seed: int
    rotations: tuple[int, ...]


@dataclass(frozen=True)
class PromptSet:
    """Hold the ``chosen`` upright prompts, MANIFEST rows in order of group and image id; groups have no night."""

    chosen: pa.Table
    rotations: tuple[int, ...]

    def counts(self, groups: Iterable[str]) -> dict[str, PromptCounts]:
        """Count what each group of the archive has of them: upright and turned, and those that are scored with it."""
        upright = self._by_group()
        ks = {name: upright[without_night(name)].num_rows for name in groups}
        return {name: prompt_counts(k, self.rotations) for name, k in ks.items()}

    def require(self, groups: Iterable[str], uri: str) -> None:
        """Refuse a run that has a group without prompts.

        Raises:
            ArchiveError: naming the group and what the prompts are of.
        """
        known = self._by_group()
        if lacking := [name for name in groups if without_night(name) not in known]:
            raise ArchiveError(
                f"{uri} has no prompt for the group {lacking[0]} ({len(lacking)} such groups): looked for "
                f"{without_night(lacking[0])}, found {', '.join(list(known)[:10])}. Add normal images of it, or leave "
                "it out with archive.products."
            )

    def to_embed(self) -> pa.Table:
        """Make the `TO_EMBED` rows: every prompt as it is, and turned by each of the rotations."""
        upright, turn = self.upright(), TO_EMBED.get_field_index("turn")
        turned = (pa.repeat(pa.scalar(degrees, pa.int32()), upright.num_rows) for degrees in self.rotations)
        return pa.concat_tables([upright, *(upright.set_column(turn, "turn", degrees) for degrees in turned)])

    def upright(self) -> pa.Table:
        """Make the `TO_EMBED` rows of the prompts as they are."""
        rows, role = completed(self.chosen, TO_EMBED), TO_EMBED.get_field_index("role")
        return rows.set_column(role, "role", pa.repeat(PROMPT, rows.num_rows))

    def embedded(self, receipts: pa.Table) -> dict[str, pa.Table]:
        """Sort the embedded prompts by their group, from the receipts of `to_embed`, all of them ok.

        A turned prompt has its upright's content hash: it is the same photo.
        """
        manifest = self.to_embed().select(["image_id", "turn", "group_id", "part_id"])
        found = receipts.select(["content_hash", "embedding_uri", "row"])
        return by_group(
            pa.table([*manifest.columns, *found.columns], names=[*manifest.column_names, *found.column_names])
        )

    def ids(self) -> dict[str, list[str]]:
        """List the image ids of the prompts of each group, for the run record."""
        return {name: rows["image_id"].to_pylist() for name, rows in self._by_group().items()}

    def guides(self, groups: Iterable[str], references: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """Give the upright prompts of each group of the archive: what its images are aligned with.

        ``references`` are the embedded prompts by group: where some are of one photo, ``same_as`` is its content.
        """
        known = self.own_guides(references)
        return {name: known[without_night(name)] for name in groups}

    def with_their_groups(self, groups: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """Put the prompts and all images that are compared with them together, by the prompts' group."""
        together = {name: [rows] for name, rows in self._by_group().items()}
        for name, rows in groups.items():
            together[without_night(name)].append(rows.select(self.chosen.column_names))
        return {name: pa.concat_tables(rows) for name, rows in together.items()}

    @staticmethod
    def name_of(group: str) -> str:
        """Name the group of prompts that a group of the archive is compared with."""
        return without_night(group)

    def own_guides(self, references: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """Give what the prompts themselves are aligned with: those of their group; see `guides`."""
        found = {}
        for name, rows in self._by_group().items():
            photos = contents(rows, references[name])
            found[name] = rows if len(pc.unique(photos)) == rows.num_rows else rows.append_column("same_as", photos)
        return found

    def of(self, embedded: Mapping[str, Found], group: str) -> Found:
        """Find what is filed in ``embedded`` for a group of the archive."""
        return embedded[without_night(group)]

    def _by_group(self) -> dict[str, pa.Table]:
        return by_group(self.chosen)


def prompt_counts(k: int, rotations: Sequence[int]) -> PromptCounts:
    """Count the references that k prompts are, all different, and what is scored to know how they score."""
    views_of = k if k < ENOUGH else 0
    return PromptCounts(references=k * (1 + len(rotations)), nulls=null_count(k), views_of=views_of)


def require_usable(receipts: pa.Table) -> None:
    """Refuse to go on with prompts of which one could not be read, decoded or embedded.

    Raises:
        ArchiveError: naming the first.
    """
    if (failed := receipts.filter(pc.equal(receipts["status"], FAILED))).num_rows:
        first = failed.slice(0, 1).to_pylist()[0]
        raise ArchiveError(
            f"{failed.num_rows} prompts cannot be used; {first['image_id']}: {first['error']}. Mend or remove them."
        )


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
    wanted = {without_night(name) for name in groups}
    if (failed := found.filter(pc.is_valid(found["status"]))).num_rows:
        raise ArchiveError(f"the prompt {failed['image_id'][0].as_py()} cannot be used: {failed['error'][0].as_py()}")
    found = found.filter(pc.is_in(found["group_id"], value_set=pa.array(sorted(wanted), pa.string())))
    chosen = found.sort_by([("group_id", "ascending"), ("image_id", "ascending")])
    if request.k is not None:
        chosen = pa.concat_tables([_drawn(name, rows, request) for name, rows in by_group(chosen).items()])
    return PromptSet(chosen, request.rotations)


def prompt_catalog(archive: CatalogRequest, uri: str, template: str | None) -> CatalogRequest:
    """Turn the archive's catalog request into that of the prompts: other address, no night, no limit."""
    keys = tuple(key for key in archive.group_by if key != "night")
    same = replace(archive, group_by=keys, night=None, limit=None, format="auto")
    return replace(same, uri=uri, template=template or archive.template)


def guides_of(
    groups: Mapping[str, pa.Table], prompts: PromptSet | None, embedded: Mapping[str, GroupPrompts]
) -> dict[str, pa.Table]:
    """Choose what the images of each group are aligned with: its ``embedded`` prompts, or its own first images.

    Those are in order of image id: the first that can be decoded is the template.
    """
    if prompts is None:
        return {name: rows.slice(0, _TEMPLATE_CANDIDATES) for name, rows in groups.items()}
    return prompts.guides(groups, {name: of.references for name, of in embedded.items()})


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

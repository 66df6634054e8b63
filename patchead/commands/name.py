"""`patchead name`: what people call the regions of flagged images."""

from __future__ import annotations

from typing import Annotated

import typer

from patchead.commands.account import account
from patchead.commands.options import OneLakeOption, SetOption, out, storage_of
from patchead.printed import say


def name(
    family: Annotated[
        str | None, typer.Argument(metavar="FAMILY", help='Its id, from `patchead query "FROM families"`.')
    ] = None,
    defect_type: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="What it is called; '' takes names back.")
    ] = None,
    *,
    lake: OneLakeOption,
    file: Annotated[
        str | None, typer.Option(help="Instead of a family: CSV or Parquet: image_id, region, type.")
    ] = None,
    crops: Annotated[
        str | None, typer.Option(help="In place of a family: folder of crops of --product, in a folder for each type.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Take all names of --product back.")] = False,
    product: Annotated[str | None, typer.Option(help="Of --crops and --forget.")] = None,
    lane: Annotated[str, typer.Option(help="In which the family is.")] = "main",
    by: Annotated[str | None, typer.Option(help="Who says so; default: the account that runs this.")] = None,
    overrides: SetOption = None,
) -> None:
    """Name a family of regions, single regions from a file, or crops: later nights are named by these examples.

    The columns defect_type, defect_confidence and defect_p of the table regions are filled from the next night on, for
    regions of the same product. What is near enough to no example is called unknown.
    """
    from patchead.errors import SettingsError
    from patchead.review import names

    asked = {"FAMILY TYPE": family is not None, "--file": file is not None}
    asked |= {"--crops": crops is not None, "--forget": forget}
    if sum(asked.values()) != 1 or (family is not None and defect_type is None):
        given = " and ".join(what for what, there in asked.items() if there) or "nothing"
        raise SettingsError(f"name takes FAMILY and TYPE, or --file, --crops or --forget; got {given}.")
    if (forget or crops is not None) and product is None:
        raise SettingsError("--forget and --crops are of one product: add --product NAME ('' where it is empty).")
    files, who = storage_of(lake, overrides), by or account()
    if forget:
        count = names.forget(lake, files, product, by=who)
        say(out, f"{count} examples of {product or 'no product'} taken back.")
        return
    if crops is not None:
        from patchead.nightly.name_crops import name_crops, told

        counts = name_crops(lake, files, crops, product or "", by=who, lane=lane)
        say(out, f"{crops}: {told(counts)} recorded. Later nights are named by them.")
        return
    if file is not None:
        found = names.name_listed(lake, files, file, by=who, lane=lane)
        say(out, f"{file}: {found.examples} regions recorded. Later nights are named by them.")
        return
    found = names.name_family(lake, files, str(family), str(defect_type).strip(), by=who, lane=lane)
    some = "" if found.examples == found.regions else f", the newest of {found.regions}"
    said = f"called {defect_type}" if defect_type else "taken back"
    say(out, f"{family}: {found.examples} regions{some}, {said}. Later nights are named by them.")

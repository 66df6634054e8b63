"""`patchead feedback` and `patchead thresholds`: what people say of images, and what follows from it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.table import Column, Table

from patchead.commands.account import account
from patchead.commands.options import OneLakeOption, ProductOption, SetOption, out, storage_of
from patchead.printed import add_cells, plain, say

if TYPE_CHECKING:
    from patchead.review.thresholds import ProductThresholds

_EXAMPLES = 5


def feedback(
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV or Parquet: image_id, verdict (good or defect).")],
    lake: OneLakeOption,
    by: Annotated[str | None, typer.Option(help="Who says so; default: the account that runs this.")] = None,
    allow_unknown: Annotated[bool, typer.Option("--allow-unknown", help="Keep images without a score too.")] = False,
    overrides: SetOption = None,
) -> None:
    """Record what people say of images: columns image_id, verdict (good or defect), and maybe run_id and note.

    Of several verdicts on one photo the newest counts. `patchead thresholds` and `patchead accept` read them. Where
    nights have other photos under one id, run_id says which is meant.
    """
    from patchead.errors import SettingsError
    from patchead.review import labels
    from patchead.review.given_file import shortened
    from patchead.review.looked_at import looked_at

    files = storage_of(lake, overrides)
    rows, unknown = looked_at(lake, files, labels.read_file(file, files), file)
    if unknown and not allow_unknown:
        examples = ", ".join(shortened(image, 200) for image in unknown[:_EXAMPLES]) + (
            ", …" if len(unknown) > _EXAMPLES else ""
        )
        raise SettingsError(
            f"{len(unknown)} of {len(rows)} images of {file} have no row in the table scores of {lake}: {examples}. "
            "Nothing was recorded. Check their ids, or add --allow-unknown."
        )
    labels.keep(lake, files, rows, by or account())
    said = Counter(row["verdict"] for row in rows)
    told = ", ".join(f"{said[verdict]} {verdict}" for verdict in labels.VERDICTS)
    beyond = f"; {len(unknown)} of them have no score" if unknown else ""
    say(out, f"{file}: {told} recorded{beyond}.")


def thresholds(
    *,
    lake: OneLakeOption,
    product: ProductOption = None,
    overrides: SetOption = None,
) -> None:
    """Print precision and recall of each product at its threshold of z, and at those that people's labels suggest.

    Of labelled images alone: where only flagged images were looked at, the true recall is lower.
    """
    from patchead.errors import SettingsError
    from patchead.review.thresholds import Labelled
    from patchead.review.thresholds import thresholds as of_products

    files = storage_of(lake, overrides)
    labelled = Labelled.read(lake, files)
    found = of_products(lake, files, product or (), labelled)
    known = {each.product or "" for each in found}
    if lacking := [name for name in product or () if name not in known]:
        raise SettingsError(f"{lake} has no verdict on a product {lacking[0]!r}. Without --product all are listed.")
    if not found:
        say(out, f"No night is judged in {lake} yet: `patchead score` does.")
    for each in found:
        _print_product(each)
    if unknown := labelled.unscored:
        say(out, f"\n{unknown} labels do not count, of images that have no row in the table scores of {lake}.")
    _print_suggested(found)


def _print_suggested(found: list[ProductThresholds]) -> None:
    """What to put into the settings file, if anything."""
    own = {each.product or "": {"z": each.suggested.z} for each in found if each.suggested and not each.is_top}
    if own:
        line = yaml.safe_dump(own, default_flow_style=True, width=10**6, allow_unicode=True).strip()
        say(out, "\nTo take the best F1, in the settings file:\nscoring:")
        say(out, f"  thresholds: {line}")
    top = {each.product or "": each.suggested.flag_top for each in found if each.suggested and each.is_top}
    if len(set(top.values())) == 1:
        say(out, "\nTo take the best F1, in the settings file:\nscoring:")
        say(out, f"  flag_top: {next(iter(top.values())):g}")
    elif top:
        each = ", ".join(f"{plain(name or '(no product)')} {share:g}" for name, share in top.items())
        say(out, f"\nscoring.flag_top is one share for all products; the best F1 is at {each}.")
        say(out, "With scoring.verdict: auto each product can have a threshold of its own.")


def _print_product(found: ProductThresholds) -> None:
    table = Table(
        "threshold",
        *(Column(name, justify="right") for name in ("flag_top" if found.is_top else "z", "precision", "recall")),
        Column("flagged last night", justify="right"),
    )
    for each in found.thresholds:
        value = each.flag_top if found.is_top else each.z
        text = "" if value is None else f"{value:g}" if each.what != "now" else f"{value:.3g}"
        add_cells(table, (each.what, text, _share(each.precision), _share(each.recall), each.flagged))
    name = plain(found.product or "(no product)")
    say(out, f"\n{name}: {found.good} good, {found.defects} defect labelled")
    say(out, f"last night {found.night}, {found.images} images, judged by {found.rule}")
    out.print(table)
    if found.is_top:
        say(out, "The rule top flags a fixed share of each group: scoring.flag_top decides, no threshold of z does.")
    good, defects = found.missing
    if found.by_rate:
        say(out, "Nothing is suggested: scoring.false_discovery decides, no threshold of z does.")
    elif good or defects:
        lacking = " and ".join(f"{count} {what}" for count, what in ((good, "good"), (defects, "defect")) if count)
        say(out, f"Nothing is suggested: {lacking} labels more are needed.")
    for count, why in found.left_out:
        say(out, f"{count} labels do not count, {why}.")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

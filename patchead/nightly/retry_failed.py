"""`patchead score --retry-failed`: another run of a night, of nothing but what failed or lacks something."""

from __future__ import annotations

from rich.console import Console

from patchead.errors import SettingsError
from patchead.lake.failed_products import failed_products
from patchead.nightly import wiring
from patchead.printed import say
from patchead.settings.model import Config


def only_failed(config: Config, console: Console) -> Config | None:
    """Narrow a night's settings to the products that hold failed images, or groups that failed or are incomplete.

    None, and a word, if there is none.

    Their groups are scored as wholes, as scores depend on the group: embeddings that are there are used again, so only
    what failed is read and embedded. The run replaces those groups and leaves all others of the night as they are.

    Raises:
        SettingsError: no night is named.
        LakeError: a table cannot be read.
    """
    night = config.archive.night
    if night is None:
        raise SettingsError("--retry-failed needs --night (archive.night): the night whose failed images are meant.")
    products = failed_products(config.lake.uri, wiring.storage(config), night)
    asked = config.archive.products
    wanted = [product for product in products if product is not None and (not asked or product in asked)]
    if not products or (asked and not wanted):
        say(console, f"no image or group of {night} has failed: nothing to do.")
        return None
    # An image without a product has no name to choose it by: then all products of the night are run.
    chosen = asked if None in products else tuple(wanted)
    return config.model_copy(update={"archive": config.archive.model_copy(update={"products": chosen})})

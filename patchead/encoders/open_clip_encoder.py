"""Image towers of open_clip: vision transformers of its own, and those that it takes from timm (SigLIP, EVA-CLIP …)."""

from __future__ import annotations

from functools import partial
from typing import Any

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import resize_pos_embed
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import VisionTransformer
from timm.models import clean_state_dict
from torch import Tensor

from patchead.encoders.attention import (
    ClassAttention,
    catch_in_open_clip,
    catch_in_timm,
    why_none_in_open_clip,
    why_none_in_timm,
)
from patchead.encoders.base import Encoder
from patchead.encoders.hub import hub_access
from patchead.encoders.spec import Architecture, EncoderSpec, unsupported
from patchead.encoders.timm_encoder import PACKAGES, grid_of
from patchead.encoders.unfilled import as_loaded, to_be_loaded, without_memory
from patchead.encoders.weights import Source, mismatch, parse_weights, private_random, read_weights, state_digest
from patchead.errors import SettingsError, bad_argument, bad_value, nearest_name

_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}


def architecture(spec: EncoderSpec) -> Architecture:
    """Describe what open_clip knows of the model; built without memory, weights or network.

    Mean and std are the hub tag's; with other weights those of the model's default tag, else open_clip's defaults.

    Raises:
        SettingsError: open_clip has no such model or tag, or its image tower has no grid of patch tokens.
    """
    config, tag = resolve_model(spec)
    with without_memory():
        tower = _tower(config).visual
    return _architecture(spec, config, tag, tower)


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder with its weights, on ``spec.device``; the text tower is never built.

    The weights are loaded and hashed at the model's native size, then open_clip resamples the position embeddings.

    Raises:
        SettingsError: see `architecture`.
        WeightsError: the weights cannot be found, read or fitted to the model.
    """
    config, tag = resolve_model(spec)
    source = parse_weights(spec.weights)
    with private_random():
        with as_loaded(source):
            clip = _tower(config)
        described = _architecture(spec, config, tag, clip.visual)
        if source.origin != "random":
            _load(spec, clip, read_state(spec, source, config, tag))
        digest = state_digest(clip.visual.state_dict())
        if spec.image_size != described.native_size:
            clip = _resized(config, clip, spec.image_size)
    attention = _attention(clip.visual) if spec.attention else None
    return Encoder(spec, described, clip.visual, partial(patch_tokens, clip.visual), digest, attention)


def patch_tokens(tower: Any, images: Tensor, indices: list[int], norm: bool) -> list[Tensor]:
    """Turn images (B, 3, S, S) into one tensor (B, P, width) per block of ``indices`` (from 0); no CLS, no ``proj``."""
    output = tower.forward_intermediates(
        images,
        indices=indices,
        normalize_intermediates=norm,
        stop_early=True,
        intermediates_only=True,
        output_fmt="NLC",
    )
    return output["image_intermediates"]


def resolve_model(spec: EncoderSpec) -> tuple[dict[str, Any], str]:
    """Find open_clip's model config and the hub tag whose config applies ('' for none); needs no model.

    Raises:
        SettingsError: open_clip has no such model, or the model no such tag.
    """
    source = parse_weights(spec.weights)
    config = open_clip.get_model_config(spec.model) if spec.model in open_clip.list_models() else None
    if config is None:
        hint = nearest_name(spec.model, open_clip.list_models())
        raise SettingsError(bad_argument("name", spec.name, "a model of open_clip") + hint)
    if source.origin == "package":
        allowed = f"used with `name` timm/{PACKAGES[source.value].MODEL}"
        raise SettingsError(bad_value(f"`weights` {spec.weights}", spec.name, allowed))
    tags = open_clip.list_pretrained_tags_by_model(spec.model)
    tag = (source.value if source.origin == "hub" else "") or next(iter(tags), "")
    if source.origin == "hub" and tag not in tags:
        allowed = f"one of {spec.model}'s hub tags ({', '.join(tags) or 'it has none'})"
        raise SettingsError(bad_value("the hub tag", tag or "hub", allowed) + nearest_name(tag, tags))
    if source.origin == "hub" and open_clip.get_pretrained_cfg(spec.model, tag).get("quick_gelu"):
        config["quick_gelu"] = True  # the activation these weights were trained with; open_clip itself only warns
    return config, tag


def _tower(config: dict[str, Any], image_size: int | None = None) -> Any:
    """An open_clip model with the image tower of ``config`` and the smallest of text towers."""
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    if image_size is not None:
        vision["image_size"] = image_size
    return open_clip.CustomTextCLIP(
        config["embed_dim"], vision, _NO_TEXT, quick_gelu=bool(config.get("quick_gelu")), output_dict=True
    )


def _architecture(spec: EncoderSpec, config: dict[str, Any], tag: str, tower: Any) -> Architecture:
    if isinstance(tower, VisionTransformer):
        if tower.attn_pool is not None:
            raise unsupported(spec.name, "It pools by attention before its final norm.")
        patch, native = tower.patch_size[0], tower.image_size[0]
        depth, width = len(tower.transformer.resblocks), tower.conv1.out_channels
        no_attention = why_none_in_open_clip(tower)
    elif (trunk := getattr(tower, "trunk", None)) is not None:
        patch, depth, width, native = grid_of(trunk, spec.name)
        no_attention = why_none_in_timm(trunk)
    else:
        raise unsupported(spec.name, f"Its image tower is a {type(tower).__name__}.")
    data = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(spec.model, tag) or {}))
    name = spec.model.removesuffix("-quickgelu") + ("-quickgelu" if config.get("quick_gelu") else "")
    constants = tuple(data.mean), tuple(data.std)
    return Architecture(f"open_clip/{name}", patch, depth, width, native, *constants, no_attention=no_attention)


def _attention(tower: Any) -> ClassAttention:
    return catch_in_open_clip(tower) if isinstance(tower, VisionTransformer) else catch_in_timm(tower.trunk)


def read_state(spec: EncoderSpec, source: Source, config: dict[str, Any], tag: str) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint from the hub or a file.

    Raises:
        WeightsError: it cannot be found or read.
    """
    if source.origin == "file":
        return read_weights(source.value, spec.storage)
    with hub_access(spec.name):
        path = open_clip.download_pretrained(open_clip.get_pretrained_cfg(spec.model, tag))
    return clean_state_dict(open_clip.factory.load_state_dict(path))


def _load(spec: EncoderSpec, clip: Any, state: dict[str, Tensor]) -> None:
    """Strict for the image tower; a whole CLIP checkpoint or the image tower alone."""
    state = convert_state_dict(clip, state)  # Apple's MobileCLIP names
    visual = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}
    try:
        clip.visual.load_state_dict(visual or state)
    except RuntimeError as exc:
        raise mismatch(spec.weights, spec.name, exc) from exc


def _resized(config: dict[str, Any], clip: Any, image_size: int) -> Any:
    if not isinstance(clip.visual, VisionTransformer):
        clip.visual.set_input_size(image_size)
        return clip
    with to_be_loaded():
        resized = _tower(config, image_size)
    state = {f"visual.{name}": tensor for name, tensor in clip.visual.state_dict().items()}
    resize_pos_embed(state, resized)
    resized.visual.load_state_dict({name.removeprefix("visual."): tensor for name, tensor in state.items()})
    return resized

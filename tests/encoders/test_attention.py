from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchead.encoders import Encoder, EncoderSpec, build, describe
from patchead.encoders.base import _encoder_id
from patchead.encoders.registry import REGISTRY
from patchead.encoders.spec import Architecture
from patchead.errors import PatcheadError, SettingsError
from tests.helpers.faulty_weights import dark, overflowing_vit, white
from tests.helpers.sample_photos import photos

SPEC = EncoderSpec("timm/test_vit", "random", 96, attention=True)


def last_attention(encoder: Encoder) -> Any:
    module = encoder._module
    return (module.blocks if hasattr(module, "blocks") else module.transformer.resblocks)[-1].attn


def peaked(encoder: Encoder) -> Encoder:
    """Random values in the class token and the last block's attention, biases and position tables included.

    Then the map has peaks; a class token that timm starts at nearly zero would look everywhere alike.
    """
    generator = torch.Generator().manual_seed(3)
    of_class = [value for name, value in encoder._module.named_parameters() if name in ("cls_token", "class_embedding")]
    with torch.no_grad():
        for parameter in [*of_class, *last_attention(encoder).parameters()]:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.5 / parameter.shape[-1] ** 0.5)
    return encoder


def seen_by(attention: Any, run: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """What went into ``attention`` (B, N, C) while ``run`` ran, float64, and what ``run`` gave."""
    inputs: list[np.ndarray] = []
    handle = attention.register_forward_pre_hook(lambda module, args: inputs.append(args[0].double().numpy().copy()))
    result = run()
    handle.remove()
    return np.concatenate(inputs), result


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def joined(attention: Any) -> tuple[np.ndarray, ...]:
    """Weights and biases of q and k where one layer makes q, k and v."""
    weight = array(attention.qkv.weight) if hasattr(attention, "qkv") else array(attention.in_proj_weight)
    width = weight.shape[1]
    if getattr(attention, "q_bias", None) is not None:
        q_bias, k_bias = array(attention.q_bias), np.zeros(width)
    elif hasattr(attention, "in_proj_bias"):
        q_bias, k_bias = np.split(array(attention.in_proj_bias), 3)[:2]
    elif attention.qkv.bias is None:
        q_bias = k_bias = np.zeros(width)
    else:
        q_bias, k_bias = np.split(array(attention.qkv.bias), 3)[:2]
    return weight[:width], q_bias, weight[width : 2 * width], k_bias


def row_by_hand(
    encoder: Encoder, tokens: np.ndarray, prefix: int, heads: int, turn: np.ndarray | None, bias: np.ndarray | None
) -> np.ndarray:
    """Softmax of q·k / sqrt(d) in float64: the class token's row, mean over heads, (B, P).

    ``turn``: (P, pairs), the angles by which the patches' keys are rotated. ``bias``: (heads, N), added to the class
    token's scores.
    """
    weight_q, bias_q, weight_k, bias_k = joined(last_attention(encoder))
    rows = np.zeros((len(tokens), tokens.shape[1] - prefix))
    for image, inputs in enumerate(tokens):
        query = (weight_q @ inputs[0] + bias_q).reshape(heads, -1)
        keys = (inputs @ weight_k.T + bias_k).reshape(len(inputs), heads, -1)
        for head in range(heads):
            key = keys[:, head].copy()
            if turn is not None:
                key[prefix:] = turn_keys(key[prefix:], turn, half=prefix > 1)
            score = key @ query[head] / np.sqrt(key.shape[1])
            if bias is not None:
                score += bias[head]
            weights = np.exp(score - score.max())
            rows[image] += (weights / weights.sum())[prefix:] / heads
    return rows


def turn_keys(keys: np.ndarray, angles: np.ndarray, half: bool) -> np.ndarray:
    """Rotate the pairs of (P, d) keys: neighbours in EVA-02, first and second half in DINOv3."""
    pairs = keys.reshape(len(keys), 2, -1).swapaxes(1, 2) if half else keys.reshape(len(keys), -1, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
    both = np.stack([turned.real, turned.imag], axis=-1)
    return both.swapaxes(1, 2).reshape(keys.shape) if half else both.reshape(keys.shape)


def eva02_angles(side: int) -> np.ndarray:
    """EVA-02: positions on the 16 x 16 grid of its training, 16 frequencies per axis, base 10,000; rows first."""
    at = np.arange(side) / side * 16
    frequencies = 10_000.0 ** -(np.arange(16) / 16)
    rows, columns = np.meshgrid(at, at, indexing="ij")
    return np.concatenate([axis.reshape(-1, 1) * frequencies for axis in (rows, columns)], axis=1)


def dinov3_angles(side: int) -> np.ndarray:
    """DINOv3: patch centres on -1 … 1, 16 periods per axis, base 100; rows first."""
    at = (np.arange(side) + 0.5) / side * 2 - 1
    frequencies = 2 * np.pi * 100.0 ** -(np.arange(16) / 16)
    rows, columns = np.meshgrid(at, at, indexing="ij")
    return np.concatenate([axis.reshape(-1, 1) * frequencies for axis in (rows, columns)], axis=1)


# name, image size, tokens before the patches, heads, angles of the keys
KINDS = [
    ("timm/test_vit", 96, 1, 2, None),
    ("timm/vit_small_patch14_dinov2", 70, 1, 6, None),
    ("timm/vit_small_patch14_reg4_dinov2", 70, 5, 6, None),
    ("timm/eva02_tiny_patch14_224", 84, 1, 3, eva02_angles(6)),
    ("timm/vit_small_patch16_dinov3", 80, 5, 6, dinov3_angles(5)),
    ("timm/beitv2_base_patch16_224", 64, 1, 12, None),
    ("timm/deit_tiny_distilled_patch16_224", 64, 2, 3, None),
    ("open_clip/ViT-S-32", 160, 1, 6, None),
]


@pytest.mark.parametrize(("name", "size", "prefix", "heads", "turn"), KINDS, ids=lambda value: str(value)[:40])
def test_the_map_is_the_class_tokens_softmax_row(
    name: str, size: int, prefix: int, heads: int, turn: np.ndarray | None
) -> None:
    encoder = peaked(build(EncoderSpec(name, "random", size, attention=True)))
    attention = last_attention(encoder)
    tokens, found = seen_by(attention, lambda: encoder.embed(photos(2, size)))
    bias = None
    if "beit" in name:  # the last entries of the table: class token to patch, patch to it, to itself
        table = array(attention.relative_position_bias_table).T
        bias = np.concatenate([table[:, -1:], np.repeat(table[:, -3:-2], encoder.n_patches, axis=1)], axis=1)
    rows = row_by_hand(encoder, tokens, prefix, heads, turn, bias)
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    assert (high > 1.5 * rows.mean(1, keepdims=True)).all()  # there is something to see
    assert (found.attention.shape, found.attention.dtype) == ((2, encoder.n_patches), np.float16)
    np.testing.assert_allclose(found.attention, (rows - low) / (high - low), atol=1e-3)
    assert found.usable.all()


@pytest.mark.slow
def test_a_timm_tower_of_open_clip_has_it_too() -> None:
    spec = EncoderSpec("open_clip/EVA02-B-16", "random", 64, attention=True)
    encoder = build(spec)
    weights: list[torch.Tensor] = []
    encoder._module.trunk.blocks[-1].attn.attn_drop.register_forward_hook(lambda *passed: weights.append(passed[2]))
    maps = encoder.embed(photos(2, 64)).attention
    row = weights[0][:, :, 0, 1:].double().mean(1).numpy()
    low, high = row.min(1, keepdims=True), row.max(1, keepdims=True)
    np.testing.assert_allclose(maps, (row - low) / (high - low), atol=1e-3)


def test_only_the_last_block_gives_up_its_fused_kernel() -> None:
    fused = [block.attn.fused_attn for block in build(SPEC)._module.blocks]
    assert fused == [True] * 5 + [False]
    without = build(dataclasses.replace(SPEC, attention=False))
    assert (build(SPEC).attention, without.attention) == (True, False)
    assert all(block.attn.fused_attn for block in without._module.blocks)
    assert not without._module.blocks[-1].attn.attn_drop._forward_hooks


@pytest.mark.parametrize(
    ("name", "layers"),
    [("timm/test_vit", (2,)), ("timm/test_vit", (4, 3)), ("timm/test_vit", (2, 6)), ("open_clip/ViT-S-32", (4, 3))],
)
def test_blocks_run_to_the_end_whatever_layers_are_taken(name: str, layers: tuple[int, ...]) -> None:
    spec = EncoderSpec(name, "random", 96, attention=True)
    images = photos(2, 96)
    last = peaked(build(spec)).embed(images).attention
    found = peaked(build(dataclasses.replace(spec, layers=layers))).embed(images)
    np.testing.assert_array_equal(found.attention, last)
    assert found.vectors.shape[2] == len(layers) * describe(spec).dim
    if 6 not in layers:
        plain = peaked(build(dataclasses.replace(spec, layers=layers, attention=False)))
        np.testing.assert_array_equal(found.vectors, plain.embed(images).vectors)


def test_embeddings_with_and_without_attention_are_the_same_but_for_rounding() -> None:
    images = photos(3, 96)
    with_it, without = build(SPEC), build(dataclasses.replace(SPEC, attention=False))
    np.testing.assert_allclose(with_it.embed(images).vectors, without.embed(images).vectors, atol=2**-10)
    assert without.embed(images).attention is None
    assert with_it.encoder_id != without.encoder_id


def test_shares_of_a_batch_on_several_threads_keep_their_own_maps() -> None:
    encoder = peaked(build(SPEC))
    images = photos(50, 96)
    alone = [encoder.embed(images[i : i + 1]) for i in range(50)]
    maps, vectors = (np.concatenate([getattr(one, name) for one in alone]) for name in ("attention", "vectors"))
    names: set[str] = set()
    last_attention(encoder).register_forward_hook(lambda *passed: names.add(threading.current_thread().name))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for _ in range(3):
            found = encoder.embed(images)
            assert np.abs(found.attention.astype(np.float32) - maps).max() < 2e-3
            assert np.abs(found.vectors.astype(np.float32) - vectors).max() < 2e-3
    finally:
        torch.set_num_threads(before)
    assert len(names) > 1


def test_nothing_is_left_behind() -> None:
    encoder = build(SPEC)
    kept: list[weakref.ref] = []
    last_attention(encoder).attn_drop.register_forward_hook(lambda *passed: kept.append(weakref.ref(passed[2])))
    encoder.embed(photos(9, 96))
    gc.collect()
    assert len(kept) == 2
    assert all(reference() is None for reference in kept)
    assert encoder._class_attention is not None
    assert vars(encoder._class_attention._here) == {}


def test_nothing_is_left_behind_by_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build(SPEC)
    last_attention(encoder).proj.register_forward_hook(lambda *passed: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        encoder.embed(photos(1, 96))
    assert encoder._class_attention is not None
    assert vars(encoder._class_attention._here) == {}


def test_whole_maps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build(SPEC)
    images = photos(5, 96)
    expected = encoder.embed(images)
    sizes: list[int] = []
    last_attention(encoder).attn_drop.register_forward_hook(lambda *passed: sizes.append(len(passed[2])))
    monkeypatch.setattr("patchead.encoders.attention._MAP_BYTES", 2 * 4 * 2 * 37**2)  # two images' maps
    bounded = encoder.embed(images)
    np.testing.assert_allclose(bounded.vectors, expected.vectors, atol=2e-3)
    np.testing.assert_allclose(bounded.attention, expected.attention, atol=2e-3)
    assert sizes == [2, 2, 1]
    monkeypatch.setattr("patchead.encoders.attention._MAP_BYTES", 1)
    encoder.embed(images[:2])
    assert sizes[3:] == [1, 1]


def test_a_constant_map_is_one_everywhere() -> None:
    encoder = build(SPEC)
    with torch.no_grad():
        last_attention(encoder).qkv.weight.zero_()
    np.testing.assert_array_equal(encoder.embed(photos(2, 96)).attention, np.ones((2, 36), np.float16))


def test_an_image_whose_attention_is_nan_is_unusable_alone(tmp_path: Path) -> None:
    weights = overflowing_vit(tmp_path / "vit.safetensors", block=3)
    encoder = build(dataclasses.replace(SPEC, weights=weights, layers=(2,)))
    images = dark(photos(3, 96))
    expected = encoder.embed(images)
    assert expected.usable.all()
    images[1] = white(1, 96)
    found = encoder.embed(images)
    assert np.isfinite(found.vectors).all()
    assert found.usable.tolist() == [True, False, True]
    assert found.attention is not None
    assert np.isnan(found.attention[1]).all()
    np.testing.assert_array_equal(found.attention[::2], expected.attention[::2])
    with pytest.raises(PatcheadError, match=r"^image 1 .*timm/test_vit.*attention.*NaN"):
        found.all_vectors()
    plain = build(dataclasses.replace(SPEC, weights=weights, layers=(2,), attention=False))
    assert plain.embed(images).usable.all()  # nobody asked for its attention


def test_an_empty_batch_and_other_arrays() -> None:
    encoder = build(SPEC)
    found = encoder.embed(np.empty((0, 96, 96, 3), np.uint8))
    assert found.attention is not None
    assert (found.vectors.shape, found.attention.shape, found.attention.dtype) == ((0, 36, 64), (0, 36), np.float16)
    with pytest.raises(ValueError, match=r"images must be uint8"):
        encoder.embed(np.zeros((1, 96, 96, 3), np.float32))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_sees_the_same_peaks(dtype: str) -> None:
    images = photos(2, 96)
    encoders = (peaked(build(dataclasses.replace(SPEC, dtype=name))) for name in ("fp32", dtype))
    full, half = (np.asarray(encoder.embed(images).attention, np.float32) for encoder in encoders)
    assert np.abs(half - full).max() < 0.1
    assert np.corrcoef(half.ravel(), full.ravel())[0, 1] > 0.995


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("timm/vit_base_patch16_siglip_224", "no class token"),
        ("timm/test_vit_relpos", "no class token"),
        ("timm/vit_base_patch16_18x2_224", "ParallelThingsBlock, has no single softmax attention"),
        ("timm/resnet18", "A CNN has no class token"),
        ("timm/tf_efficientnet_lite0", "A CNN has no class token"),
        ("open_clip/ViT-B-16-SigLIP", "no class token"),
    ],
)
def test_encoders_without_it_are_refused_with_some_that_have_it(name: str, why: str) -> None:
    size = 224
    describe(EncoderSpec(name, "random", size))
    with pytest.raises(SettingsError, match=rf"`name` must be .*mask.*got '{name}'.*{why}") as refused:
        describe(EncoderSpec(name, "random", size, attention=True))
    with pytest.raises(SettingsError):
        build(EncoderSpec(name, "random", size, attention=True))
    for named in ("dinov2-small", "dinov3-small", "clip-b16-plus-240"):
        assert named in str(refused.value)
        assert REGISTRY[named].mask


def test_without_attention_the_id_is_what_it_was() -> None:
    """The id that the first version gave, so that embeddings stored by it are found."""
    vit = Architecture("timm/vit", 16, 6, 64, 160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    spec = EncoderSpec("timm/vit", "random", 160, layers=(6, 2))
    assert _encoder_id(spec, vit, "digest") == "vit-ca30d06658e5"
    assert _encoder_id(dataclasses.replace(spec, attention=True), vit, "digest") != "vit-ca30d06658e5"

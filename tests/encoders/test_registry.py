from __future__ import annotations

import dataclasses
from functools import lru_cache

import open_clip
import pytest
import timm
import torch

from patchead.encoders import EncoderSpec, describe, open_clip_encoder, timm_encoder
from patchead.encoders.choice import image_size_of, layers_of
from patchead.encoders.registry import REGISTRY, Registered, resolve, table, with_mask
from patchead.encoders.spec import Architecture, check_spec, shape_of
from patchead.errors import SettingsError

ALL = pytest.mark.parametrize("registered", REGISTRY.values(), ids=REGISTRY.keys())


@lru_cache
def described(registered: Registered) -> Architecture:
    library = timm_encoder if registered.library_name.startswith("timm/") else open_clip_encoder
    return library.architecture(EncoderSpec(registered.library_name, "hub", registered.native_size))


def test_the_encoders_of_the_paper_and_its_neighbours_are_there() -> None:
    families = {
        "dinov2": 8,
        "dinov3": 7,
        "clip-b16-plus-240": 1,
        "clip-l14-336": 1,
        "eva02": 3,
        "mae": 3,
        "beitv2": 2,
        "pe-spatial": 5,
    }
    for start, count in families.items():
        assert sum(name.startswith(start) for name in REGISTRY) == count, start
    assert len(REGISTRY) == len(table())
    assert all(name == registered.name == name.lower() for name, registered in REGISTRY.items())


@pytest.mark.slow
@ALL
def test_the_facts_are_the_librarys(registered: Registered) -> None:
    architecture = described(registered)
    assert (architecture.patch_size, architecture.width) == (registered.patch_size, registered.dim)
    assert architecture.native_size == registered.native_size
    assert (architecture.mean, architecture.std) == (registered.mean, registered.std)
    assert (not architecture.no_attention) is registered.mask
    spec = EncoderSpec(registered.library_name, "hub", registered.native_size)
    shape = shape_of(spec, architecture)
    assert (shape.grid, shape.dim, shape.patch_size) == (registered.grid, registered.dim, registered.patch_size)
    asked = dataclasses.replace(spec, attention=True)
    if registered.mask:
        assert shape_of(asked, architecture) == shape
    else:
        with pytest.raises(SettingsError, match=r"where a mask is asked for; got .*dinov2-small"):
            shape_of(asked, architecture)


@ALL
def test_the_recommended_layers_and_448_px_fit_every_one(registered: Registered) -> None:
    architecture = described(registered)
    layers = layers_of("auto", architecture)
    size = image_size_of("auto", layers, architecture)
    spec = EncoderSpec(registered.library_name, "hub", size, layers)
    assert size == 448
    stride = 8 if architecture.levels else registered.patch_size
    assert shape_of(spec, architecture).grid == (448 // stride, 448 // stride)
    if not architecture.levels:
        assert layers[-1] == architecture.depth == 2 * layers[0]


@ALL
def test_the_tag_is_the_one_that_hub_fetches_and_the_licence_its_hosts(registered: Registered) -> None:
    library, _, model = registered.library_name.partition("/")
    if library == "open_clip":
        assert open_clip.list_pretrained_tags_by_model(model)[0] == registered.tag
        assert registered.licence == "mit"  # as their pages on the hub state; open_clip itself lists none
        return
    assert model in timm.list_models("*", pretrained=True)
    assert model.partition(".")[2] == registered.tag
    config = timm.models.get_pretrained_cfg(model)
    assert registered.licence.split(" ")[0] == config.license
    assert config.hf_hub_id


@ALL
def test_every_row_says_where_it_comes_from(registered: Registered) -> None:
    row = next(row for row in table() if row["name"] == registered.name)
    assert row["grid"] == registered.grid
    assert "arXiv" in row["source"]
    assert set(row) == {
        *("name", "library_name", "tag", "source", "licence", "patch_size", "dim", "native_size"),
        *("mean", "std", "mask", "grid"),
    }


def test_names_resolve_and_library_names_pass_through() -> None:
    assert resolve("dinov2-small") == "timm/vit_small_patch14_dinov2.lvd142m"
    assert resolve("clip-b16-plus-240") == "open_clip/ViT-B-16-plus-240"
    for name in ("timm/resnet18", "open_clip/ViT-B-16", "timm/no_such_model"):
        assert resolve(name) == name


@pytest.mark.parametrize(
    ("name", "near"),
    [("dinov2-smal", "dinov2-small"), ("dinov2-reg", "dinov2"), ("mae", "mae-"), ("clip-l14", "clip-")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingsError, match=rf"`name` must be a registered name.*Did you mean '{near}"):
        resolve(name)
    with pytest.raises(SettingsError, match=rf"`name` must be timm/<model> .*Did you mean '{near}"):
        check_spec(EncoderSpec(name))


def test_a_spec_says_what_an_unresolved_name_stands_for() -> None:
    with pytest.raises(SettingsError, match=r"dinov2-small is timm/vit_small_patch14_dinov2\.lvd142m"):
        check_spec(EncoderSpec("dinov2-small"))


def test_one_name_per_family_with_a_mask() -> None:
    names = with_mask()
    assert len(names) == len({REGISTRY[name].source for name in names})
    assert all(REGISTRY[name].mask for name in names)
    assert {registered.source for registered in REGISTRY.values() if registered.mask} == {
        REGISTRY[name].source for name in names
    }


def test_describing_all_of_them_takes_no_memory() -> None:
    """The largest has more than a billion parameters: they stay on the meta device."""
    with torch.device("meta"):
        giant = timm.create_model("vit_giant_patch14_dinov2", num_classes=0)
    assert sum(parameter.numel() for parameter in giant.parameters()) > 10**9
    assert describe(EncoderSpec(resolve("dinov2-giant"), "hub", 518)).dim == 1536

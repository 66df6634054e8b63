"""What to build, as plain values that travel to the workers, and the shape that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from patchead.errors import SettingsError, bad_value, nearest_name
from patchead.storage import Storage

LIBRARIES = ("timm", "open_clip")
DTYPES = ("fp32", "fp16", "bf16")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder: everything its embeddings depend on, and where to run it.

    ``fit`` and ``bit_depth`` are applied while decoding; they are here because they change the embeddings, so they are
    part of `Encoder.encoder_id`. ``dtype`` and ``device`` are final: no ``auto``.
    """

    name: str
    weights: str = "hub"
    image_size: int = 448
    layers: tuple[int, ...] = ()
    fit: str = "squash"
    bit_depth: int | str = "auto"
    dtype: str = "fp32"
    device: str = "cpu"
    storage: Storage = field(default_factory=Storage)

    @property
    def library(self) -> str:
        return self.name.partition("/")[0]

    @property
    def model(self) -> str:
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class Architecture:
    """What the library says about a model, before any weight is loaded.

    ``name`` is the identity that goes into encoder ids: no hub tag, no library version. ``width`` is one layer's
    dimension, ``patch_size`` the stride of the token grid in pixels, ``native_size`` the image side that the weights
    were trained at; ``mean`` and ``std`` are of RGB on a scale of 0 to 1.
    """

    name: str
    patch_size: int
    depth: int
    width: int
    native_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class EncoderShape:
    """Of one image's embeddings: ``grid`` (h, w), ``n_patches`` = h * w, ``dim`` = width * number of layers."""

    grid: tuple[int, int]
    dim: int
    n_patches: int
    image_size: int
    patch_size: int


def check_spec(spec: EncoderSpec) -> None:
    """Refuse what is wrong whatever the model is.

    Raises:
        SettingsError: library, dtype or device are not known, or a layer is named twice.
    """
    if spec.library not in LIBRARIES or not spec.model:
        raise SettingsError(
            bad_value("encoder.name", spec.name, "timm/<model> or open_clip/<model>")
            + nearest_name(spec.library, LIBRARIES)
        )
    if spec.dtype not in DTYPES:
        raise SettingsError(bad_value("encoder.dtype", spec.dtype, f"one of {', '.join(DTYPES)}"))
    if spec.device not in DEVICES:
        raise SettingsError(bad_value("encoder.device", spec.device, f"one of {', '.join(DEVICES)}"))
    if len(set(spec.layers)) != len(spec.layers):
        raise SettingsError(bad_value("encoder.layers", list(spec.layers), "different blocks"))


def shape_of(spec: EncoderSpec, architecture: Architecture) -> EncoderShape:
    """The embedding shape of ``spec`` on ``architecture``.

    Raises:
        SettingsError: the image size is not a multiple of the patch size, or a layer does not exist.
    """
    patch, size = architecture.patch_size, spec.image_size
    if size < patch or size % patch:
        near = max(1, round(size / patch)) * patch
        raise SettingsError(
            bad_value("encoder.image_size", size, f"a multiple of {spec.name}'s patch size {patch}", f"Try {near}.")
        )
    if outside := [layer for layer in spec.layers if not 1 <= layer <= architecture.depth]:
        raise SettingsError(
            bad_value(
                "encoder.layers",
                list(spec.layers),
                f"blocks of {spec.name}, 1 to {architecture.depth}",
                f"Remove {', '.join(map(str, outside))}; [] means the last layer.",
            )
        )
    side = size // patch
    return EncoderShape(
        grid=(side, side),
        dim=architecture.width * max(1, len(spec.layers)),
        n_patches=side * side,
        image_size=size,
        patch_size=patch,
    )


def unsupported(name: str, why: str) -> SettingsError:
    """The error for a model without a grid of patch tokens."""
    return SettingsError(
        bad_value(
            "encoder.name",
            name,
            "a vision transformer whose patch tokens form one grid (ViT, DeiT, DINOv2/3, BEiT, EVA, CLIP, SigLIP)",
            f"{why} CNN and hierarchical encoders are not supported in this version; "
            "timm/vit_small_patch14_dinov2 is the default.",
        )
    )

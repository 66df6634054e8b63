"""What to build, as plain values that travel to the workers, and the shape that follows from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from patchead.encoders.registry import REGISTRY, with_mask
from patchead.errors import SettingsError, bad_argument, nearest_name
from patchead.storage import Storage

LIBRARIES = ("timm", "open_clip")
DTYPES = ("fp32", "fp16", "bf16")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class EncoderSpec:
    """Name one encoder: everything its embeddings depend on, and where to run it.

    ``fit``, ``bit_depth`` and ``shrink`` (`archive.resize.SHRINK`) are applied while decoding; they are here because
    they change the embeddings, so they are part of `Encoder.encoder_id`. ``layers`` are blocks of a transformer or
    feature levels of a CNN, from 1; empty takes the last. ``attention`` asks for that of the class token, together with
    the vectors. ``dtype`` and ``device`` are final: no ``auto``.
    """

    name: str
    weights: str = "hub"
    image_size: int = 448
    layers: tuple[int, ...] = ()
    fit: str = "squash"
    bit_depth: int | str = "auto"
    shrink: int = 2
    dtype: str = "fp32"
    device: str = "cpu"
    storage: Storage = field(default_factory=Storage)
    attention: bool = False

    def identity(self) -> dict[str, object]:
        """Collect the fields that change embeddings, but the model and its weights: plain values by name.

        A field that is added belongs to it, unless it is excepted here.
        """
        found = asdict(self)
        for other in ("name", "weights", "device", "storage"):  # known better by the model's own name and a digest
            del found[other]
        found["layers"] = sorted(self.layers)
        if not self.attention:  # with it the last block rounds differently
            del found["attention"]
        return found

    @property
    def library(self) -> str:
        """Name the library that builds it."""
        return self.name.partition("/")[0]

    @property
    def model(self) -> str:
        """Name the model in its library."""
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class Architecture:
    """Hold what the library says about a model, before any weight is loaded.

    ``name`` is the identity that goes into encoder ids: no hub tag, no library version. ``width`` is the last layer's
    dimension, ``patch_size`` the stride of its grid in pixels, ``native_size`` the image side that the weights were
    trained at; ``mean`` and ``std`` are of RGB on a scale of 0 to 1. ``levels`` are a CNN's feature levels as (width,
    stride), the finest first; a transformer, whose blocks are all alike, has none. ``no_attention`` says why the model
    has no attention of a class token to the patches; empty where it has one.
    """

    name: str
    patch_size: int
    depth: int
    width: int
    native_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    levels: tuple[tuple[int, int], ...] = ()
    no_attention: str = ""


@dataclass(frozen=True)
class EncoderShape:
    """Give the shape of one image's embeddings: ``grid`` (h, w), ``n_patches`` = h * w, ``dim``, all layers' widths.

    ``patch_size`` is the stride of the grid in pixels: a CNN's is that of the finest level taken.
    """

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
        allowed = "timm/<model> or open_clip/<model>, or a registered name resolved to one"
        raise SettingsError(bad_argument("name", spec.name, allowed) + _name_hint(spec))
    if spec.dtype not in DTYPES:
        raise SettingsError(bad_argument("dtype", spec.dtype, f"one of {', '.join(DTYPES)}"))
    if spec.device not in DEVICES:
        raise SettingsError(bad_argument("device", spec.device, f"one of {', '.join(DEVICES)}"))
    if len(set(spec.layers)) != len(spec.layers):
        raise SettingsError(bad_argument("layers", list(spec.layers), "different blocks"))


def shape_of(spec: EncoderSpec, architecture: Architecture) -> EncoderShape:
    """Work out the shape of the embeddings of ``spec`` on ``architecture``.

    Raises:
        SettingsError: the image size is not a multiple of the patch size (of a CNN: of the coarsest stride taken), a
            layer does not exist, or attention is asked of a model that has none.
    """
    parts = "feature levels" if architecture.levels else "blocks"
    if outside := [layer for layer in spec.layers if not 1 <= layer <= architecture.depth]:
        raise SettingsError(
            bad_argument(
                "layers",
                list(spec.layers),
                f"{parts} of {spec.name}, 1 to {architecture.depth}",
                f"Remove {', '.join(map(str, outside))}; [] means the last layer.",
            )
        )
    taken = [_level(architecture, layer) for layer in spec.layers or (architecture.depth,)]
    finest, coarsest = min(stride for _, stride in taken), max(stride for _, stride in taken)
    _check_size(spec, coarsest, "coarsest stride" if architecture.levels else "patch size")
    if spec.attention and architecture.no_attention:
        raise SettingsError(
            bad_argument(
                "name",
                spec.name,
                "an encoder with a class token's softmax attention where a mask is asked for",
                f"{architecture.no_attention} Turn the mask off, or take one of: {', '.join(with_mask())}.",
            )
        )
    side = spec.image_size // finest
    return EncoderShape(
        grid=(side, side),
        dim=sum(width for width, _ in taken),
        n_patches=side * side,
        image_size=spec.image_size,
        patch_size=finest,
    )


def unsupported(name: str, why: str) -> SettingsError:
    """Make the error for a model that gives neither one grid of patch tokens nor feature maps."""
    return SettingsError(
        bad_argument(
            "name",
            name,
            "a vision transformer whose patch tokens form one grid (ViT, DeiT, DINOv2/3, BEiT, EVA, CLIP, SigLIP) or, "
            "of timm, a CNN with feature levels (ResNet, EfficientNet, ConvNeXt)",
            f"{why} timm/vit_small_patch14_dinov2 is the default.",
        )
    )


def _level(architecture: Architecture, layer: int) -> tuple[int, int]:
    """Width and stride of one layer, counted from 1."""
    return architecture.levels[layer - 1] if architecture.levels else (architecture.width, architecture.patch_size)


def _check_size(spec: EncoderSpec, stride: int, what: str) -> None:
    size = spec.image_size
    if size < stride or size % stride:
        near = max(1, round(size / stride)) * stride
        allowed = f"a multiple of {spec.name}'s {what} {stride}"
        raise SettingsError(bad_argument("image_size", size, allowed, f"Try {near}."))


def _name_hint(spec: EncoderSpec) -> str:
    if registered := REGISTRY.get(spec.name):
        return f" {spec.name} is {registered.library_name}."
    return nearest_name(spec.library, LIBRARIES) if spec.model else nearest_name(spec.name, REGISTRY)

"""The encoders known by a short name: where each comes from, its grid, constants and licence, and if it has a mask.

Any other model of timm or open_clip works by its library name. The facts here are checked against the libraries by
tests/encoders/test_registry.py; a licence is the one that the weights' host states, and the host's page is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from patchead.errors import SettingsError, bad_argument, bad_value, nearest_name

Triple = tuple[float, float, float]

IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI: tuple[Triple, Triple] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_DINOV2 = ("Meta AI, DINOv2, arXiv 2304.07193; registers: arXiv 2309.16588", "apache-2.0")
_DINOV3 = ("Meta AI, DINOv3, arXiv 2508.10104", "dinov3-license (Meta's own terms, to be accepted at the host)")
_OPENCLIP = ("LAION and OpenCLIP, trained on LAION-400M, arXiv 2212.07143", "mit")
_OPENAI_CLIP = ("OpenAI, CLIP, arXiv 2103.00020", "mit")
_EVA02 = ("BAAI, EVA-02, arXiv 2303.11331", "mit")
_MAE = ("Meta AI, MAE, arXiv 2111.06377", "cc-by-nc-4.0 (no commercial use)")
_BEITV2 = ("Microsoft, BEiT v2, fine-tuned on ImageNet-22k and -1k, arXiv 2208.06366", "apache-2.0")
_PE = ("Meta AI, Perception Encoder (spatial), arXiv 2504.13181", "apache-2.0")
_LITE = ("Google, EfficientNet-Lite, on ImageNet-1k, arXiv 1905.11946", "apache-2.0")
_WIDE = ("torchvision, Wide ResNet on ImageNet-1k, arXiv 1605.07146", "bsd-3-clause")


@dataclass(frozen=True)
class Registered:
    """Describe one encoder that has a short name.

    ``library_name`` is what ``encoder.name`` takes, ``tag`` the hub tag that ``weights: hub`` then fetches. ``dim`` and
    ``patch_size`` (pixels) are those of the last layer; of a CNN ``patch_size`` is that level's stride. ``grid`` is the
    (h, w) at ``native_size``. ``mean`` and ``std`` are of RGB on a scale of 0 to 1.
    """

    name: str
    library_name: str
    tag: str
    source: str
    licence: str
    patch_size: int
    dim: int
    native_size: int
    mean: Triple
    std: Triple
    mask: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Give (h, w) at the native size."""
        side = self.native_size // self.patch_size
        return side, side


def _timm(
    name: str,
    model: str,
    about: tuple[str, str],
    sizes: tuple[int, int, int],
    constants: tuple[Triple, Triple] = IMAGENET,
    mask: bool = True,
) -> Registered:
    """``sizes``: patch size, dimension, native image size."""
    return Registered(name, f"timm/{model}", model.partition(".")[2], *about, *sizes, *constants, mask)


def _open_clip(name: str, model: str, tag: str, about: tuple[str, str], sizes: tuple[int, int, int]) -> Registered:
    return Registered(name, f"open_clip/{model}", tag, *about, *sizes, *OPENAI, True)


_ALL = (
    _timm("dinov2-small", "vit_small_patch14_dinov2.lvd142m", _DINOV2, (14, 384, 518)),
    _timm("dinov2-base", "vit_base_patch14_dinov2.lvd142m", _DINOV2, (14, 768, 518)),
    _timm("dinov2-large", "vit_large_patch14_dinov2.lvd142m", _DINOV2, (14, 1024, 518)),
    _timm("dinov2-giant", "vit_giant_patch14_dinov2.lvd142m", _DINOV2, (14, 1536, 518)),
    _timm("dinov2-small-reg", "vit_small_patch14_reg4_dinov2.lvd142m", _DINOV2, (14, 384, 518)),
    _timm("dinov2-base-reg", "vit_base_patch14_reg4_dinov2.lvd142m", _DINOV2, (14, 768, 518)),
    _timm("dinov2-large-reg", "vit_large_patch14_reg4_dinov2.lvd142m", _DINOV2, (14, 1024, 518)),
    _timm("dinov2-giant-reg", "vit_giant_patch14_reg4_dinov2.lvd142m", _DINOV2, (14, 1536, 518)),
    _timm("dinov3-small", "vit_small_patch16_dinov3.lvd1689m", _DINOV3, (16, 384, 256)),
    _timm("dinov3-base", "vit_base_patch16_dinov3.lvd1689m", _DINOV3, (16, 768, 256)),
    _timm("dinov3-large", "vit_large_patch16_dinov3.lvd1689m", _DINOV3, (16, 1024, 256)),
    _timm("dinov3-convnext-tiny", "convnext_tiny.dinov3_lvd1689m", _DINOV3, (32, 768, 224), mask=False),
    _timm("dinov3-convnext-small", "convnext_small.dinov3_lvd1689m", _DINOV3, (32, 768, 224), mask=False),
    _timm("dinov3-convnext-base", "convnext_base.dinov3_lvd1689m", _DINOV3, (32, 1024, 224), mask=False),
    _timm("dinov3-convnext-large", "convnext_large.dinov3_lvd1689m", _DINOV3, (32, 1536, 224), mask=False),
    _open_clip("clip-b16-plus-240", "ViT-B-16-plus-240", "laion400m_e31", _OPENCLIP, (16, 896, 240)),
    _open_clip("clip-l14-336", "ViT-L-14-336", "openai", _OPENAI_CLIP, (14, 1024, 336)),
    _timm("eva02-small", "eva02_small_patch14_224.mim_in22k", _EVA02, (14, 384, 224), OPENAI),
    _timm("eva02-base", "eva02_base_patch14_224.mim_in22k", _EVA02, (14, 768, 224), OPENAI),
    _timm("eva02-large", "eva02_large_patch14_224.mim_m38m", _EVA02, (14, 1024, 224), OPENAI),
    _timm("mae-base", "vit_base_patch16_224.mae", _MAE, (16, 768, 224)),
    _timm("mae-large", "vit_large_patch16_224.mae", _MAE, (16, 1024, 224)),
    _timm("mae-huge", "vit_huge_patch14_224.mae", _MAE, (14, 1280, 224)),
    _timm("beitv2-base", "beitv2_base_patch16_224.in1k_ft_in22k_in1k", _BEITV2, (16, 768, 224)),
    _timm("beitv2-large", "beitv2_large_patch16_224.in1k_ft_in22k_in1k", _BEITV2, (16, 1024, 224)),
    _timm("pe-spatial-tiny", "vit_pe_spatial_tiny_patch16_512.fb", _PE, (16, 192, 512), HALF),
    _timm("pe-spatial-small", "vit_pe_spatial_small_patch16_512.fb", _PE, (16, 384, 512), HALF),
    _timm("pe-spatial-base", "vit_pe_spatial_base_patch16_512.fb", _PE, (16, 768, 512), HALF),
    _timm("pe-spatial-large", "vit_pe_spatial_large_patch14_448.fb", _PE, (14, 1024, 448), HALF),
    _timm("pe-spatial-giant", "vit_pe_spatial_gigantic_patch14_448.fb", _PE, (14, 1536, 448), HALF, mask=False),
    _timm("tf-efficientnet-lite0", "tf_efficientnet_lite0.in1k", _LITE, (32, 320, 224), HALF, mask=False),
    _timm("wide-resnet50", "wide_resnet50_2.tv_in1k", _WIDE, (32, 2048, 224), mask=False),
)

REGISTRY: Mapping[str, Registered] = MappingProxyType({registered.name: registered for registered in _ALL})


def resolve(name: str) -> str:
    """Turn a registered name into the library name that `EncoderSpec` takes; a name with a slash stays as it is.

    Raises:
        SettingsError: the name is neither.
    """
    if "/" in name:
        return name
    if name not in REGISTRY:
        allowed = "a registered name (patchead encoders lists them), timm/<model> or open_clip/<model>"
        raise SettingsError(bad_argument("name", name, allowed) + nearest_name(name, REGISTRY))
    return REGISTRY[name].library_name


def require_words(name: str, parameter: str = "`name`") -> str:
    """Give the library name of an encoder that may know words; nothing is built.

    Args:
        name: as `resolve` takes it.
        parameter: what the error calls it.

    Raises:
        SettingsError: it is of a library whose models have no text tower, or not known.
    """
    if name in REGISTRY or "/" in name:
        library_name = resolve(name)
        if library_name.startswith("open_clip/"):
            return library_name
    raise no_words(name, "It has no text tower.", parameter)


def no_words(name: str, why: str, parameter: str = "`name`") -> SettingsError:
    """Make the error for an encoder that cannot compare words with patches."""
    words = [known for known, about in REGISTRY.items() if about.library_name.startswith("open_clip/")]
    allowed = "a CLIP of open_clip whose own transformers read both image and text (ViT-B-16, ViT-L-14 …)"
    return SettingsError(bad_value(parameter, name, allowed, f"{why} Take one of: {', '.join(words)}."))


def with_mask() -> list[str]:
    """Name one registered encoder per family that has the attention which the mask is made of."""
    first: dict[str, str] = {}
    for registered in REGISTRY.values():
        if registered.mask:
            first.setdefault(registered.source, registered.name)
    return list(first.values())


def table() -> list[dict[str, Any]]:
    """List one plain row per registered encoder, in the registry's order: the fields of `Registered` and ``grid``."""
    return [{**asdict(registered), "grid": registered.grid} for registered in REGISTRY.values()]

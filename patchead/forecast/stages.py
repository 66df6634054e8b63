"""The stages of a night other than scoring: read, decode, embed and explain; each figure with where it is from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from patchead.encoders import EncoderSpec
from patchead.encoders.advice import GFLOP
from patchead.encoders.registry import REGISTRY
from patchead.forecast.cluster import Cluster
from patchead.forecast.device_speeds import DATA_SHEET, MEASURED, DeviceFigures
from patchead.forecast.feed import DecodingPace, encoder_key
from patchead.maps.shown import FLAGGED

ASSUMED, CALIBRATED, SHEET = "assumed", "as calibrated", "by its data sheet"
CORES_PER_GPU = 8
"""CPU cores of a node for each of its GPUs, where nobody says how many."""
IMAGINED = DecodingPace(images=0, seconds=0.037, explained=0.17, megapixels=5, megabytes=0.9)
"""Of an archive that is not there: JPEG of 5 megapixels, for 448 px and PNG heatmaps of 1,024 px; a core of an AMD EPYC
(Zen 4, busy)."""
_SIDE = 448  # pixels, of `GFLOP`


@dataclass(frozen=True, kw_only=True)
class Known:
    """Hold a figure and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """Hold what one image takes: megabytes to read, CPU seconds of a core, actor seconds.

    ``embed`` is None where there is no figure; ``explain`` includes that it is decoded again.
    """

    megabytes: Known
    decode: Known
    embed: Known | None
    explain: Known


@dataclass(frozen=True)
class Stage:
    """Hold one stage: its images and its work in the unit of `UNITS`, and in how many seconds a cluster does it.

    None: there is no figure, or no cluster. ``source`` says where each figure comes from.
    """

    name: str
    images: int
    work: float | None
    seconds: float | None
    source: str


UNITS = {"read": "GB", "decode": "core s", "embed": "actor s", "explain": "core s"}


def per_image(pace: DecodingPace, spec: EncoderSpec, figures: DeviceFigures | None) -> PerImage:
    """Collect what one image takes.

    Args:
        pace: of some images of the archive, or `IMAGINED`.
        spec: of the run's encoder.
        figures: of the device; None: nothing is known of it.
    """
    about = f"of {pace.megapixels:.3g} megapixels"
    source = f"{about}, measured here on {pace.images} of them" if pace.images else f"{about}, {ASSUMED}"
    return PerImage(
        megabytes=Known(value=pace.megabytes, source=source),
        decode=Known(value=pace.seconds, source=source),
        embed=None if figures is None else embedding(spec, figures),
        explain=Known(value=pace.explained, source=source),
    )


def embedding(spec: EncoderSpec, figures: DeviceFigures) -> Known | None:
    """Find the actor seconds of an encoder for one image: as calibrated, else by its operations and the data sheet."""
    if rate := figures.embed.get(encoder_key(spec)):
        return Known(value=1 / rate, source=CALIBRATED)
    known = {_untagged(entry.library_name): GFLOP[name] for name, entry in REGISTRY.items()}
    if figures.source != DATA_SHEET or _untagged(spec.name) not in known or spec.dtype not in figures.flops:
        return None
    operations = known[_untagged(spec.name)] * 1e9 * (spec.image_size / _SIDE) ** 2
    return Known(value=operations / figures.flops[spec.dtype], source=SHEET)


def _untagged(name: str) -> str:
    """The model's name without the tag of its weights, which take as long as any."""
    return name.partition(".")[0]


def cores_of(cluster: Cluster, cores_per_node: int | None) -> Known:
    """Count the CPU cores of the whole cluster."""
    figures = cluster.figures
    if cores_per_node is not None:
        return Known(value=cores_per_node * cluster.nodes, source="as given")
    if figures.device == "cpu":
        return Known(value=figures.threads * cluster.actors, source=CALIBRATED)
    return Known(value=CORES_PER_GPU * cluster.actors, source=ASSUMED)


def shown_images(groups: Iterable[int], top: int, heatmaps: str) -> int:
    """Count the images that are explained: of each group the ``top`` highest and `FLAGGED`, or all, or none."""
    if heatmaps == "none":
        return 0
    return sum(n if heatmaps == "all" else min(n, top + ceil(FLAGGED * n)) for n in groups)


@dataclass(frozen=True, kw_only=True)
class Night:
    """Reckon a night in which no image was embedded before: ``images`` that can be read, ``shown`` to be explained.

    ``cores`` are the CPU cores of the whole ``cluster``; both are None where nothing is known of the machines.
    """

    images: int
    shown: int
    each: PerImage
    cluster: Cluster | None = None
    cores: Known | None = None

    @property
    def read(self) -> Stage:
        """Give the reading of the archive."""
        each = self.each.megabytes
        source = f"{each.value:.3g} MB an image {each.source}"
        if self.cluster is not None:
            known = CALIBRATED if self.cluster.figures.source.startswith(MEASURED) else ASSUMED
            source += f", {self.cluster.figures.read_bytes / 1e9:.3g} GB/s per node {known}"
        return Stage("read", self.images, self.images * each.value / 1e3, self._reading(self.images), source)

    @property
    def decode(self) -> Stage:
        """Give the decoding."""
        return self._by_cores("decode", self.images, self.each.decode, 0.0)

    @property
    def embed(self) -> Stage:
        """Give the embedding."""
        each = self.each.embed
        if each is None:
            return Stage("embed", self.images, None, None, "")
        work = self.images * each.value
        seconds = None if self.cluster is None else work / self.cluster.actors
        return Stage("embed", self.images, work, seconds, f"{1 / each.value:.3g} images/s per actor {each.source}")

    @property
    def explain(self) -> Stage:
        """Give what is made for the images that are shown: they are read and decoded again."""
        return self._by_cores("explain", self.shown, self.each.explain, self._reading(self.shown) or 0.0)

    @property
    def fed(self) -> Stage | None:
        """Give the slowest of the three that work at once; on CPUs, decoding and embedding share the cores.

        None where one of them has no seconds.
        """
        read, decode, embed = self.read, self.decode, self.embed
        if self.cluster is None or read.seconds is None or decode.seconds is None or embed.seconds is None:
            return None
        if self.cluster.figures.device == "cpu":
            both = replace(decode, name="decode and embed", seconds=decode.seconds + embed.seconds)
            return max(read, both, key=_seconds)
        return max(read, decode, embed, key=_seconds)

    def seconds(self, scoring: float) -> float | None:
        """Add up the actors' start, the slowest of what feeds them, ``scoring`` with its start, and explaining."""
        if self.cluster is None or self.fed is None:
            return None
        return self.cluster.figures.start_seconds + _seconds(self.fed) + scoring + _seconds(self.explain)

    def _by_cores(self, name: str, images: int, each: Known, more: float) -> Stage:
        source, work = f"{each.value:.3g} s of a core an image {each.source}", images * each.value
        if self.cores is None:
            return Stage(name, images, work, None, source)
        source += f", {self.cores.value:g} cores {self.cores.source}"
        return Stage(name, images, work, work / self.cores.value + more, source)

    def _reading(self, images: int) -> float | None:
        if self.cluster is None:
            return None
        return images * self.each.megabytes.value * 1e6 / (self.cluster.figures.read_bytes * self.cluster.nodes)


def _seconds(stage: Stage) -> float:
    return stage.seconds or 0.0

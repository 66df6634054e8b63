"""The stages of a night against naive sums, and that every figure says where it comes from."""

from __future__ import annotations

import pytest

from patchead.encoders import EncoderSpec
from patchead.encoders.advice import GFLOP
from patchead.forecast.cluster import Cluster
from patchead.forecast.device_speeds import EFFICIENCY, DeviceFigures, named
from patchead.forecast.feed import DecodingPace, encoder_key
from patchead.forecast.stages import (
    CORES_PER_GPU,
    IMAGINED,
    Night,
    cores_of,
    embedding,
    per_image,
    shown_images,
)
from patchead.forecast.stages_report import night_lines, total_line
from patchead.maps.shown import FLAGGED
from tests.helpers.figures import figures

SPEC = EncoderSpec("timm/vit_small_patch14_dinov2", "random", image_size=224, layers=(6, 9, 12))
PACE = DecodingPace(images=6, seconds=0.1, explained=0.5, megapixels=12, megabytes=3)


def cluster(of: DeviceFigures, actors: int = 5, per_node: int = 2) -> Cluster:
    return Cluster(actors=actors, actors_per_node=per_node, figures=of, precision="fp32")


def night(machines: Cluster, cores: int | None = None, pace: DecodingPace = PACE) -> Night:
    each = per_image(pace, SPEC, machines.figures)
    return Night(images=1000, shown=40, each=each, cluster=machines, cores=cores_of(machines, cores))


def test_a_night_on_gpus_is_the_sum_of_its_stages() -> None:
    """Three nodes, the last with one actor; 16 cores each as given."""
    speeds = named("H100").model_copy(update={"source": "measured by nobody", "embed": {encoder_key(SPEC): 50.0}})
    found = night(cluster(speeds), cores=16)
    assert (found.read.work, found.read.seconds) == (3.0, pytest.approx(1000 * 3e6 / (3 * 1e9)))
    assert (found.decode.work, found.decode.seconds) == (100.0, pytest.approx(1000 * 0.1 / 48))
    assert (found.embed.work, found.embed.seconds) == (20.0, pytest.approx(1000 / 50 / 5))
    assert found.explain.seconds == pytest.approx(40 * 0.5 / 48 + 40 * 3e6 / (3 * 1e9))
    slowest = max(1.0, 1000 * 0.1 / 48, 4.0)
    assert found.seconds(70.0) == pytest.approx(30.0 + slowest + 70.0 + 20 / 48 + 0.04)
    assert found.fed is not None
    assert found.fed.name == "embed"


def test_on_cpus_decoding_and_embedding_share_the_cores() -> None:
    speeds = figures(threads=4, start_seconds=2.0, read_bytes=1e9, embed={encoder_key(SPEC): 20.0})
    found = night(cluster(speeds))
    decoding, embedding_ = 1000 * 0.1 / (5 * 4), 1000 / 20 / 5
    assert found.fed is not None
    assert (found.fed.name, found.fed.seconds) == ("decode and embed", pytest.approx(decoding + embedding_))
    assert found.seconds(1.0) == pytest.approx(2 + decoding + embedding_ + 1 + 40 * 0.5 / 20 + 40 * 3e6 / 3e9)


def test_an_encoder_without_a_measurement_has_the_operations_and_the_data_sheet() -> None:
    sheet = named("L4")
    found = embedding(EncoderSpec(f"{SPEC.name}.lvd142m", "hub", image_size=224, dtype="fp16"), sheet)
    assert found is not None
    assert found.value == pytest.approx(GFLOP["dinov2-small"] * 1e9 / 4 / (121e12 * EFFICIENCY))
    assert found.source == "by its data sheet"
    assert embedding(EncoderSpec("timm/vit_nothing", "hub", dtype="fp16"), sheet) is None
    assert embedding(SPEC, figures()) is None  # calibrated, but not for an encoder


def test_every_figure_says_where_it_comes_from() -> None:
    measured = figures(source="measured today", threads=4, embed={encoder_key(SPEC): 2.0})
    read, decode, embed, explain = night_lines(night(cluster(measured)), SPEC)
    assert read.startswith("read     1000 images, 3 GB, 1e-21 s: 3 MB an image of 12 megapixels, measured here on 6")
    assert read.endswith("per node as calibrated")
    assert decode.endswith("measured here on 6 of them, 20 cores as calibrated")
    assert "2 images/s per actor as calibrated; 1 CPU core keeps an actor busy" in embed
    assert "0.5 s of a core an image" in explain
    assert explain.endswith("2% flagged assumed")
    imagined = night(cluster(named("H100"), 4, 8), pace=IMAGINED)
    read, decode, embed, explain = night_lines(imagined, SPEC)
    assert read.endswith("of 5 megapixels, assumed, 1 GB/s per node assumed")
    assert decode.endswith(f"assumed, {4 * CORES_PER_GPU} cores assumed")
    assert "images/s per actor by its data sheet" in embed
    (total,) = total_line(imagined, 100.0)
    assert total.startswith(f"night    about {imagined.seconds(100.0):.3g} s: 30 s to start")


def test_what_has_no_figure_has_no_seconds() -> None:
    unknown = Night(images=10, shown=2, each=per_image(PACE, SPEC, None))
    lines = night_lines(unknown, SPEC)
    assert lines[0] == "read     10 images, 0.03 GB: 3 MB an image of 12 megapixels, measured here on 6 of them"
    assert lines[2].startswith("embed    10 images, no estimate: run `patchead calibrate --embed` for timm/vit_small")
    assert total_line(unknown, 100.0) == total_line(night(cluster(figures())), 100.0) == []


def test_the_images_that_are_shown() -> None:
    assert FLAGGED == 0.02
    assert shown_images([200, 30, 10], 20, "flagged") == (20 + 4) + (20 + 1) + 10
    assert shown_images([200, 30], 20, "all") == 230
    assert shown_images([200, 30], 20, "none") == 0

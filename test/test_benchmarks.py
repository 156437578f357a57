"""The baseline of the speed benchmark computes what ours does; work and memory are counted as they are used."""

import sys

import numpy as np
import pytest
import torch
from monai.inferers.utils import dense_patch_slices

from benchmarks import net2net, peak_memory
from benchmarks.baseline import OVERLAP, WINDOW, as_published
from benchmarks.inference import passes, tera_flop_of_a_pass
from benchmarks.net2net import net2net_widen
from model.networks.architecture import Architecture
from model.networks.build import build
from model.networks.generator import ResnetGenerator
from model.networks.layers import InstanceNorm, ReflectConv2d, SinglePlaneConv2d


def small_network() -> ResnetGenerator:
    torch.manual_seed(0)
    network = build(Architecture("resnet", 6, blocks=2)).eval()
    assert isinstance(network, ResnetGenerator)
    return network


def test_published_layers_predict_the_same() -> None:
    network, image = small_network(), torch.rand(2, 1, 64, 48)
    published = as_published(network)
    assert not any(isinstance(m, InstanceNorm | ReflectConv2d | SinglePlaneConv2d) for m in published.modules())
    with torch.inference_mode():
        assert torch.allclose(published(image), network(image), atol=1e-5)


def test_a_widened_network_predicts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net2net, "NOISE", 0.0)
    network, image = small_network(), torch.rand(1, 1, 64, 48)
    wide = net2net_widen(network, 16)
    assert wide.architecture.width == 16
    with torch.inference_mode():
        assert torch.allclose(wide(image), network(image), atol=1e-5)


@pytest.mark.parametrize("size", [512, 1000, 1024, 2048])
def test_windows_of_the_published_way_are_monais(size: int) -> None:
    step = int(WINDOW * (1 - OVERLAP))
    monais = dense_patch_slices((size, size), (WINDOW, WINDOW), (step, step))
    assert passes("published", size) == 4 * len(monais)


def test_work_of_the_papers_setting() -> None:
    assert passes("ours", 2048) == 1024
    assert passes("ours", 1024) == 144
    assert tera_flop_of_a_pass(64) == pytest.approx(0.453, rel=0.02)


def test_a_commands_peak_memory_is_its_own() -> None:
    here = np.ones(400_000_000, np.uint8)  # what the parent holds must not count
    _, small = peak_memory.run([sys.executable, "-c", "pass"])
    _, large = peak_memory.run([sys.executable, "-c", "b = bytearray(200_000_000); b[::1000] = b'1' * len(b[::1000])"])
    assert small < 0.1 and 0.2 < large < 0.3
    assert peak_memory.peak_gb() > len(here) / 1e9
    with pytest.raises(SystemExit, match="failed"):
        peak_memory.run([sys.executable, "-c", "raise SystemExit(3)"])

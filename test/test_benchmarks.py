"""The baseline of the speed benchmark computes what ours does; work and memory are counted as they are used."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_resources
from monai.inferers.utils import dense_patch_slices
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import net2net, peak_memory
from benchmarks.baseline import OVERLAP, WINDOW, as_published
from benchmarks.ensemble import part_of
from benchmarks.inference import passes, tera_flop_of_a_pass
from benchmarks.net2net import net2net_widen
from benchmarks.training_cost import CostCounter, Gpu, as_on_cuda, batch_of, count_step, draws
from model.labels import Modality, Organelle
from model.networks.architecture import Architecture
from model.networks.build import build
from model.networks.generator import ResnetGenerator
from model.networks.layers import InstanceNorm, ReflectConv2d, SinglePlaneConv2d
from model.routing import LowMagnification, Route, Routing
from training.index import Field, Index
from training.options import parse
from training.pix2pix_module import Pix2PixModule


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


def test_parts_of_ensembles(tmp_path: Path) -> None:
    routing = Routing.read(write_resources(tmp_path))
    first, second = (Route(name, Organelle.ACTIN) for name in ("pix2pix-bf", "unified"))
    ways = {**routing.routes[Modality.BF], Organelle.ACTIN: (first, second)}
    routing = replace(routing, routes={Modality.BF: ways}, low_magnification=LowMagnification(0.2, routing.routes))
    for members, expected in ((slice(0, 1), (first,)), (slice(1, 2), (second,)), (slice(None), (first, second))):
        part = part_of(routing, members)
        assert part.routes[Modality.BF] == {**ways, Organelle.ACTIN: expected}
        assert part.low_magnification == routing.low_magnification


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


def test_operations_bytes_and_living_tensors_are_counted() -> None:
    weight = torch.ones(100, 200)
    with CostCounter([weight]) as counter:
        product = weight.T @ weight  # 160 kB beside the 80 kB of the weight, which is read twice
        half = product[:100].to(torch.bfloat16)  # 40 kB of 80 kB
        del product
        half.add_(1)
    assert counter.flop == 2 * 200 * 100 * 200
    assert counter.operations[0] == (2 * counter.flop, 320_000)  # float32 at half the pace
    assert sum(moved for _, moved in counter.operations) == 320_000 + 120_000 + 80_000
    assert counter.peak_bytes == 80_000 + 160_000 + 40_000
    assert counter.seconds(Gpu("", 32e-6, 1.0)) == pytest.approx(1.0 + (120e3 + 80e3) / 0.8e9)


def test_a_training_step_is_counted_as_torch_does_it() -> None:
    labels = {Organelle.NUCLEUS: Path("n"), Organelle.ACTIN: Path("a")}
    index = Index((Field("Study_1", 1, Modality.BF, {0: Path("x")}, labels),))
    config, _ = parse(
        ["--modality", "BF", "--data", "d", "--output", "o", "--width", "4", "--crop", "64", "--precision", "bf16"]
    )
    mean, most, pairs = draws(index, config)
    assert mean == most and pairs == len(mean) * 2 == 4
    counter, state = count_step(config, mean)
    module = Pix2PixModule(config, torch.device("cpu"))
    with FlopCounterMode(display=False) as torchs:
        module.step([batch_of(mean, 64)], 1.0)
    assert counter.flop == torchs.get_total_flops()
    trained = [*module.network.encoder.parameters()]
    trained += [
        p for o in labels for m in (module.network.decoders[o], module.discriminators[o]) for p in m.parameters()
    ]
    everything = sum(p.nbytes for m in (module.network, module.discriminators) for p in m.parameters())
    assert state == pytest.approx(everything + 2 * sum(p.nbytes for p in trained), rel=0.01)
    assert state < counter.peak_bytes < sum(moved for _, moved in counter.operations)


def test_normalization_is_counted_in_the_format_of_cuda() -> None:
    image = torch.rand(1, 2, 8, 8, dtype=torch.bfloat16)
    with as_on_cuda():
        assert InstanceNorm()(image).dtype is torch.float32
    assert InstanceNorm()(image).dtype is torch.bfloat16

"""What each way of being faster gains by itself, on one window of 512 px.

    python -m benchmarks.ablation [--width 64] [--compile]

Every line differs from the one that it is measured against in one thing; both are timed in turn in this process, the
fastest of `--repeats` counts. The network is benchmarks/net2net.py's. Prints a Markdown table: times faster, and
PSNR in dB (against the range of 16 bit) to the published layers in float32. docs/performance.md says what was expected.
"""

import argparse
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baseline import PlainConv2d, PlainNorm, as_published
from benchmarks.inference import SOURCE
from benchmarks.net2net import CHECKPOINT, SHIPPED, net2net_widen
from model import checkpoint
from model.images import read_image
from model.labels import Organelle
from model.memory import tune_malloc
from model.networks.generator import ResnetGenerator
from model.networks.layers import InstanceNorm, SinglePlaneConv2d
from model.normalization import normalize_input
from model.precision import Precision

CPU = torch.device("cpu")
WINDOW = 512


@dataclass(frozen=True)
class Variant:
    """A way to compute, and the name of the way that it is measured against; the rate is per window."""

    against: str
    network: nn.Module
    precision: Precision = Precision.FP32
    batch: int = 1
    threads: int | None = None
    heads: tuple[Organelle, ...] | None = None

    def run(self, tiles_B1YX: Tensor) -> Tensor:
        with torch.inference_mode(), self.precision.on(CPU):
            output: Tensor = self.network(tiles_B1YX, self.heads) if self.heads else self.network(tiles_B1YX)
        return output


class FusedDecoders(nn.Module):
    """The decoders' first transposed convolutions, which all read the same features, as one four times as wide."""

    def __init__(self, network: ResnetGenerator) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.decoders: list[Any] = list(network.decoders.values())
        self.first = torch.cat([decoder.up[0].weight for decoder in self.decoders], dim=1)

    def forward(self, x_B1YX: Tensor) -> Tensor:
        features = self.encoder(x_B1YX, None)
        wide = F.conv_transpose2d(features, self.first, stride=2, padding=1, output_padding=1)
        parts = F.relu(self.decoders[0].norm(wide)).chunk(len(self.decoders), dim=1)
        last = [d.last(F.relu(d.norm(d.up[1](part)))) for d, part in zip(self.decoders, parts, strict=True)]
        return torch.tanh(torch.cat(last, dim=1))


def exchange(network: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy in which `make` has replaced every module of a kind."""
    other = copy.deepcopy(network)
    for parent in list(other.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))
    return other


def as_single_plane(child: nn.Module) -> nn.Module:
    """A plain convolution to one channel the way ours does it; others stay."""
    if not isinstance(child, PlainConv2d) or child.out_channels != 1:
        return child
    return _with_weights_of(child, SinglePlaneConv2d(child.in_channels, child.kernel_size[0]))


def as_plain(child: nn.Module) -> nn.Module:
    """Our convolution to one channel the plain way, which computes in the precision around it."""
    assert isinstance(child, SinglePlaneConv2d)
    return _with_weights_of(child, PlainConv2d(child.in_channels, 1, child.kernel_size[0]))


def _with_weights_of(source: nn.Module, target: nn.Module) -> nn.Module:
    target.load_state_dict(source.state_dict())
    return target


def variants(ours: ResnetGenerator, *, compiled: bool) -> dict[str, Variant]:
    """Every way by name; one that is measured against itself is where a comparison begins."""
    default_layout = copy.deepcopy(ours).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    published, shipped, bf16 = as_published(ours), "bfloat16", partial(Variant, precision=Precision.BF16)
    table = {
        "published layers, float32": Variant("published layers, float32", published),
        "normalisation as groups of one channel": Variant(
            "published layers, float32", exchange(published, PlainNorm, lambda _: InstanceNorm())
        ),
        "last layer's kernel rows as channels": Variant(
            "published layers, float32", exchange(published, PlainConv2d, as_single_plane)
        ),
        "both": Variant("published layers, float32", default_layout),
        "channels last": Variant("both", ours),
        shipped: bf16("channels last", ours),
        "bfloat16, not channels last": bf16(shipped, default_layout),
        "bfloat16 in the last layer too": bf16(shipped, exchange(ours, SinglePlaneConv2d, as_plain)),
        "float16": Variant("channels last", ours, Precision.FP16),
        "two windows a batch": bf16(shipped, ours, batch=2),
        "four windows a batch": bf16(shipped, ours, batch=4),
        "first layers of the decoders as one": bf16(shipped, FusedDecoders(ours)),
        "a decoder left out": bf16(shipped, ours, heads=tuple(Organelle)[:3]),
        "one thread": bf16(shipped, ours, threads=1),
    }
    if compiled:
        table["torch.compile"] = bf16(shipped, cast(nn.Module, torch.compile(ours)))
    return table


def seconds_a_window(lever: Variant, tiles_B1YX: Tensor) -> float:
    """One run of the lever; another number of threads only for its time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(lever.threads or threads)
    began = time.perf_counter()
    lever.run(tiles_B1YX)
    seconds = (time.perf_counter() - began) / len(tiles_B1YX)
    torch.set_num_threads(threads)
    return seconds


def psnr_db(found_CYX: Tensor, expected_CYX: Tensor) -> float:
    noise = float((found_CYX.double() - expected_CYX.double()).square().mean().sqrt())
    return float("inf") if noise == 0 else 20 * math.log10(2 / noise)  # of [-1, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile too; needs a C++ compiler")
    parser.add_argument("--default-allocator", action="store_true", help="leave freed memory to the C library")
    options = parser.parse_args()
    if not options.default_allocator:
        tune_malloc()
    network, metadata = checkpoint.load(SHIPPED / CHECKPOINT)
    assert isinstance(network, ResnetGenerator)
    wide = net2net_widen(network, options.width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = np.tile(read_image(SOURCE).pixels, (2, 2))[:WINDOW, :WINDOW]
    tile_11YX = torch.from_numpy(normalize_input(image, metadata.input_normalization))[None, None]
    table = variants(wide, compiled=options.compile)
    expected = table["published layers, float32"].run(tile_11YX)[0]
    print("| | against | s a window | times faster | PSNR, dB |\n|" + "---|" * 5)
    for name, lever in table.items():
        began = time.perf_counter()
        output = lever.run(tile_11YX)[0]
        start_up = time.perf_counter() - began
        tiles, base = tile_11YX.expand(lever.batch, -1, -1, -1).contiguous(), table[lever.against]
        pairs = [(seconds_a_window(base, tile_11YX), seconds_a_window(lever, tiles)) for _ in range(options.repeats)]
        before, after = (min(column) for column in zip(*pairs, strict=True))
        psnr = psnr_db(output, expected[: len(output)])
        print(f"| {name} | {lever.against} | {after:.2f} | {before / after:.2f} | {psnr:.0f} |", flush=True)
        if name == "torch.compile":
            print(f"\ntorch.compile: {start_up:.0f} s for the first window.")


if __name__ == "__main__":
    main()

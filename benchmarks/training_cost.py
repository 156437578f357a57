"""What a training step of the paper's four networks costs at full size, and what follows for GPUs that are not here.

    python -m benchmarks.training_cost --data lmc_train

The data set's file names are enough: they tell the steps of a run, and which organelles a batch labels. Each network
then takes two steps on the CPU, with random pixels, in the number formats that CUDA's autocast would choose: with
about the mean number of targets, and with the most. Counted, not timed: of the first its floating-point operations and
the bytes that each operation reads and writes, of the second the largest sum of all tensors that live at the same
time. Hours are arithmetic: each operation lasts as long as its multiplications and additions take at COMPUTE_SHARE of
the GPU's dense bfloat16 peak (float32: half of it), or its bytes at BANDWIDTH_SHARE of the memory's bandwidth,
whichever is longer. Both shares are assumptions. Prints Markdown tables.
"""

import argparse
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from model.images import write_plane
from model.labels import Organelle
from model.networks.layers import InstanceNorm
from model.precision import Precision
from model.preprocessing import Preprocessing
from training.batches import Batch
from training.config import RunConfig
from training.index import Field, Index, hold_out
from training.options import RECIPE_FOLDER, parse
from training.pix2pix_module import Pix2PixModule
from training.plane_cache import read_input
from training.sampling import BalancedSampler, Pick
from training.scan import scan

COMPUTE_SHARE = 0.5
BANDWIDTH_SHARE = 0.8
DRAWS = 1000
WARM_UP_CROP = 64
LARGEST_PLANE = 2048

LIGHT_MY_CELLS = str(RECIPE_FOLDER / "light_my_cells.toml")
RUNS = {
    "pix2pix BF": ("--config", LIGHT_MY_CELLS, "--modality", "BF"),
    "pix2pix PC": ("--config", LIGHT_MY_CELLS, "--modality", "PC"),
    "pix2pix DIC": ("--config", LIGHT_MY_CELLS, "--modality", "DIC"),
    "UNet++": ("--config", LIGHT_MY_CELLS, "--modality", "all", "--recipe", "unetplusplus"),
}
"""The options of docs/light-my-cells.md."""


@dataclass(frozen=True)
class Gpu:
    """Dense bfloat16 peak with float32 sums in TFLOP/s, and memory bandwidth in GB/s, as the vendor states them."""

    name: str
    tera_flops: float
    gigabytes_a_second: float


GPUS = (
    Gpu("RTX 3090, 24 GB", 71, 936),
    Gpu("RTX 4090, 24 GB", 165, 1008),
    Gpu("L40S, 48 GB", 362, 864),
    Gpu("A100, 40 GB", 312, 1555),
    Gpu("H100 SXM, 80 GB", 989, 3350),
)


class CostCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what the operations within it cost.

    Parameters
    ----------
    living : iterable of Tensor
        What is there beforehand.

    Attributes
    ----------
    operations : list of (int, int)
        Floating-point operations, those in float32 counted twice, and bytes read and written, of each operation.
    flop : int
        Floating-point operations in all, each counted once.
    peak_bytes : int
        The largest sum of all living tensors.
    """

    def __init__(self, living: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[int, int]] = []
        self.flop = self.peak_bytes = self._bytes = 0
        self._living: dict[int, weakref.ref[Any]] = {}
        for tensor in living:
            self._see(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs, outputs = _tensors((args, kwargs)), _tensors(out)
        for tensor in chain(inputs, outputs):
            self._see(tensor)
        if not func.is_view:
            count = flop_registry.get(func._overloadpacket)
            flop = count(*args, **kwargs, out_val=out) if count else 0
            slow = any(tensor.dtype is torch.float32 for tensor in inputs[:1])
            self.flop += flop
            self.operations.append((flop * (1 + slow), sum(t.nbytes for t in chain(inputs, outputs))))
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._living:
            return

        def forget(_: object) -> None:
            del self._living[key]
            self._bytes -= size

        self._living[key] = weakref.ref(storage, forget)
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)

    def seconds(self, gpu: Gpu) -> float:
        """The least that the operations take on a GPU at the assumed shares of its peaks."""
        flops, bandwidth = COMPUTE_SHARE * gpu.tera_flops * 1e12, BANDWIDTH_SHARE * gpu.gigabytes_a_second * 1e9
        return sum(max(flop / flops, moved / bandwidth) for flop, moved in self.operations)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """CUDA's autocast normalizes in float32, which doubles these tensors; the CPU's keeps 16 bits."""
    ours = InstanceNorm.forward
    InstanceNorm.forward = lambda self, x_BCYX: F.group_norm(x_BCYX.float(), x_BCYX.shape[1])  # type: ignore[method-assign]
    try:
        yield
    finally:
        InstanceNorm.forward = ours  # type: ignore[method-assign]


def draws(index: Index, config: RunConfig) -> tuple[list[Pick], list[Pick], float]:
    """Of DRAWS batches: one with about the mean number of labelled pairs, one with the most; and the mean."""
    sampler = BalancedSampler(index.fields, config.batch_per_organelle, config.seed)
    drawn = sorted((sampler.draw(number)[0] for number in range(DRAWS)), key=labelled_pairs)
    mean = sum(map(labelled_pairs, drawn)) / len(drawn)
    return min(drawn, key=lambda picks: abs(labelled_pairs(picks) - mean)), drawn[-1], mean


def labelled_pairs(picks: Sequence[Pick]) -> int:
    """Number of targets of a batch."""
    return sum(len(pick.field.labels) for pick in picks)


def batch_of(picks: Sequence[Pick], crop: int) -> Batch:
    """Random pixels with the labels of a batch that was drawn."""
    organelles = tuple(o for o in Organelle if any(o in pick.field.labels for pick in picks))
    labelled = torch.tensor([[o in pick.field.labels for o in organelles] for pick in picks])
    x, y = torch.rand(len(picks), 1, crop, crop), torch.rand(len(picks), len(organelles), crop, crop)
    return Batch(2 * x - 1, 2 * y - 1, labelled, organelles, tuple(pick.field.modality for pick in picks))


def count_step(config: RunConfig, picks: Sequence[Pick]) -> tuple[CostCounter, int]:
    """What one step costs, and the bytes of weights and of Adam's moments; a small first step has made these."""
    torch.manual_seed(0)
    module = Pix2PixModule(config, torch.device("cpu"))
    module.precision = Precision.BF16
    module.step([batch_of(picks, WARM_UP_CROP)], 1.0)
    state = _tensors(module.state())
    batch = batch_of(picks, config.crop)
    with as_on_cuda(), CostCounter([*state, batch.x_B1YX, batch.y_BCYX]) as counter:
        module.step([batch], 1.0)
    return counter, sum(tensor.nbytes for tensor in state)


def validation_bytes(config: RunConfig) -> int:
    """The largest sum of living tensors while a plane of LARGEST_PLANE is predicted, from one of a crop's size."""
    module = Pix2PixModule(config, torch.device("cpu"))
    module.precision = Precision.BF16
    field = Field("", 0, config.modalities[0], {}, dict.fromkeys(Organelle, Path()))
    batch = batch_of([Pick(0, field, 0)], config.crop)
    with torch.no_grad(), as_on_cuda(), CostCounter([batch.x_B1YX]) as counter:
        module.predict(module.eval_network.eval(), batch)
    peak: int = counter.peak_bytes
    return round(peak * (LARGEST_PLANE / config.crop) ** 2)


def reading_seconds(config: RunConfig) -> float:
    """Seconds of one core to read and normalize a plane of LARGEST_PLANE."""
    noise = np.random.default_rng(0).normal(3000, 100, (LARGEST_PLANE, LARGEST_PLANE)).astype(np.uint16)
    preprocessing = Preprocessing(config.input_normalization, config.pixel_size_um)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image_1_BF_z0.ome.tiff"
        write_plane(path, noise, channel="BF", pixel_size_um=(0.1, 0.1))
        seconds = []
        for _ in range(5):
            began = time.process_time()
            read_input(path, preprocessing)
            seconds.append(time.process_time() - began)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in the challenge's layout; names are enough")
    options = parser.parse_args()
    index = scan([options.data])
    head = "steps | inputs a field | samples, targets a batch | TFLOP | GB moved | GB alive | GB validating | GB state"
    print(f"| | {head} |\n|{'---|' * 9}")
    hours: dict[str, list[str]] = {gpu.name: [] for gpu in GPUS}
    for name, arguments in RUNS.items():
        config, _ = parse([*arguments, "--data", str(options.data), "--output", "unused"])
        training, _ = hold_out(index.only(config.modalities), config.validation_studies)
        mean, most, pairs = draws(training, config)
        steps = -(-len(training.fields) // len(mean)) * round(config.schedule.total)
        counter, state = count_step(config, mean)
        peak = count_step(config, most)[0].peak_bytes
        moved = sum(moved for _, moved in counter.operations)
        cells = [f"{steps:,}", f"{training.inputs() / len(training.fields):.1f}", f"{len(mean)}, {pairs:.1f}"]
        cells += [f"{counter.flop / 1e12:.2f}", f"{moved / 1e9:.0f}", f"{peak / 1e9:.1f}"]
        cells += [f"{validation_bytes(config) / 1e9:.1f}", f"{state / 1e9:.2f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        for gpu in GPUS:
            seconds = counter.seconds(gpu)
            share = counter.flop / seconds / (gpu.tera_flops * 1e12)
            hours[gpu.name].append(f"{steps * seconds / 3600:.1f} ({1000 * seconds:.0f} ms, {share:.0%})")
    print("\nHours (a step, and the share of the GPU's peak that this is):\n")
    print("| | " + " | ".join(RUNS) + " |\n|" + "---|" * (1 + len(RUNS)))
    for gpu_name, cells in hours.items():
        print(f"| {gpu_name} | " + " | ".join(cells) + " |")
    print(f"\nReading a plane of {LARGEST_PLANE}²: {reading_seconds(config):.3f} s of one core.")


if __name__ == "__main__":
    main()

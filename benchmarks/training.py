"""Samples a second of a training step: fed by a plain loop, and by our loader; with other layouts, and compiled.

    python -m benchmarks.training --data DIR [--recipe pix2pix] [--steps 60] [--compile]

The plain loop reads, resamples and scales every image when its batch needs it, and the network waits. The loader
does so in a thread, a batch ahead, and keeps what was prepared. Both feed the same module the same batches, in
turn, after a first round in which the cache fills. Prints samples a second, the ratio, and the share of time in
which the network waited for images. Then steps from the loader with weights in either memory layout and, where asked
for, through torch.compile, in turn after a first round (in which it compiles), against the first of them.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.devices import find_device
from model.memory import tune_malloc
from model.normalization import InputNormalization, TargetNormalization
from model.preprocessing import Preprocessing
from training.batches import Batch, FieldBatches, Loader
from training.check import check
from training.config import RECIPES, TrainingConfig
from training.pix2pix_module import Pix2PixModule
from training.plane_cache import PlaneCache
from training.scan import scan


@dataclass(frozen=True)
class Pace:
    samples_a_second: float
    waiting: float


def run(module: Pix2PixModule, batches: Iterator[list[Batch]], steps: int) -> Pace:
    """Take steps; how fast, and what share of the time went by before a batch was there."""
    samples, waited, began = 0, 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        module.step(batch, 1.0)
        samples += sum(len(part.modalities) for part in batch)
    seconds = time.perf_counter() - began
    return Pace(samples / seconds, waited / seconds)


def plainly(source: FieldBatches) -> Iterator[list[Batch]]:
    """The same batches, each made when it is asked for."""
    number = 0
    while True:
        yield [source.make(number)]
        number += 1


def variants(config: TrainingConfig, device: torch.device) -> dict[str, Pix2PixModule]:
    """The same module with its weights in either layout, and compiled where the configuration says so."""
    found = {}
    for compiled in {False, config.compile}:
        for name, layout in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
            module = Pix2PixModule(replace(config, compile=compiled), device)
            for part in (module.network, module.discriminators):
                if part is not None:
                    part.to(memory_format=layout)  # type: ignore[call-overload]
            found[name + (", compiled" if compiled else "")] = module
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the challenge's layout")
    parser.add_argument("--recipe", choices=RECIPES, default="pix2pix")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--steps", type=int, default=60, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also through torch.compile")
    options = parser.parse_args()
    tune_malloc()
    config = TrainingConfig(
        recipe=options.recipe,
        modality="all",
        width=options.width,
        crop=options.crop,
        discriminator_width=8,
        lambda_gan=float(options.recipe == "pix2pix"),
        compile=options.compile,
    )
    device = find_device("auto")
    module = Pix2PixModule(replace(config, compile=False), device)
    preprocessing = Preprocessing(InputNormalization.FLATFIELD, (0.25, 0.35))

    def cache(gigabytes: int) -> PlaneCache:
        return PlaneCache(preprocessing, TargetNormalization.PERCENTILE, gigabytes << 30)

    index = check(scan(options.data), preprocessing)
    plain = plainly(FieldBatches(index, cache(0), config))
    ours = Loader(FieldBatches(index, cache(4), config))
    rounds = [(run(module, plain, options.steps), run(module, ours, options.steps)) for _ in range(options.rounds)]
    print(f"{options.recipe}, width {options.width}, crops of {options.crop} px, {device} in {module.precision}")
    print("| round | plain loop, samples/s | waiting | loader, samples/s | waiting | ratio |\n|" + "---|" * 6)
    for number, (before, after) in enumerate(rounds, start=1):
        ratio = after.samples_a_second / before.samples_a_second
        cells = [number, f"{before.samples_a_second:.2f}", f"{before.waiting:.0%}"]
        cells += [f"{after.samples_a_second:.2f}", f"{after.waiting:.1%}", f"{ratio:.2f}"]
        print("| " + " | ".join(map(str, cells)) + " |")
    modules = variants(config, device)
    paces: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(1 + options.rounds):
        for name, variant in modules.items():
            paces[name].append(run(variant, ours, options.steps).samples_a_second)
    ours.close()
    print("\n| variant | first round, samples/s | then | ratio |\n|" + "---|" * 4)
    baseline = max(paces["contiguous"][1:])
    for name, (first, *then) in paces.items():
        print(f"| {name} | {first:.2f} | {max(then):.2f} | {max(then) / baseline:.2f} |")


if __name__ == "__main__":
    main()

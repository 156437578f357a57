"""Crops a second of one core that a training gets from stored specimens, with normalization and appearance.

    python simulate.py --output data/specimens --specimens --fields 60 --setting mixed --seed 1
    OMP_NUM_THREADS=1 python -m benchmarks.renderer --specimens data/specimens

Process time is counted, not the clock. A plane is rendered once and serves `reuse` batches, one crop each.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from model.normalization import InputNormalization, normalize_input
from simulation.renderer import PlaneStream, SpecimenRenderer
from training.appearance import AppearanceConfig, change_appearance
from training.augmentation import Augmentation
from training.options import RECIPE_FOLDER, read_table

NETWORK_UM = (0.25, 0.35)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specimens", type=Path, required=True)
    parser.add_argument("--side", type=int, default=384, help="of a plane, in pixels of the network's grid")
    parser.add_argument("--crop", type=int, default=176)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    renderer = SpecimenRenderer(options.specimens)
    config = AppearanceConfig(**read_table(RECIPE_FOLDER / "appearance.toml")["appearance"])
    print("| reuse | crops a CPU second |\n|---|---|")
    for reuse in (1, 4, 6):
        stream = PlaneStream(renderer, 0, options.batch, options.side, NETWORK_UM, reuse)
        for sample in range(options.batch):
            stream.plane(0, sample)
        began = time.process_time()
        for number in range(1, options.batches + 1):
            rng = np.random.default_rng([0, number])
            for plane in (stream.plane(number, sample) for sample in range(options.batch)):
                x = normalize_input(plane.pixels, InputNormalization.FLATFIELD)
                augmentation = Augmentation.draw(rng, (options.side, options.side), options.crop)
                change_appearance(augmentation.apply(x, options.crop), plane.modality, config, rng)
                for target in plane.targets:
                    augmentation.apply(target, options.crop)
        rate = options.batch * options.batches / (time.process_time() - began)
        print(f"| {reuse} | {rate:.1f} |", flush=True)


if __name__ == "__main__":
    main()

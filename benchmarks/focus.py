"""How far from the best focus `--z best` is, on simulated stacks of known focus.

    python -m benchmarks.focus --stacks 36 --seed 646464

A stack has 13 planes of 1 µm; the best is anywhere in the middle half. Printed is the mean distance from it in planes,
and the share of stacks within one plane, for the measure in use and for others.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.focus import SCALE_PX, laplacian_variance
from model.labels import Modality
from simulation.microscope import Setting
from simulation.study import draw_study, render

SETTINGS: tuple[Setting, ...] = ("challenge", "ordinary")
PLANES, STEP_UM, SIZE_PX = 13, 1.0, 224
Measure = Callable[[NDArray[np.uint16]], float]


def normalized_variance(plane: NDArray[np.uint16]) -> float:
    return float((plane / plane.mean()).var())


def measures(modality: Modality) -> dict[str, Measure]:
    """Larger in focus."""
    scale = SCALE_PX[modality]
    return {
        f"--z best (Laplacian after {scale:g} px)": lambda plane: laplacian_variance(plane, scale),
        "variance of Laplacian": lambda plane: laplacian_variance(plane, 0),
        "largest variance": normalized_variance,
        "least variance": lambda plane: -normalized_variance(plane),
    }


def draw_stack(rng: np.random.Generator, modality: Modality, setting: Setting) -> tuple[NDArray[np.uint16], int]:
    """Planes (Z, Y, X), and the index of the one nearest to the best focus."""
    study = draw_study(rng, modality, setting)
    offsets = STEP_UM * (np.arange(PLANES) - PLANES // 2 + np.round(rng.uniform(-3, 3)) + rng.uniform(-0.5, 0.5))
    field = render(rng, study, SIZE_PX, PLANES, offsets)
    return field.planes, field.best_plane


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stacks", type=int, default=36, help="of each modality and setting (%(default)s)")
    parser.add_argument("--seed", type=int, default=646464)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| modality, setting | measure | mean distance, planes | within one plane |\n|---|---|---|---|")
    for number, modality in enumerate(Modality):
        for setting in SETTINGS:
            distances: dict[str, list[int]] = {name: [] for name in measures(modality)}
            for stack in range(options.stacks):
                rng = np.random.default_rng([options.seed, number, setting == "ordinary", stack])
                planes, best = draw_stack(rng, modality, setting)
                for name, measure in measures(modality).items():
                    distances[name].append(abs(int(np.argmax([measure(plane) for plane in planes])) - best))
            for name, found in distances.items():
                near = np.mean(np.array(found) <= 1)
                print(f"| {modality}, {setting} | {name} | {np.mean(found):.2f} | {near:.0%} |", flush=True)


if __name__ == "__main__":
    main()

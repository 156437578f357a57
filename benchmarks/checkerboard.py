"""Whether networks print a grid: energy of predictions at periods of 2 and 4 px over that at neighbouring frequencies.

    python -m benchmarks.checkerboard --data runs/quality/data

Transposed convolutions reach their output pixels with different numbers of weights, which shows as lines at these
periods in the power spectrum of what a network predicts, on its own grid, without rotations. 1 is no grid; on a few
planes it scatters by 0.15, also behind a filter that leaves none. Prints Markdown and writes
benchmarks/results/checkerboard.json.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.planes import planes
from model import InferenceSettings, Modality, Organelle, Predictor

RESULTS = Path(__file__).with_name("results") / "checkerboard.json"
PERIODS_PX = (2, 4)
NEIGHBOURS = range(4, 13)
"""Bins on either side that count as neighbours: beyond the window's own width, still of similar energy."""


def grid_energy(image_YX: NDArray[np.float32], period_px: int) -> tuple[float, float]:
    """Mean power on the two lines of a period, and on their neighbours, of a plane with sides of whole periods."""
    height, width = (size // 4 * 4 for size in image_YX.shape)
    image_YX = image_YX[:height, :width] - image_YX.mean()
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.fft2(image_YX * window)) ** 2
    lines, neighbours = [], []
    for spectrum in (power, power.T):
        bins = len(spectrum)
        line = bins // period_px
        lines.append(spectrum[line].mean())
        neighbours.append(np.mean([spectrum[(line + sign * step) % bins] for step in NEIGHBOURS for sign in (-1, 1)]))
    return float(np.mean(lines)), float(np.mean(neighbours))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="simulated fields in the challenge's layout")
    parser.add_argument("--resources", type=Path, help="folder of checkpoints (default: the shipped ones)")
    parser.add_argument("--planes", type=int, default=108, help="planes for each modality")
    options = parser.parse_args()
    energies: dict[tuple[Modality, Organelle, int], list[tuple[float, float]]] = defaultdict(list)
    seen: dict[Modality, int] = defaultdict(int)
    settings = InferenceSettings(overlap=0.25, rotations=1, whole_image=True)
    with Predictor.open(options.resources, settings=settings) as predictor:
        for plane in planes(options.data):
            modality = plane.name.modality
            if seen[modality] >= options.planes:
                continue
            seen[modality] += 1
            image = plane.image
            plan = predictor.plan(modality, image.info.shape, image.info.pixel_size_um)
            for organelle, output_YX in predictor.forward(predictor.preprocess(image.pixels, plan)).mean.items():
                for period in PERIODS_PX:
                    energies[modality, organelle, period].append(grid_energy(output_YX.numpy(), period))
    ratios = {key: float(np.divide(*np.sum(pairs, axis=0))) for key, pairs in energies.items()}
    print("| | " + " | ".join(f"{m}, period {p} px" for m in Modality for p in PERIODS_PX) + " |\n|" + "---|" * 7)
    for organelle in Organelle:
        cells = [f"{ratios[m, organelle, p]:.2f}" for m in Modality for p in PERIODS_PX]
        print(f"| {organelle} | " + " | ".join(cells) + " |")
    document = {f"{m} {o} {p} px": round(value, 4) for (m, o, p), value in sorted(ratios.items())}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

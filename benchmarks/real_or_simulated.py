"""Can a small classifier tell simulated crops from real ones, and what does it look at?

    python simulate.py --output data/likeness --modalities PC --setting ordinary --fields 80 --planes 2 --seed 77
    python -m benchmarks.real_or_simulated --simulated data/likeness --modality PC --pixels 0.25 0.7 \
        --real ../shared/real/Study_104 --images 4007 4008 4009 4010 4011 --real-pixel 0.45

Crops are normalized as networks see them. The classifier is a logistic regression on a few dozen statistics: spectrum,
grey values, how unevenly detail is spread. It is trained on all images but one group of each kind and scored on those,
both kinds weighing the same: .5 is chance, 1 tells all. Statistics are printed with the weight it gives them, strongest
first, and the difference of the means in standard deviations of the real crops.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.planes import planes
from model.labels import Modality
from model.normalization import InputNormalization, normalize_input
from model.resampling import resample_image

GRID_UM = 0.35
CROP_PX = 128
PERCENTILES = (1, 5, 25, 75, 95, 99)
BANDS = np.geomspace(2 / CROP_PX, 0.5, 11)  # cycles/pixel
LOCAL_PX = 6.0
FOLDS = 5
RIDGE = 0.03

Features = NDArray[np.float64]
NAMES = (
    *(f"spectrum at {np.sqrt(a * b) / GRID_UM:.2f} cycles/µm" for a, b in pairwise(BANDS)),
    *(f"{p} % grey" for p in PERCENTILES),
    "skewness",
    "standard deviation",
    *(f"{p} % of local detail over its median" for p in (10, 90, 99)),
    "noise between neighbours",
)


def statistics(crop: NDArray[np.float32]) -> list[float]:
    """Values in the order of NAMES of one normalized crop (Y, X)."""
    window = np.hanning(CROP_PX)[:, None] * np.hanning(CROP_PX)
    power = np.abs(np.fft.rfft2((crop - crop.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(CROP_PX)[:, None], np.fft.rfftfreq(CROP_PX))
    band = np.digitize(frequency, BANDS)
    spectrum = [float(np.log10(power[band == k].mean() + 1e-9)) for k in range(1, len(BANDS))]
    spread = max(float(crop.std()), 1e-6)
    detail = crop - ndimage.gaussian_filter(crop, 1.5)
    local = np.sqrt(np.maximum(ndimage.gaussian_filter(detail**2, LOCAL_PX), 1e-12))
    unevenness = np.log(np.percentile(local, (10, 90, 99)) / np.median(local))
    noise = ndimage.convolve(crop, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6)
    return [
        *spectrum,
        *map(float, np.percentile(crop, PERCENTILES)),
        float(((crop - crop.mean()) ** 3).mean() / spread**3),
        spread,
        *map(float, unevenness),
        float(np.log(np.median(np.abs(noise)) + 1e-6)),
    ]


def measure(
    folder: Path, modality: Modality, images: Sequence[int], pixel_um: float | None, limits: tuple[float, float]
) -> tuple[Features, NDArray[np.int64]]:
    """Statistics (N, F) of all whole crops of a folder's planes, and which image each is of."""
    rows, groups = [], []
    for plane in planes(folder):
        if plane.name.modality is not modality or (images and plane.name.image not in images):
            continue
        image = plane.image
        size = image.info.pixel_size_um
        pixel = pixel_um or (size[0] if size else GRID_UM)
        if not limits[0] <= pixel <= limits[1]:
            continue
        shape = (round(image.pixels.shape[0] * pixel / GRID_UM), round(image.pixels.shape[1] * pixel / GRID_UM))
        x = normalize_input(resample_image(image.pixels, shape), InputNormalization.FLATFIELD)
        for top in range(0, shape[0] - CROP_PX + 1, CROP_PX):
            for left in range(0, shape[1] - CROP_PX + 1, CROP_PX):
                crop = x[top : top + CROP_PX, left : left + CROP_PX]
                if (crop != 0).mean() > 0.98:  # not the empty margin of a registration
                    rows.append(statistics(crop))
                    groups.append(plane.name.image)
    if not rows:
        raise SystemExit(f"{folder}: found no {modality} crop of {CROP_PX} pixels")
    return np.array(rows), np.array(groups)


def fit(x: Features, y: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[Features, float]:
    """Logistic regression with a ridge: coefficients (F,) and intercept."""
    inputs, labels, weights = (torch.from_numpy(array) for array in (x, y, weight / weight.sum()))
    parameters = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        logits = inputs @ parameters[:-1] + parameters[-1]
        parts = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        total = (parts * weights).sum() + RIDGE * parameters[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = parameters.detach().numpy()
    return found[:-1], float(found[-1])


def tell_apart(simulated: tuple[Features, NDArray[np.int64]], real: tuple[Features, NDArray[np.int64]]) -> float:
    """Balanced accuracy on images that the classifier has not seen."""
    rng = np.random.default_rng(0)
    x = np.concatenate([simulated[0], real[0]])
    y = np.concatenate([np.zeros(len(simulated[0])), np.ones(len(real[0]))])
    fold = np.concatenate([_folds(groups, rng) for groups in (simulated[1], real[1])])
    correct: list[list[bool]] = [[], []]
    for held_out in range(FOLDS):
        seen = fold != held_out
        mean, deviation = x[seen].mean(axis=0), x[seen].std(axis=0) + 1e-9
        weight = np.where(y[seen] == 1, 1 / max((y[seen] == 1).sum(), 1), 1 / max((y[seen] == 0).sum(), 1))
        slope, intercept = fit((x[seen] - mean) / deviation, y[seen], weight)
        called_real = (x[~seen] - mean) / deviation @ slope + intercept > 0
        for kind in (0, 1):
            correct[kind].extend((called_real == kind)[y[~seen] == kind])
    return float(np.mean([np.mean(kind) for kind in correct]))


def _folds(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    names = rng.permutation(np.unique(groups))
    order = {name: k % FOLDS for k, name in enumerate(names)}
    return np.array([order[group] for group in groups])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=Path, required=True, help="simulate.py's output")
    parser.add_argument("--real", type=Path, required=True, help="folder of real images")
    parser.add_argument("--images", type=int, nargs="*", default=(), help="numbers of the real images (all)")
    parser.add_argument("--modality", type=Modality, choices=list(Modality), default=Modality.PC)
    parser.add_argument("--pixels", type=float, nargs=2, default=(0.06, 0.7), help="simulated ones within, µm")
    parser.add_argument("--real-pixel", type=float, help="µm, where the files state none or a wrong one")
    options = parser.parse_args()
    limits = (options.pixels[0], options.pixels[1])
    simulated = measure(options.simulated, options.modality, (), None, limits)
    real = measure(options.real, options.modality, options.images, options.real_pixel, (0, np.inf))
    accuracy = tell_apart(simulated, real)
    print(f"{options.modality}: {len(simulated[0])} simulated crops, {len(real[0])} real ones of {options.real.name}")
    print(f"Told apart on unseen images: balanced accuracy {accuracy:.2f} (chance .50)\n")
    x = np.concatenate([simulated[0], real[0]])
    y = np.concatenate([np.zeros(len(simulated[0])), np.ones(len(real[0]))])
    slope, _ = fit((x - x.mean(axis=0)) / x.std(axis=0), y, np.where(y == 1, 1 / y.sum(), 1 / (1 - y).sum()))
    print("| statistic | weight | simulated mean − real mean, in real standard deviations |\n|---|---|---|")
    difference = (simulated[0].mean(axis=0) - real[0].mean(axis=0)) / real[0].std(axis=0)
    for k in np.argsort(-np.abs(slope))[:10]:
        print(f"| {NAMES[k]} | {slope[k]:+.2f} | {difference[k]:+.2f} |")


if __name__ == "__main__":
    main()

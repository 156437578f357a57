"""Compare simulated transmitted-light images with real ones: spectra, grey values, contrast, and side by side.

    python simulate.py --output data/realism --modalities BF --setting low --fields 24 --fields-per-study 1 --seed 6
    python -m benchmarks.realism --simulated data/realism --real ../shared/real/Study_101 --sheet /tmp/sheet.png

The plot and the table hold statistics only. The contact sheet (--sheet) shows real images' pixels, whose licence
may forbid to pass them on: it is written where you say, and refused inside this repository.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.planes import planes
from model.errors import UserError
from model.labels import Modality

ROOT = Path(__file__).resolve().parent.parent
PERCENTILES = (0.1, 1, 5, 25, 75, 95, 99, 99.9)
QUANTILES = (5, 25, 50, 75, 95)
FREQUENCIES = np.geomspace(0.015, 2.0, 33)  # cycles/µm, borders of the spectrum's bins
SLOPE_BAND = (0.05, 0.2)  # cycles/pixel
SHEET_UM, SHEET_PX = 80.0, 220  # each tile of the contact sheet
SIMULATED_COLOUR, REAL_COLOUR = "#d1495b", "#30638e"


@dataclass(frozen=True)
class Image:
    """One plane without the zero margins of a registration: (Y, X) float32 over its median, pixel size in µm."""

    relative: NDArray[np.float32]
    pixel_um: float


@dataclass(frozen=True)
class Statistics:
    """What is compared, one entry or row an image; powers are NaN beyond an image's band."""

    contrast: NDArray[np.float64]  # std / mean
    percentiles: NDArray[np.float64]  # (N, P) over the median
    powers: NDArray[np.float64]  # (N, F) log10, relative intensity² µm² as a function of cycles/µm
    slopes: NDArray[np.float64]  # of the log-log spectrum within SLOPE_BAND
    skews: NDArray[np.float64]
    noise: NDArray[np.float64]  # rms between neighbouring pixels that a plane does not explain, relative


def trimmed(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Cut rows and columns at the border as long as more than 1 % of one is exactly zero."""
    top, bottom, left, right = 0, pixels.shape[0], 0, pixels.shape[1]
    while top < bottom and left < right:
        part = pixels[top:bottom, left:right] == 0
        shares = (part[0].mean(), part[-1].mean(), part[:, 0].mean(), part[:, -1].mean())
        worst = int(np.argmax(shares))
        if shares[worst] <= 0.01:
            break
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    return pixels[top:bottom, left:right]


def load(folder: Path, modality: Modality, default_pixel_um: float) -> list[Image]:
    """Read all planes of a modality; planes that trimming leaves under 64 pixels are passed over."""
    images = []
    for plane in planes(folder):
        if plane.name.modality is not modality:
            continue
        size, pixels = plane.image.info.pixel_size_um, trimmed(plane.image.pixels)
        if min(pixels.shape) >= 64:
            pixel_um = size[0] if size else default_pixel_um
            images.append(Image((pixels / np.median(pixels)).astype(np.float32), pixel_um))
    if not images:
        raise UserError(f"{folder}: found no {modality} planes, expected image_N_{modality}_zZ.ome.tiff files.")
    return images


def radial_power(image: Image) -> tuple[NDArray[np.float64], float]:
    """Log10 spectral density in each bin of FREQUENCIES (NaN where empty), and its slope within SLOPE_BAND."""
    shape = image.relative.shape
    window = np.hanning(shape[0])[:, None] * np.hanning(shape[1])[None]
    spectrum = np.fft.rfft2((image.relative - image.relative.mean()) * window)
    power = np.abs(spectrum) ** 2 * image.pixel_um**2 / (window**2).sum()
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])  # cycles/pixel
    keep = (frequency > 0) & (frequency < 0.5)
    frequency, power = frequency[keep], power[keep]
    bins = np.digitize(frequency / image.pixel_um, FREQUENCIES) - 1
    inside = (bins >= 0) & (bins < len(FREQUENCIES) - 1)
    count = np.bincount(bins[inside], minlength=len(FREQUENCIES) - 1)
    total = np.bincount(bins[inside], weights=power[inside], minlength=len(FREQUENCIES) - 1)
    density = np.full(len(count), np.nan)
    density[count > 0] = np.log10(total[count > 0] / count[count > 0] + 1e-20)
    band = (frequency >= SLOPE_BAND[0]) & (frequency <= SLOPE_BAND[1])
    slope = np.polyfit(np.log10(frequency[band]), np.log10(power[band] + 1e-20), 1)[0]
    return density, float(slope)


def measure(images: Sequence[Image]) -> Statistics:
    """All statistics of a set of images."""
    spectra = [radial_power(image) for image in images]
    values = [image.relative.astype(np.float64) for image in images]
    residual = [ndimage.convolve(value, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6) for value in values]
    return Statistics(
        contrast=np.array([value.std() / value.mean() for value in values]),
        percentiles=np.array([np.percentile(value, PERCENTILES) for value in values]),
        powers=np.array([density for density, _ in spectra]),
        slopes=np.array([slope for _, slope in spectra]),
        skews=np.array([((value - value.mean()) ** 3).mean() / value.std() ** 3 for value in values]),
        noise=np.array([1.4826 * np.median(np.abs(rest)) for rest in residual]),
    )


def table(simulated: Statistics, real: Statistics) -> list[tuple[str, list[float], list[float], float]]:
    """Rows: name, the five quantiles over simulated images, over real ones, share of within real 5-95 %."""
    columns: list[tuple[str, Callable[[Statistics], NDArray[np.float64]]]] = [
        ("std / mean", lambda s: s.contrast),
        *((f"{p} % over median", lambda s, i=i: s.percentiles[:, i]) for i, p in enumerate(PERCENTILES)),
        ("skewness", lambda s: s.skews),
        ("spectral slope", lambda s: s.slopes),
        ("finest detail", lambda s: s.noise),
    ]
    rows = []
    for name, pick in columns:
        ours, theirs = pick(simulated), pick(real)
        low, high = np.percentile(theirs, (5, 95))
        within = float(((ours >= low) & (ours <= high)).mean())
        rows.append((name, _quantiles(ours), _quantiles(theirs), within))
    return rows


def _quantiles(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in np.percentile(values, QUANTILES)]


def draw_plot(path: Path, simulated: Statistics, real: Statistics, title: str) -> None:
    """Spectra, grey values, contrast and slopes of both sets; statistics only."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    centres = np.sqrt(FREQUENCIES[1:] * FREQUENCIES[:-1])
    for statistics, colour, name in ((simulated, SIMULATED_COLOUR, "simulated"), (real, REAL_COLOUR, "real")):
        filled = np.isfinite(statistics.powers).mean(axis=0) > 0.5
        bands = np.nanpercentile(statistics.powers[:, filled], (5, 25, 50, 75, 95), axis=0)
        for axis, x, band in (
            (axes[0], centres[filled], bands),
            (axes[1], np.arange(len(PERCENTILES)), np.percentile(statistics.percentiles, QUANTILES, axis=0)),
        ):
            axis.plot(x, band[2], color=colour, label=name)
            axis.fill_between(x, band[1], band[3], color=colour, alpha=0.3, lw=0)
            axis.fill_between(x, band[0], band[4], color=colour, alpha=0.12, lw=0)
        for axis, values, limits in ((axes[2], statistics.contrast, (0.005, 1)), (axes[3], statistics.slopes, None)):
            bins = np.geomspace(*limits, 19) if limits else np.linspace(-8, 0, 19)
            axis.hist(values, bins, weights=np.full(len(values), 1 / len(values)), color=colour, alpha=0.5, label=name)
    axes[0].set(
        xscale="log", xlabel="cycles/µm", ylabel="log10 power, (I / median)² µm²", title="Radial power spectrum"
    )
    axes[1].set(title="Grey values over the median", xlabel="percentile")
    axes[1].set_xticks(np.arange(len(PERCENTILES)), [str(p) for p in PERCENTILES])
    axes[2].set(xscale="log", title="Contrast", xlabel="std / mean", ylabel="share of images")
    axes[3].set(title="Slope at 0.05-0.2 cycles/pixel", xlabel="d log power / d log frequency")
    axes[0].legend(frameon=False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_sheet(path: Path, simulated: Sequence[Image], real: Sequence[Image], seed: int, rows: int, pairs: int) -> None:
    """Tiles of equal magnification, a simulated column beside a real one; each tile at its own contrast."""
    if ROOT in path.resolve().parents:
        raise UserError(f"{path}: a sheet with real pixels lies in the repository, expected a path outside of it.")
    rng = np.random.default_rng(seed)
    figure, axes = plt.subplots(rows, 2 * pairs, figsize=(2.2 * 2 * pairs, 2.2 * rows + 0.6), layout="constrained")
    for column in range(2 * pairs):
        images, name = (simulated, "simulated") if column % 2 == 0 else (real, "real")
        for axis, index in zip(axes[:, column], rng.permutation(len(images))[:rows], strict=False):
            tile = _tile(images[index], rng)
            axis.imshow(tile, cmap="gray", vmin=np.percentile(tile, 0.3), vmax=np.percentile(tile, 99.7))
        for axis in axes[:, column]:
            axis.axis("off")
        axes[0, column].set_title(name, color=SIMULATED_COLOUR if column % 2 == 0 else REAL_COLOUR, fontsize=10)
    figure.suptitle(f"Simulated beside real, {SHEET_UM:.0f} µm a tile, each at its own contrast")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _tile(image: Image, rng: np.random.Generator) -> NDArray[np.float32]:
    side = min(round(SHEET_UM / image.pixel_um), *image.relative.shape)
    top, left = (int(rng.integers(size - side + 1)) for size in image.relative.shape)
    part = image.relative[top : top + side, left : left + side]
    tile: NDArray[np.float32] = ndimage.zoom(part, SHEET_PX / side, order=1, mode="nearest", grid_mode=True)
    return tile


def print_table(rows: list[tuple[str, list[float], list[float], float]]) -> None:
    """As a Markdown table."""
    quantiles = "/".join(map(str, QUANTILES))
    print(f"| statistic | simulated {quantiles} % | real {quantiles} % | within real 5-95 % |\n|---|---|---|---|")
    for name, ours, theirs, within in rows:
        cells = (" / ".join(f"{value:.3g}" for value in values) for values in (ours, theirs))
        print(f"| {name} | {' | '.join(cells)} | {within:.0%} |")


def compare(arguments: argparse.Namespace) -> None:
    """Measure, print, and draw."""
    if not arguments.real.is_dir():
        print(f"{arguments.real}: there are no real images, so nothing is compared.")
        return
    simulated = load(arguments.simulated, arguments.modality, arguments.pixel_size)
    real = load(arguments.real, arguments.modality, arguments.pixel_size)
    ours, theirs = measure(simulated), measure(real)
    rows = table(ours, theirs)
    print_table(rows)
    title = f"{arguments.modality}: {len(simulated)} simulated planes, {len(real)} real images (bands: 25-75 %, 5-95 %)"
    if arguments.plot:
        draw_plot(arguments.plot, ours, theirs, title)
        print(f"Plot: {arguments.plot}")
    if arguments.sheet:
        draw_sheet(arguments.sheet, simulated, real, arguments.seed, arguments.rows, arguments.pairs)
        print(f"Contact sheet: {arguments.sheet}")
    if arguments.results:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        entries = [dict(zip(("statistic", "simulated", "real", "within"), row, strict=True)) for row in rows]
        document = {"modality": arguments.modality, "quantiles_percent": QUANTILES, "rows": entries}
        document |= {"simulated_planes": len(simulated), "real_images": len(real)}
        arguments.results.write_text(json.dumps(document, indent=2) + "\n")
        print(f"Figures: {arguments.results}")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=Path, required=True, help="simulate.py's output")
    parser.add_argument(
        "--real", type=Path, default=ROOT.parent / "shared/real/Study_101", help="folder of real images"
    )
    parser.add_argument("--modality", type=Modality, choices=list(Modality), default=Modality.BF)
    parser.add_argument("--pixel-size", type=float, default=0.3112, help="µm, of images that do not state it")
    parser.add_argument("--plot", type=Path, help="write the comparison plot (statistics only)")
    parser.add_argument("--results", type=Path, help="write the table as JSON")
    parser.add_argument("--sheet", type=Path, help="write the contact sheet, outside this repository")
    parser.add_argument("--seed", type=int, default=0, help="of the sheet's choice of tiles")
    parser.add_argument("--rows", type=int, default=4, help="of the sheet")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of columns of the sheet")
    return parser.parse_args(arguments)


def run(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    try:
        compare(parse_arguments(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(run())

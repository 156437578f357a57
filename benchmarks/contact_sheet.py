"""Sixteen random simulated fields beside real ones, as a network sees them: normalized, on its grid, unselected.

    python -m benchmarks.contact_sheet --setting ordinary --modality PC --pixels 0.25 0.7 --seed 1 \
        --real ../shared/real/Study_104 --images 4007 4008 4009 4010 4011 --output /tmp/sheet.png

Real images' licences may forbid to pass them on: the sheet is refused inside this repository.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.planes import planes
from model.labels import Modality
from model.normalization import InputNormalization, normalize_input
from model.resampling import resample_image
from simulation.microscope import Setting
from simulation.study import draw_study, render

ROOT = Path(__file__).resolve().parent.parent
GRID_UM = 0.35  # of the networks, for pixels as coarse as those of 20x
COLUMNS, ROWS, REAL_COLUMNS = 4, 4, 2
TILE_PX = 300


def tile(pixels: NDArray[np.uint16], pixel_um: float) -> NDArray[np.uint8]:
    """The middle of a plane, normalized as a whole, at the networks' magnification; black where the plane ends."""
    shape = (round(pixels.shape[0] * pixel_um / GRID_UM), round(pixels.shape[1] * pixel_um / GRID_UM))
    normalized = normalize_input(resample_image(pixels, shape), InputNormalization.FLATFIELD)
    grey = (np.clip(normalized / 3 + 0.5, 0, 1) * 255).astype(np.uint8)
    top, left = (max(0, (size - TILE_PX) // 2) for size in shape)
    middle = grey[top : top + TILE_PX, left : left + TILE_PX]
    return np.pad(middle, [(0, TILE_PX - size) for size in middle.shape])


def simulated(
    modality: Modality, setting: Setting, limits: tuple[float, float], seed: int
) -> Iterator[NDArray[np.uint8]]:
    """Tiles of studies whose camera's pixel lies within the limits, in the order of their seeds."""
    while True:
        seed += 1
        study = draw_study(np.random.default_rng([seed, 0]), modality, setting)
        if limits[0] <= study.pixel_size_um <= limits[1]:
            side = int(np.ceil(1.2 * TILE_PX * GRID_UM / study.pixel_size_um))
            field = render(np.random.default_rng([seed, 1]), study, side, 2)
            yield tile(field.planes[seed % 2], study.pixel_size_um)


def real(folder: Path, modality: Modality, images: Sequence[int], pixel_um: float | None) -> list[NDArray[np.uint8]]:
    """Tiles of real images, all or those named by number."""
    tiles = []
    for plane in planes(folder):
        if plane.name.modality is modality and (not images or plane.name.image in images):
            size = plane.image.info.pixel_size_um
            tiles.append(tile(plane.image.pixels, pixel_um or (size[0] if size else GRID_UM)))
    return tiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=get_args(Setting), default="ordinary")
    parser.add_argument("--modality", type=Modality, choices=list(Modality), default=Modality.PC)
    parser.add_argument("--pixels", type=float, nargs=2, default=(0.06, 0.7), help="smallest and largest, µm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=Path, help="folder of real images")
    parser.add_argument("--images", type=int, nargs="*", default=(), help="their numbers (all)")
    parser.add_argument("--real-pixel", type=float, help="µm, where the files state none or a wrong one")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if options.real and ROOT in options.output.resolve().parents:
        parser.error(f"{options.output} lies in the repository, expected a path outside of it for real pixels")
    drawn = simulated(options.modality, options.setting, tuple(options.pixels), 1000 * options.seed)
    rows = [np.hstack([next(drawn) for _ in range(COLUMNS)]) for _ in range(ROWS)]
    if options.real:
        shown = real(options.real, options.modality, options.images, options.real_pixel)
        blank = np.zeros((TILE_PX, 8), np.uint8)
        wanted = [shown[k % len(shown)] for k in range(ROWS * REAL_COLUMNS)]
        for k in range(ROWS):
            rows[k] = np.hstack([rows[k], blank, *wanted[k * REAL_COLUMNS : (k + 1) * REAL_COLUMNS]])
    Image.fromarray(np.vstack(rows)).save(options.output)
    print(f"{options.output}: {COLUMNS * ROWS} simulated fields ({options.setting}, {options.modality}) on the left")


if __name__ == "__main__":
    main()

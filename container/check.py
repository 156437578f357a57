"""Look at what a container wrote, as the platform will: one file a socket, imported by panimg, with the right shape,
type and provenance, and the right pixels.

``--cases`` holds ``<case>/output/images/<socket>/``, ``--expected`` holds ``images/<socket>/<case>.tiff``.
"""

import argparse
import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import panimg
import tifffile
from panimg.image_builders.metaio_mhd_mha import image_builder_mhd
from panimg.image_builders.tiff import image_builder_tiff

from model.images import inspect

LOWEST_PSNR_DB = 50.0
"""Against the range of the expected image, which was made in float32: an error of one part in 300. bfloat16 costs
more than another order of sums does, and stays above this (test_precision.py); a GPU was not measured."""


@dataclass(frozen=True)
class Row:
    """One output socket of one case, in words; `good` where all is as it should be."""

    case: str
    socket: str
    imported: str
    psnr: str
    good: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--expected", type=Path, required=True)
    parser.add_argument("--routing", type=Path, required=True, help="routing.json of the networks expected")
    parser.add_argument("--no-pixels", dest="compare", action="store_false", help="do not compare pixels")
    options = parser.parse_args()
    checkpoints = {entry["sha256"] for entry in json.loads(options.routing.read_text())["checkpoints"].values()}
    images = options.expected / "images"
    wanted = sorted(images.rglob("*.tiff"))
    if not wanted:
        print(f"{images}: holds no image, expected those of every case", file=sys.stderr)
        return 1
    rows = []
    for path in wanted:
        socket, *parts = path.relative_to(images).with_suffix("").parts
        rows.append(look(options.cases, "/".join(parts), socket, path, checkpoints, options.compare))
    show(rows)
    return 0 if all(row.good for row in rows) else 1


def look(cases: Path, case: str, socket: str, expected: Path, checkpoints: set[str], compare: bool) -> Row:
    folder = cases / case / "output" / "images" / socket
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(files) != 1:
        return Row(case, socket, f"{len(files)} files", "-", False)
    (name,) = (path.stem for path in (cases / case / "input").rglob("*.tiff"))
    if files[0].name != f"{name}.tiff":
        return Row(case, socket, f"named {files[0].name}", "-", False)
    with tempfile.TemporaryDirectory() as imported:
        result = panimg.convert(
            input_directory=folder,
            output_directory=Path(imported),
            builders=[image_builder_mhd, image_builder_tiff],
            post_processors=[],
        )
    if len(result.new_images) != 1:
        return Row(case, socket, f"panimg made {len(result.new_images)} images", "-", False)
    (image,) = result.new_images
    found, wanted = tifffile.imread(files[0]), tifffile.imread(expected)
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        words = f"{found.dtype} {found.shape}, expected {wanted.dtype} {wanted.shape}"
        return Row(case, socket, words, "-", False)
    if not checkpoints.issuperset(inspect(files[0]).provenance.get("checkpoint_sha256", "").split(", ")):
        return Row(case, socket, "provenance names no checkpoint of the routing", "-", False)
    voxel = " x ".join(f"{1000 * (size or 0):.4f}" for size in (image.voxel_width_mm, image.voxel_height_mm))
    words = f"{image.width} x {image.height} px of {voxel} µm"
    psnr = psnr_db(found, wanted)
    return Row(case, socket, words, f"{psnr:.1f}", psnr >= LOWEST_PSNR_DB or not compare)


def psnr_db(found: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over the expected image's range."""
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    return math.inf if error == 0 else 10 * math.log10(float(np.ptp(expected)) ** 2 / error)


def show(rows: list[Row]) -> None:
    lines = [("case", "socket", "imported by panimg", "PSNR, dB", "")]
    lines += [(row.case, row.socket, row.imported, row.psnr, "ok" if row.good else "WRONG") for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    raise SystemExit(main())

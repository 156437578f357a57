"""Seconds and peak memory of `inference.py` on one image, as a whole process.

    OMP_NUM_THREADS=2 python -m benchmarks.cost

The images are the bright-field input of test/input, repeated to the size; the shipped checkpoints predict them with
four rotations. Prints a Markdown table.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from model.ome import read_plane, write_plane

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "test" / "input" / "Study_1" / "image_1_BF_z0.ome.tiff"
CASES = ((512, 0.1, 0.8), (512, 0.3, 0.8), (2048, 0.1, 0.5))  # side in pixels, pixel size in µm, overlap


def measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident memory (GB) of one process."""
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"error: {' '.join(command)} failed")
    scale = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kB elsewhere
    return time.monotonic() - began, usage.ru_maxrss / scale


def main() -> None:
    pixels = read_plane(SOURCE).pixels
    print("| image | µm a pixel | overlap | s in all | peak GB |\n|" + "---|" * 5)
    for size, pixel_um, overlap in CASES:
        with tempfile.TemporaryDirectory() as folder:
            image = np.tile(pixels, [-(-size // side) for side in pixels.shape])[:size, :size]
            path = Path(folder) / "in" / "cells_BF_1.ome.tiff"
            write_plane(path, image, channel="BF", pixel_size_um=(pixel_um, pixel_um))
            command = [sys.executable, str(ROOT / "inference.py"), "--overlap", str(overlap)]
            seconds, gigabytes = measure([*command, "--input", f"{folder}/in", "--output", f"{folder}/out"])
        print(f"| {size} x {size} | {pixel_um} | {overlap} | {seconds:.1f} | {gigabytes:.2f} |", flush=True)


if __name__ == "__main__":
    main()

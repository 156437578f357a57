"""How long it takes to find the images of a large folder.

    python -m benchmarks.discovery --files 100000

Makes empty files in studies of 1,000, lists them as `inference.py` does, and prints seconds.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from model.discovery import discover


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.files):
            study = Path(folder) / f"Study_{number // 1000}"
            study.mkdir(exist_ok=True)
            os.close(os.open(study / f"image_{number}_BF_z0.ome.tiff", os.O_CREAT | os.O_WRONLY))
        wall, cpu = time.perf_counter(), time.process_time()
        found = len(discover(Path(folder), Path(folder) / "output"))
        print(f"{found} images: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} CPU s")


if __name__ == "__main__":
    main()

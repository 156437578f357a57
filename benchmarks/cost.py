"""Seconds and peak memory of `inference.py` on one image, as a whole process.

    OMP_NUM_THREADS=2 python -m benchmarks.cost

For each case a simulated field is rendered at the size, and the command runs with the shipped checkpoints. Prints a
Markdown table and writes benchmarks/results/cost.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "cost.json"
CASES = (  # side in pixels, setting of the microscope, modality, overlap, rotations
    (512, "challenge", "BF", 0.8, 4),
    (512, "low", "BF", 0.8, 4),
    (512, "challenge", "DIC", 0.8, 4),
    (2048, "challenge", "BF", 0.5, 4),
    (2048, "low", "BF", 0.5, 4),
)


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
    rows = []
    print("| image | setting | modality | overlap | rotations | s in all | peak GB |\n|" + "---|" * 7)
    for size, setting, modality, overlap, rotations in CASES:
        with tempfile.TemporaryDirectory() as folder:
            simulate = ["--fields", "1", "--planes", "1", "--seed", "7", "--size", str(size), "--setting", setting]
            simulate += ["--modalities", modality, "--output", f"{folder}/data"]
            subprocess.run(
                [sys.executable, str(ROOT / "simulate.py"), *simulate], check=True, stdout=subprocess.DEVNULL
            )
            infer = ["--input", f"{folder}/data", "--output", f"{folder}/out"]
            infer += ["--overlap", str(overlap), "--rotations", str(rotations)]
            seconds, gigabytes = measure([sys.executable, str(ROOT / "inference.py"), *infer])
        rows.append((f"{size} x {size}", setting, modality, overlap, rotations, round(seconds, 1), round(gigabytes, 2)))
        print("| " + " | ".join(map(str, rows[-1])) + " |", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

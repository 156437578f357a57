"""What `inference.py` costs as a user meets it: start-up, one image, a folder; seconds and peak memory.

    OMP_NUM_THREADS=2 python -m benchmarks.cost

The images are the inputs of test/input, repeated to the size; the shipped checkpoints predict them at the paper's
setting unless another is named. Prints Markdown tables. Memory is the whole process's at its largest.
"""

import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peak_memory import peak_gb, run
from model.batch import predict_cases
from model.batch_options import BatchOptions
from model.discovery import discover
from model.images import read_image, write_plane
from model.memory import tune_malloc
from model.plan import NetworkInputs, NetworkOutputs
from model.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "test" / "input").rglob("*_z0.ome.tiff"))
RESOURCES = ROOT / "resources"
SETTINGS = (
    (512, 0.1, "--preset paper"),
    (512, 0.3, "--preset paper"),
    (2048, 0.1, "--preset paper"),
    (2048, 0.1, "--overlap 0.5"),
    (2048, 0.1, "--preset fast"),
    (2048, 0.25, "--preset paper"),
    (2048, 0.25, "--overlap 0.5"),
    *((size, 0.25, "--preset fast") for size in (512, 1024, 2048, 4096)),  # as the network sees it: memory by size
)


def write_inputs(folder: Path, count: int, size: int, pixel_um: float) -> Path:
    """Images of `size` px, BF, PC and DIC in turn."""
    for number in range(count):
        plane = read_image(SOURCES[number % len(SOURCES)])
        image = np.roll(np.tile(plane.pixels, [-(-size // side) for side in plane.pixels.shape]), 7 * number, axis=1)
        path = folder / f"cells_{number}.ome.tiff"
        write_plane(path, image[:size, :size], channel=str(plane.info.modality), pixel_size_um=(pixel_um, pixel_um))
    return folder


@dataclass(frozen=True)
class Folder:
    """A folder's run in one process: seconds from the first image's turn to the last file, share in the networks."""

    seconds: float
    in_networks: float
    peak_gb: float


class Timed(Predictor):
    """Counts the seconds that the networks are at work."""

    in_networks = 0.0

    def forward(self, inputs: NetworkInputs) -> NetworkOutputs:
        began = time.perf_counter()
        outputs = super().forward(inputs)
        self.in_networks += time.perf_counter() - began
        return outputs


def run_folder(inputs: Path, output: Path) -> Folder:
    """Predict a folder in this process, networks loaded beforehand."""
    tune_malloc()
    with Timed.open(RESOURCES) as predictor:
        assert isinstance(predictor, Timed)
        predictor.load_networks()
        began = time.perf_counter()
        for outcome in predict_cases(discover(inputs, output), [predictor], BatchOptions()):
            if outcome.error:
                raise outcome.error
        seconds = time.perf_counter() - began
        return Folder(seconds, predictor.in_networks, peak_gb())


def folders() -> None:
    print("\n| images of 512 x 512 px, 0.1 µm | s an image | of it in the networks | peak GB |\n|" + "---|" * 4)
    for count in (3, 12, 50):
        with (
            tempfile.TemporaryDirectory() as folder,
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        ):
            inputs = write_inputs(Path(folder) / "in", count, 512, 0.1)
            ran = pool.submit(run_folder, inputs, Path(folder) / "out").result()
        share = ran.in_networks / ran.seconds
        print(f"| {count} | {ran.seconds / count:.2f} | {share:.1%} | {ran.peak_gb:.2f} |", flush=True)


def single_images() -> None:
    print("| image | µm a pixel | | s in all | peak GB |\n|" + "---|" * 5)
    for size, pixel_um, options in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            inputs = write_inputs(Path(folder) / "in", 1, size, pixel_um)
            command = [sys.executable, str(ROOT / "inference.py"), *options.split()]
            seconds, gigabytes = run([*command, "--input", str(inputs), "--output", f"{folder}/out"])
        print(f"| {size} x {size} | {pixel_um} | `{options}` | {seconds:.1f} | {gigabytes:.2f} |", flush=True)


def start_up() -> None:
    """The parts of a cold start; files are in the system's cache after the first of two runs."""
    load = f"from model.predictor import Predictor; Predictor.open(Path({str(RESOURCES)!r})).load_networks()"
    steps = {
        "Python": "",
        "and importing torch": "import torch",
        "and importing the rest": "import torch, model.command_line",
        "and opening and loading all networks": f"import torch, model.command_line; from pathlib import Path; {load}",
    }
    print("\n| start | s |\n|---|---|")
    for name, code in steps.items():
        seconds = min(run([sys.executable, "-c", code])[0] for _ in range(2))
        print(f"| {name} | {seconds:.2f} |", flush=True)


def main() -> None:
    single_images()
    start_up()
    folders()


if __name__ == "__main__":
    main()

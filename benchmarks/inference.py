"""The published way of predicting against ours, on the same weights and image, in one run.

    python -m benchmarks.inference [--sizes 512 1024] [--widths 32 64] [--device cpu] [--threads 2]

Every figure comes from a process of its own, the ways in turn. The image is the bright-field input of test/input
repeated to the size and taken as it is (no resampling); the network is the shipped one of bright field, widened
(benchmarks/net2net.py). Seconds are those of one image once everything is imported: of the published way with
loading its model, as it does for every image; of ours without, since a process loads it once. Of images above
1024 px one rotation is timed, and counted for all. Share of the ceiling: the convolutions of all passes over the
seconds, against the machine's own fastest convolution of the residual blocks' shape in the same number format.
Differences are those to ours in float32, which lays the same windows; the published ones lie elsewhere, and a network
that normalises by its window says other things there. Prints a Markdown table and writes
benchmarks/results/inference.json.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baseline import OVERLAP, ROTATIONS, WINDOW, as_published, predict_published
from benchmarks.net2net import CHECKPOINT, resources_of_width
from benchmarks.peak_memory import peak_gb
from model.images import read_image
from model.labels import Modality, Organelle
from model.memory import tune_malloc
from model.networks.architecture import Architecture
from model.networks.build import build
from model.normalization import normalize_input, to_uint16
from model.precision import Precision
from model.predictor import Predictor
from model.settings import LARGEST_WHOLE, PRESETS, InferenceSettings
from model.tiling import TilePlan

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "test" / "input" / "Study_1" / "image_1_BF_z0.ome.tiff"
RESULTS = Path(__file__).with_name("results") / "inference.json"
WAYS: dict[str, InferenceSettings | None] = {
    "published": None,
    "ours, fp32": InferenceSettings(precision=Precision.FP32),
    "ours": PRESETS["paper"],
    "ours, fast": PRESETS["fast"],
}
LARGEST_TURNED = 1024
"""Above this size only one rotation is timed and predicted, and its seconds counted for all of a way's rotations."""


TABLE_HEAD = """\
| width | image | way | numbers | passes | s an image | times faster | peak GB (for the image alone) | TFLOP/s \
| of the ceiling | PCC | PSNR, dB | largest difference | PCC to published |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Task:
    way: str
    size: int
    resources: Path
    device: str
    threads: int


@dataclass(frozen=True)
class Measurement:
    """Seconds an image, peak memory in GB of the whole process and of it before the image, the result's file."""

    seconds: float
    peak_gb: float
    begun_gb: float
    precision: str
    result: Path


def run_task(task: Task) -> Measurement:
    """Predict the image once in this process."""
    torch.set_num_threads(task.threads)
    pixels = read_image(SOURCE).pixels
    image = np.tile(pixels, [-(-task.size // side) for side in pixels.shape])[: task.size, : task.size]
    settings = WAYS[task.way]
    whole = settings.rotations if settings else ROTATIONS
    rotations = whole if task.size <= LARGEST_TURNED else 1
    if settings is None:
        begun_gb, began = peak_gb(), time.perf_counter()
        predictions = published(task, image, rotations)
        precision = Precision.FP32
    else:
        tune_malloc()  # as the command does
        settings = replace(settings, rotations=rotations)
        with Predictor.open(task.resources, device=task.device, settings=settings) as predictor:
            predictor.predict(image[:64, :64], Modality.BF)  # loads the network, and begins what begins once
            begun_gb, began = peak_gb(), time.perf_counter()
            predictions = predictor.predict(image, Modality.BF)
            precision = predictor.precision
    seconds = whole / rotations * (time.perf_counter() - began)
    result = task.resources / f"{task.way}_{task.size}.npy"
    np.save(result, np.stack([predictions[organelle] for organelle in Organelle]))
    return Measurement(seconds, peak_gb(), begun_gb, str(precision), result)


def published(task: Task, image: np.ndarray, rotations: int) -> dict[Organelle, np.ndarray]:
    """What the published way predicts: scaled as the checkpoint wants, all four organelles."""
    with Predictor.open(task.resources) as predictor:
        scaling = predictor.checkpoints["pix2pix-bf"].input_normalization
    scaled = torch.from_numpy(normalize_input(image, scaling))[None].to(task.device)
    output = predict_published(task.resources / CHECKPOINT, scaled, rotations).numpy()
    return {o: to_uint16(plane) for o, plane in zip(Organelle, output, strict=True)}


def measure(task: Task) -> Measurement:
    """Run a task in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_task, task).result()


def passes(way: str, size: int) -> float:
    """Work of a way in windows of 512 px: number of windows times rotations, larger windows counted by area."""
    settings = WAYS[way]
    if settings is None:
        step = int(WINDOW * (1 - OVERLAP))
        return ROTATIONS * (1 + max(0, -(-(size - WINDOW) // step))) ** 2
    window = min(size, LARGEST_WHOLE) if settings.whole_image else WINDOW
    return (
        settings.rotations * len(TilePlan.make((size, size), window, settings.overlap).tiles) * (window / WINDOW) ** 2
    )


def tera_flop_of_a_pass(width: int) -> float:
    """Of encoder, nine blocks and four decoders on a window of 512 px; a multiplication and an addition are two."""
    with torch.device("meta"):
        network = as_published(build(Architecture("resnet", width)))
        image = torch.zeros(1, 1, WINDOW, WINDOW)
    with FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops()) / 1e12


def ceiling_tera_flops(width: int, precision: Precision, device: str, threads: int) -> float:
    """The fastest this machine convolves 4 width channels of 128 x 128 px, over layouts and batches, in TFLOP/s."""
    torch.set_num_threads(threads)
    best, channels = 0.0, 4 * width
    dtype = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}[precision]
    for layout in (torch.contiguous_format, torch.channels_last):
        for batch in (1, 4):
            image = torch.randn(batch, channels, 130, 130, device=device, dtype=dtype).to(memory_format=layout)
            kernel = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).to(memory_format=layout)
            for _ in range(12):
                began = time.perf_counter()
                with torch.inference_mode():
                    F.conv2d(image, kernel)
                if device.startswith("cuda"):
                    torch.cuda.synchronize()
                flop = 2 * 9 * channels**2 * 128**2 * batch
                best = max(best, flop / (time.perf_counter() - began) / 1e12)
    return best


def compare(found: Path, expected: Path) -> dict[str, float]:
    """The worst of four organelles: Pearson's correlation, PSNR in dB against 65535, largest difference."""
    planes = [(a.astype(float), b.astype(float)) for a, b in zip(np.load(found), np.load(expected), strict=True)]
    noise = max(float(np.sqrt(np.mean((a - b) ** 2))) for a, b in planes)
    return {
        "pcc": min(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in planes),
        "psnr_db": float(20 * np.log10(65535 / noise)) if noise else float("inf"),
        "largest_difference": max(float(np.abs(a - b).max()) for a, b in planes),
    }


def rows_of(width: int, size: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every way on one image: measured in turn `--repeats` times, of which the fastest counts."""
    flop = tera_flop_of_a_pass(width)
    with tempfile.TemporaryDirectory() as folder:
        resources = resources_of_width(width, Path(folder) / "resources")
        runs: dict[str, list[Measurement]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way in WAYS:
                runs[way].append(measure(Task(way, size, resources, options.device, options.threads)))
        best = {way: min(measured, key=lambda m: m.seconds) for way, measured in runs.items()}
        reference = best["ours, fp32"].result
        rows = []
        for way, measured in best.items():
            ceiling = ceiling_tera_flops(width, Precision(measured.precision), options.device, options.threads)
            achieved = flop * passes(way, size) / measured.seconds
            rows.append(
                {"width": width, "size": size, "way": way, "passes": passes(way, size)}
                | {key: value for key, value in asdict(measured).items() if key != "result"}
                | {"all_seconds": [m.seconds for m in runs[way]]}
                | {"ratio": best["published"].seconds / measured.seconds, "tera_flops": achieved}
                | {"ceiling_tera_flops": ceiling, "share_of_ceiling": achieved / ceiling}
                | compare(measured.result, reference)
                | {"published_pcc": compare(measured.result, best["published"].result)["pcc"]}
            )
            print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """One row of the Markdown table."""
    cells = [
        row["width"],
        f"{row['size']}²",
        row["way"],
        row["precision"],
        f"{row['passes']:g}",
        f"{row['seconds']:.1f}",
    ]
    cells += [f"{row['ratio']:.1f}", f"{row['peak_gb']:.2f} ({row['peak_gb'] - row['begun_gb']:.2f})"]
    cells += [f"{row['tera_flops']:.2f}", f"{row['share_of_ceiling']:.0%}"]
    cells += [f"{row['pcc']:.6f}", f"{row['psnr_db']:.1f}", f"{row['largest_difference']:.0f}"]
    cells += [f"{row['published_pcc']:.4f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="sides of the image in px")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64], help="of the network")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    name = (
        torch.cuda.get_device_name() if options.device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
    )
    document = {"device": name, "threads": options.threads, "torch": torch.__version__}
    print(TABLE_HEAD)
    rows: list[dict[str, Any]] = []
    for width in options.widths:
        for size in options.sizes:
            rows += rows_of(width, size, options)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(document | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Measure how long the simulated microscope takes for a 512² field: CPU seconds of one core, as a table and JSON.

    OMP_NUM_THREADS=1 python -m benchmarks.simulation --picture docs/images/simulation_fields.jpg

Process time is counted, not the clock: other work on the machine disturbs it little. Each field is of a study of its
own, so nothing that belongs to a study is shared between two fields; simulate.py does a little better.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from model import __version__
from model.labels import Modality, Organelle
from simulation.microscope import Setting
from simulation.study import Field, Study, draw_study, render

TARGET_SECONDS = 2.0
SETTINGS: tuple[Setting, ...] = ("challenge", "low", "ordinary")


@dataclass(frozen=True)
class Timing:
    """CPU seconds of each field of one modality and setting."""

    modality: Modality
    setting: Setting
    seconds: tuple[float, ...]

    def summary(self) -> dict[str, str | float | int]:
        """What is printed and stored."""
        return {
            "modality": self.modality.value,
            "setting": self.setting,
            "fields": len(self.seconds),
            "mean_s": round(float(np.mean(self.seconds)), 2),
            "median_s": round(float(np.median(self.seconds)), 2),
            "worst_s": round(max(self.seconds), 2),
        }


def timed(
    seed: int, number: int, modality: Modality, setting: Setting, size: int, planes: int
) -> tuple[float, Study, Field]:
    """CPU seconds of one field of a new study, with both."""
    rng = np.random.default_rng([seed, number, list(Modality).index(modality), SETTINGS.index(setting)])
    started = time.process_time()
    study = draw_study(rng, modality, setting)
    field = render(rng, study, size, planes)
    return time.process_time() - started, study, field


def draw_picture(path: Path, examples: dict[Modality, tuple[Study, Field]]) -> None:
    """A row a modality: its planes from low to high focus, then the truths; each image at its own contrast."""
    columns = max(len(field.planes) for _, field in examples.values()) + len(Organelle)
    figure, axes = plt.subplots(
        len(examples), columns, figsize=(1.7 * columns, 1.85 * len(examples)), squeeze=False, layout="constrained"
    )
    for row, (modality, (study, field)) in zip(axes, examples.items(), strict=True):
        for axis in row:
            axis.axis("off")
        for z, plane in enumerate(field.planes):
            best = ", best focus" if z == field.best_plane else ""
            _show(row[z], plane, f"{modality} z{z}{best}")
        for axis, organelle in zip(row[-len(Organelle) :], Organelle, strict=True):
            _show(axis, field.truths[organelle], organelle.label)
        width = len(field.planes[0]) * study.microscope.pixel_size_um
        row[0].text(4, len(field.planes[0]) - 12, f"{width:.0f} µm", color="white", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 80} if path.suffix == ".jpg" else None)
    plt.close(figure)


def _show(axis: Axes, image: NDArray[np.uint16], title: str) -> None:
    low, high = np.percentile(image, (0.3, 99.7))
    axis.imshow(image, cmap="gray", vmin=low, vmax=high)
    axis.set_title(title, fontsize=7)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=4, help="studies of one field, for each modality and setting")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--planes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/simulation.json"))
    parser.add_argument("--picture", type=Path, help="draw the first field of each modality")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time, print, store."""
    options = parse(arguments)
    timings: list[Timing] = []
    examples: dict[Modality, tuple[Study, Field]] = {}
    print("| modality | setting | fields | mean, s | median, s | worst, s |\n|---|---|---|---|---|---|")
    for modality in Modality:
        for setting in SETTINGS:
            seconds = []
            for number in range(options.fields):
                spent, study, field = timed(options.seed, number, modality, setting, options.size, options.planes)
                seconds.append(spent)
                if setting == "challenge":
                    examples.setdefault(modality, (study, field))
            timings.append(Timing(modality, setting, tuple(seconds)))
            print("| " + " | ".join(map(str, timings[-1].summary().values())) + " |", flush=True)
    everything = [value for timing in timings for value in timing.seconds]
    mean = float(np.mean(everything))
    verdict = "meets" if mean <= TARGET_SECONDS else "misses"
    print(f"Mean {mean:.2f} CPU s a field: {verdict} the target of {TARGET_SECONDS:.0f} s.")
    document = {
        "version": __version__,
        "machine": platform.processor() or platform.machine(),
        "size": options.size,
        "planes": options.planes,
        "seed": options.seed,
        "mean_s": round(mean, 2),
        "target_s": TARGET_SECONDS,
        "timings": [timing.summary() for timing in timings],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(document, indent=2) + "\n")
    if options.picture:
        draw_picture(options.picture, examples)
        print(f"Picture: {options.picture}")


if __name__ == "__main__":
    main()

"""Draw README's picture: one field each of BF, PC and DIC, what is predicted from it, and the truth below.

    python simulate.py --output data/overview --fields 1 --seed 90210
    python inference.py --input data/overview --output runs/overview
    python -m benchmarks.overview --data data/overview --predictions runs/overview

The field is the first one of each modality, at its best focus: nothing is picked by hand.
"""

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from evaluation.focus import FocusTable
from evaluation.metrics import normalize, pcc
from model.errors import UserError
from model.grand_challenge import output_folder
from model.images import inspect, read_image
from model.labels import Modality, Organelle
from model.naming import prediction_filename, stem
from training.index import Field
from training.scan import scan

LARGEST_BYTES = 400_000
PANEL_INCHES, DPI = 2.0, 110
BAR_UM = 10.0
COLOURS = {
    Organelle.MITOCHONDRIA: "#ff9d3b",
    Organelle.NUCLEUS: "#5aa9ff",
    Organelle.TUBULIN: "#6fdc7a",
    Organelle.ACTIN: "#ff6fae",
}
LONG_NAMES = {
    Modality.BF: "bright field (BF)",
    Modality.PC: "phase contrast (PC)",
    Modality.DIC: "interference contrast (DIC)",
}


def first_fields(data: Path) -> list[Field]:
    """The first field of each modality that is there, by study and number."""
    fields = sorted(scan([data]).fields, key=lambda field: (len(field.study), field.study, field.image))
    return [next(f for f in fields if f.modality is m) for m in Modality if any(f.modality is m for f in fields)]


def sharpest_plane(field: Field, data: Path) -> Path:
    """The plane that focus.csv calls the best, else the middle one."""
    planes = sorted(field.planes.items())
    listing = data / "focus.csv"
    if not listing.is_file():
        return planes[len(planes) // 2][1]
    focus = FocusTable.read(listing)

    def deviation(path: Path) -> int:
        row = focus.get((path.relative_to(data).parent / stem(path.name)).as_posix())
        return len(planes) if row is None else row.z_deviation

    return min((path for _, path in planes), key=deviation)


def show(axes: Axes, grey_YX: NDArray[np.float64], colour: str = "#ffffff") -> None:
    """Draw values in [0, 1] from black to a colour, without ticks."""
    tint = np.array(matplotlib.colors.to_rgb(colour))
    axes.imshow(grey_YX.clip(0, 1)[..., None] * tint)
    axes.set_axis_off()


def say(axes: Axes, text: str) -> None:
    axes.text(
        0.03, 0.96, text, transform=axes.transAxes, va="top", color="white", fontsize=8,
        bbox={"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def draw(data: Path, predictions: Path, output: Path) -> str:
    """Draw, write, and return what the networks were trained on. Raises UserError."""
    fields = first_fields(data)
    origins: set[str] = set()
    rows, columns = 2 * len(fields), 1 + len(Organelle)
    figure, axes = plt.subplots(
        rows, columns, figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows + 0.6), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)  # type: ignore[union-attr,call-arg]
    for number, field in enumerate(fields):
        upper, lower = axes[2 * number], axes[2 * number + 1]
        source = sharpest_plane(field, data)
        plane = read_image(source)
        low, high = np.percentile(plane.pixels, (0.5, 99.5))
        show(upper[0], (plane.pixels - low) / max(high - low, 1.0))
        say(upper[0], LONG_NAMES[field.modality])
        if plane.info.pixel_size_um is not None:
            bar = BAR_UM / plane.info.pixel_size_um[1]
            y = 0.95 * plane.pixels.shape[0]
            right = 0.95 * plane.pixels.shape[1]
            upper[0].plot([right - bar, right], [y, y], color="white", linewidth=3, solid_capstyle="butt")
        lower[0].set_axis_off()
        lower[0].text(0.97, 0.5, "simulated\ntruth", transform=lower[0].transAxes, ha="right", va="center", fontsize=10)
        for organelle, above, below in zip(Organelle, upper[1:], lower[1:], strict=True):
            below_data = source.relative_to(data)
            name = below_data.with_name(prediction_filename(below_data.name))
            path = output_folder(predictions, organelle) / name
            predicted = read_image(path).pixels
            origins.add(inspect(path).provenance.get("trained_on", "not stated"))
            show(above, normalize(predicted), COLOURS[organelle])
            below.set_axis_off()
            if organelle in field.labels:
                truth = read_image(field.labels[organelle]).pixels
                show(below, normalize(truth), COLOURS[organelle])
                say(above, f"PCC {pcc(predicted, truth):.2f}")
            if number == 0:
                above.set_title(f"{organelle.label}, predicted", fontsize=10)
    axes[0][0].set_title("Input, no label", fontsize=10)
    trained_on = ", ".join(sorted(origins))
    figure.suptitle(
        f"Simulated cells: input, prediction (upper rows) and truth; networks trained on {trained_on}. "
        f"Bar: {BAR_UM:g} µm",
        fontsize=11,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    for quality in (88, 80, 70, 60, 50):
        figure.savefig(output, dpi=DPI, pil_kwargs={"quality": quality, "optimize": True})
        if output.stat().st_size < LARGEST_BYTES:
            break
    else:
        raise UserError(f"{output}: is {output.stat().st_size} bytes, expected less than {LARGEST_BYTES}.")
    plt.close(figure)
    return trained_on


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="simulate.py's output: inputs, truths, focus.csv")
    parser.add_argument("--predictions", type=Path, required=True, help="inference.py's output for that folder")
    parser.add_argument("--output", type=Path, default=Path("docs/images/overview.jpg"), help="a .jpg file")
    options = parser.parse_args()
    try:
        if not (options.data / "SIMULATED.json").is_file():
            raise UserError(f"{options.data}: found no SIMULATED.json, expected a folder made by simulate.py.")
        trained_on = draw(options.data, options.predictions, options.output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    size = options.output.stat().st_size
    print(f"{options.output}: {size / 1000:.0f} kB, networks trained on {trained_on}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

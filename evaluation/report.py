"""What an evaluation writes: `metrics.json`, `metrics.csv` and `report.html`, each whole or absent."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.aggregate import (
    UNSTATED,
    per_modality,
    per_organelle,
    per_z_deviation,
    provenance_groups,
    to_document,
    worst_first,
)
from evaluation.metrics import ALL_METRICS, normalize
from evaluation.scoring import Result
from model import __version__
from model.files import write_text
from model.images import read_image

TEMPLATES = Path(__file__).with_name("templates")
PICTURE_SIDE = 320  # pixels of the longer side; twelve cases an organelle then make a file of about 15 MB
_RECORDED = ("disagreement", "checkpoint", "trained_on")  # what a prediction says of itself, in metrics.csv
TABLE_ROWS = 300  # an organelle; the rest is in metrics.csv

DIRECTIONS = {"MAE": "lower", "SSIM": "higher", "PCC": "higher", "E_dist": "lower", "C_dist": "lower"}


@dataclass(frozen=True)
class Case:
    """One prediction of the report's gallery; pictures are data URIs, `source` is None where no input is at hand."""

    result: Result
    source: str | None
    prediction: str
    truth: str
    height: int
    width: int


def write_json(path: Path, results: Sequence[Result]) -> None:
    """Write ``metrics.json``, see `to_document`."""
    write_text(path, json.dumps(to_document(results), indent=2) + "\n")


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write ``metrics.csv``: one row for each prediction; metrics that its organelle lacks stay empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "organelle", "modality", "z_deviation", *ALL_METRICS, *_RECORDED))
    for result in results:
        z = "" if result.z_deviation is None else result.z_deviation
        metrics = (result.metrics.get(name, "") for name in ALL_METRICS)
        group = (result.provenance.get(key, "") for key in _RECORDED)
        writer.writerow((result.pair.key, result.pair.organelle.value, result.modality, z, *metrics, *group))
    write_text(path, text.getvalue())


def write_html(path: Path, results: Sequence[Result], *, pictures: int, ground_truth: Path) -> None:
    """Write ``report.html``, one self-contained file.

    Parameters
    ----------
    path : Path
    results : sequence of Result
    pictures : int
        How many of the worst cases of each organelle are shown.
    ground_truth : Path
        Named in the text.

    Raises
    ------
    UserError
        Where the file cannot be written, or an image that is shown cannot be read.
    """
    worst = worst_first(results)
    groups = provenance_groups(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["metric"] = format_metric
    html = environment.get_template("report.html.j2").render(
        version=__version__,
        ground_truth=ground_truth,
        metrics=ALL_METRICS,
        directions=DIRECTIONS,
        images=len({result.pair.key for result in results}),
        predictions=len(results),
        overall=per_organelle(results),
        by_modality=per_modality(results),
        by_z=per_z_deviation(results),
        provenance_groups=groups,
        trained_on=sorted({group.trained_on for group in groups} - {UNSTATED}),
        unstated=sum(group.images for group in groups if group.trained_on == UNSTATED),
        gallery={organelle: [_case(r) for r in ranked[:pictures]] for organelle, ranked in worst.items()},
        ranked=worst,
        table_rows=TABLE_ROWS,
    )
    write_text(path, html)


def picture(pixels: NDArray[Any]) -> str:
    """Draw an image at the contrast that the metrics see.

    Parameters
    ----------
    pixels : ndarray, (Y, X)
        Any numeric dtype.

    Returns
    -------
    str
        Data URI of an 8-bit grey PNG of at most `PICTURE_SIDE` pixels a side, reduced by area averaging: the image's
        own 2nd percentile is black, its 99.8th white; a constant image is black.
    """
    constant = np.ptp(pixels) == 0
    shown = np.zeros(pixels.shape) if constant else normalize(pixels).clip(0, 1)
    image = Image.fromarray(np.rint(shown * 255).astype(np.uint8))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")


def format_metric(value: float, name: str) -> str:
    """Format as in the paper's Table 1: four decimals; E_dist, which runs to hundreds, two. No minus before zero."""
    text = f"{value:.{2 if name == 'E_dist' else 4}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def _case(result: Result) -> Case:
    pair = result.pair
    truth = read_image(pair.truth).pixels
    return Case(
        result,
        source=picture(read_image(pair.source).pixels) if pair.source else None,
        prediction=picture(read_image(pair.prediction).pixels),
        truth=picture(truth),
        height=truth.shape[0],
        width=truth.shape[1],
    )

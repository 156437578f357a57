"""Score predicted organelles as the Light My Cells challenge does, and show the worst of them."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from evaluation.aggregate import per_organelle, provenance_groups
from evaluation.focus import FocusTable
from evaluation.pairing import find_pairs, find_predictions
from evaluation.report import format_figure, write_csv, write_html, write_json
from evaluation.scoring import Result, score_pairs
from model.errors import UserError
from model.labels import Organelle

DESCRIPTION = """\
Score predicted organelles as the Light My Cells challenge does.

Each image and each truth is normalised to its own [2, 99.8] percentiles; MAE, SSIM, PCC, E_dist and C_dist
are averaged over images per organelle, per modality, and per |z - best z| where a focus.csv lies in the
ground truth.
"""
EPILOG = """\
Written to the output folder: metrics.json (every image and all means), metrics.csv (one row a prediction) and
report.html (tables, and input, prediction and truth side by side, worst first). As in the challenge, one
prediction that is missing or has the wrong shape fails the evaluation.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        run(options.predictions, options.ground_truth, options.output, options.pictures, options.workers)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(predictions: Path, ground_truth: Path, output: Path, pictures: int, workers: int) -> None:
    """Pair, score, write. Raises `UserError`."""
    pairs = find_pairs(predictions, ground_truth)
    warn_of_absent_organelles(predictions, {pair.key for pair in pairs})
    focus_file = ground_truth / "focus.csv"
    focus = FocusTable.read(focus_file) if focus_file.is_file() else FocusTable({})
    make_folder(output)
    print(f"Scoring {len(pairs)} predictions of {len({pair.key for pair in pairs})} images.")
    progress = tqdm(score_pairs(pairs, focus, workers), total=len(pairs), unit="image", file=sys.stdout, disable=None)
    results = list(progress)
    write_json(output / "metrics.json", results)
    write_csv(output / "metrics.csv", results)
    write_html(output / "report.html", results, pictures=pictures, ground_truth=ground_truth)
    print_summary(results, output)


def warn_of_absent_organelles(predictions: Path, keys: set[str]) -> None:
    """The challenge wants all four organelles of every image, even those it has no truth for."""
    for organelle, files in find_predictions(predictions).items():
        if absent := len(keys - set(files)):
            sentence = f"{absent} of {len(keys)} images lack a prediction of {organelle}: not scored here"
            print(f"Warning: {sentence}, but refused by the challenge.", file=sys.stderr)


def print_summary(results: Sequence[Result], output: Path) -> None:
    """Means per organelle, what made the predictions, and where the files lie."""
    for organelle, mean in per_organelle(results).items():
        figures = "  ".join(f"{name} {format_figure(value, name)}" for name, value in mean.figures.items())
        print(f"{organelle.label:<{max(len(o.label) for o in Organelle)}}  {mean.images:>5} images  {figures}")
    print(f"Networks trained on: {', '.join(sorted({making.trained_on for making in provenance_groups(results)}))}.")
    print(f"Written: {output / 'metrics.json'}, metrics.csv, report.html")


def make_folder(folder: Path) -> None:
    """Create the output folder, before the long work rather than after. Raises `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}, expected a folder that can be written to.") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: found a folder that cannot be written to, expected one that can.")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="DIR",
        help="output folder of inference.py, or the folder 'images' in it",
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        required=True,
        metavar="DIR",
        help="truth in the challenge's layout (Study_K/image_N_Nucleus.ome.tiff; may be the very folder that was "
        "predicted) or in the platform's (images/nucleus-fluorescence-ome-tiff/NAME.tiff)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the three files are written")
    parser.add_argument(
        "--pictures",
        type=_at_least(0),
        default=12,
        metavar="N",
        help="worst cases shown in the report, per organelle (default: %(default)s, up to about 15 MB)",
    )
    parser.add_argument(
        "--workers",
        type=_at_least(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that score in parallel where there are many images (default: one a core, %(default)s)",
    )
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"found {text}, expected {least} or more")
        return int(text)

    return number


if __name__ == "__main__":
    raise SystemExit(main())

"""Score predicted organelles as the Light My Cells challenge does, and show the worst of them."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from evaluation.aggregate import per_organelle, provenance_groups
from evaluation.focus import FocusTable
from evaluation.pairing import find_pairs
from evaluation.report import format_metric, write_csv, write_html, write_json
from evaluation.scoring import Result, score_pairs
from model.commands import DONE, INTERRUPTED, NOT_BEGUN, log_to_standard_streams, one_sentence, whole_number
from model.files import prepare_folder
from model.labels import Organelle

DESCRIPTION = """\
Score predicted organelles as the Light My Cells challenge does.

Each image and each truth is normalized to its own [2, 99.8] percentiles; MAE, SSIM, PCC, E_dist and C_dist
are averaged over images per organelle, per modality, and per |z - best z| where a focus.csv lies in the
ground truth.
"""
EPILOG = """\
Written to the output folder: metrics.json (every image and all means), metrics.csv (one row a prediction) and
report.html (tables, and input, prediction and truth side by side, worst first). As in the challenge, one
prediction that is missing or has the wrong shape fails the evaluation.
"""


_MOST_LISTED = 30

log = logging.getLogger("evaluation")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see `model.commands`."""
    log_to_standard_streams("evaluation")
    options = parser().parse_args(arguments)
    try:
        run(options.predictions, options.ground_truth, options.output, options.pictures, options.workers)
    except KeyboardInterrupt:
        log.error("evaluate.py: interrupted.")
        return INTERRUPTED
    except Exception as error:
        log.error("%s", one_sentence(error))
        return NOT_BEGUN
    return DONE


def run(predictions: Path, ground_truth: Path, output: Path, pictures: int, workers: int) -> None:
    """Pair, score, write. Raises `UserError`."""
    pairs = find_pairs(predictions, ground_truth)
    focus_file = ground_truth / "focus.csv"
    focus = FocusTable.read(focus_file) if focus_file.is_file() else FocusTable({})
    if len(focus) and not any(focus.get(pair.key) for pair in pairs):
        log.warning("%s: names none of the images that are scored, such as %s.", focus_file, pairs[0].key)
    prepare_folder(output)
    log.info("Scoring %d predictions of %d images.", len(pairs), len({pair.key for pair in pairs}))
    progress = tqdm(score_pairs(pairs, focus, workers), total=len(pairs), unit="image", file=sys.stdout, disable=None)
    results = list(progress)
    warnings = dict.fromkeys(warning for result in results for warning in result.warnings)
    for warning in list(warnings)[:_MOST_LISTED]:
        log.warning(warning)
    if len(warnings) > _MOST_LISTED:
        log.warning("And %d more warnings of the ground truth.", len(warnings) - _MOST_LISTED)
    write_json(output / "metrics.json", results)
    write_csv(output / "metrics.csv", results)
    write_html(output / "report.html", results, pictures=pictures, ground_truth=ground_truth)
    log_summary(results, output)


def log_summary(results: Sequence[Result], output: Path) -> None:
    """Means per organelle, what made the predictions, and where the files lie."""
    for organelle, mean in per_organelle(results).items():
        metrics = "  ".join(f"{name} {format_metric(value, name)}" for name, value in mean.metrics.items())
        width = max(len(o.label) for o in Organelle)
        log.info("%s  %5d images  %s", organelle.label.ljust(width), mean.images, metrics)
    learned = sorted({group.trained_on for group in provenance_groups(results)})
    log.info("Networks trained on: %s.", ", ".join(learned))
    log.info("Written: %s, metrics.csv, report.html", output / "metrics.json")


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
        type=whole_number(0),
        default=12,
        metavar="N",
        help="worst cases shown in the report, per organelle (default: %(default)s, up to about 15 MB)",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that score in parallel where there are many images (default: one a core, %(default)s)",
    )
    return parser

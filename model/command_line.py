"""Predict mitochondria, nucleus, tubulin and actin of unlabelled cells, for every image of a folder.

Takes the Grand Challenge platform's input folder, or any folder of TIFF and .mha images. Progress goes to stdout,
warnings and errors to stderr; its last line says what went wrong. Exit code: 0 all images predicted, 1 some failed
(the others are predicted), 2 nothing could be begun, 130 interrupted.
"""

import argparse
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .batch import Status, predict_cases
from .commands import (
    DONE,
    INTERRUPTED,
    NOT_BEGUN,
    SOME_FAILED,
    log_to_standard_streams,
    one_line,
    one_sentence,
)
from .devices import find_devices
from .discovery import Case, discover
from .errors import UserError
from .files import prepare_folder
from .manifest import WHOLE, ListedCases, Shard, in_shard, write_list
from .memory import tune_malloc
from .options import batch_options, inference_settings, parse
from .predictor import Predictor
from .preview import PreviewWriter
from .preview.from_outputs import preview_image
from .routing import resources_folder, shipped_resources

log = logging.getLogger(__name__)

Cases = list[Case] | ListedCases


@dataclass
class Summary:
    """What became of a folder: how many images by status, and one sentence for each that failed."""

    counts: Counter[Status] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The command's exit code: a folder of nothing but former predictions holds no input."""
        if self.failures:
            return SOME_FAILED
        return NOT_BEGUN if self.counts.keys() == {Status.IS_PREDICTION} else DONE

    def __str__(self) -> str:
        parts = [f"{images(self.counts[Status.PREDICTED])} predicted"]
        others = [status for status in Status if self.counts[status] and status is not Status.PREDICTED]
        parts += [f"{self.counts[status]} {status.value}" for status in others]
        return ", ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str or None
        None: those of the process.

    Returns
    -------
    int
        The exit code, see `commands`.
    """
    options = parse(arguments, __doc__)
    tune_malloc()
    log_to_standard_streams()
    try:
        if options.write_list:
            return write_list_of_folder(options)
        return predict_folder(options).code
    except KeyboardInterrupt:
        log.error("Interrupted. The predictions written so far are complete; the same command continues.")
        return INTERRUPTED
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN


def predict_folder(options: argparse.Namespace) -> Summary:
    """Predict the images of the input folder; raises UserError where nothing can be begun."""
    started = time.perf_counter()
    cases = find_cases(options)
    prepare_folder(options.output)
    with open_predictors(options) as predictors:
        part = "" if options.shard == WHOLE else f" in part {options.shard}"
        log.info("Found %s%s.", images(len(cases)), part)
        summary = predict_and_report(cases, predictors, options)
    log.info("%s, in %.1f s. Output: %s", summary, time.perf_counter() - started, options.output)
    if summary.failures and len(cases) > 1:
        log.error("%d of %s failed; the first: %s", len(summary.failures), images(len(cases)), summary.failures[0])
    elif summary.code == NOT_BEGUN:
        log.error(only_predictions(options.input))
    return summary


def find_cases(options: argparse.Namespace) -> Cases:
    """Find the images to predict: of a list or the whole folder, and of those the part that is asked for."""
    if options.list:
        return ListedCases(options.list, options.input, options.output, options.shard)
    return in_shard(discover(options.input, options.output), options.shard)


def write_list_of_folder(options: argparse.Namespace) -> int:
    """Write the list of the images that would be predicted; returns the exit code."""
    cases = find_cases(options)
    write_list(options.write_list, cases, options.input)
    log.info("Listed %s in %s.", images(len(cases)), options.write_list)
    return DONE


@contextmanager
def open_predictors(options: argparse.Namespace) -> Iterator[list[Predictor]]:
    """Open a predictor on each device that the options ask for, and log what its networks were trained on."""
    resources = options.resources or resources_folder(shipped_resources())
    with ExitStack() as stack:
        predictors = [
            stack.enter_context(
                Predictor.open(resources, device=device, settings=inference_settings(options), rescale=options.rescale)
            )
            for device in find_devices(options.device)
        ]
        first, devices = predictors[0], ", ".join(str(predictor.device) for predictor in predictors)
        log.info("networks from %s on %s, precision %s", resources, devices, first.precision)
        log.info("tiles overlap by %g, mean over %d rotations", first.settings.overlap, first.settings.rotations)
        for name, metadata in first.checkpoints.items():
            log.info("%s: trained on %s", name, metadata.trained_on)
        yield predictors


def predict_and_report(cases: Cases, predictors: Sequence[Predictor], options: argparse.Namespace) -> Summary:
    """Predict every case and log one line for each."""
    summary = Summary()
    preview = PreviewWriter(options.output / preview_folder(options)) if options.preview else None
    with closing(predict_cases(cases, predictors, batch_options(options))) as outcomes:
        for outcome in outcomes:
            summary.counts[outcome.status] += 1
            if outcome.error is not None:
                message, source = one_sentence(outcome.error), outcome.case.source
                named = one_line(source.name) in message
                summary.failures.append(message if named else one_line(f"{source}: {message}"))
                log.error(summary.failures[-1])
            elif preview is not None and outcome.job is not None:
                preview.add(preview_image(outcome.job))
            position = f"[{summary.counts.total()}/{len(cases)}]"
            log.info("%s %s: %s, %.1f s", position, outcome.case.title, outcome.message, outcome.seconds)
    if preview is not None:
        log.info("Preview: %s", preview.close())
    return summary


def preview_folder(options: argparse.Namespace) -> str:
    """Name of the preview's folder; processes that share an output folder have one each."""
    shard: Shard = options.shard
    return "preview" if shard == WHOLE else f"preview_{shard.number}_of_{shard.count}"


def only_predictions(folder: Path) -> str:
    """Say that a folder holds nothing to predict but what was predicted."""
    return f"{folder}: found nothing but predictions of this program, expected images of unlabelled cells."


def images(count: int) -> str:
    """E.g. "1 image"."""
    return f"{count} image{'' if count == 1 else 's'}"

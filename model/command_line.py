"""Predict mitochondria, nucleus, tubulin and actin of unlabelled cells, for every image of a folder.

Takes the Grand Challenge platform's input folder, or any folder of TIFF and .mha images. Progress goes to stdout,
warnings and errors to stderr; its last line says what went wrong. Exit code: 0 all images predicted, 1 some failed
(the others are predicted), 2 nothing could be begun, 130 interrupted.
"""

import argparse
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import torch

from .batch import Outcome, Status, predict_cases
from .case import Case
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
from .discovery import discover
from .errors import UserError
from .files import prepare_folder
from .manifest import WHOLE, ListedCases, Shard, in_shard, write_list
from .memory import tune_malloc
from .options import add_list, add_shards, batch_options, inference_settings, parse
from .predictor import Predictor
from .preview import PreviewWriter
from .preview.from_outputs import preview_image
from .routing import resources_folder, shipped_resources

log = logging.getLogger(__name__)

Cases = list[Case] | ListedCases
Engine = Callable[[Cases, argparse.Namespace], AbstractContextManager[Iterable[Outcome]]]
"""What predicts the images of a folder: opened with them and the options, it yields their outcomes."""


@dataclass
class Summary:
    """What became of a folder: how many images by status, one sentence for each that failed, and of the preview.

    Of a file with several scenes each is an image.
    """

    counts: Counter[Status] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    preview_failure: str | None = None

    @property
    def code(self) -> int:
        """The command's exit code: a folder of nothing but former predictions holds no input."""
        if self.failures or self.preview_failure:
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
    options = parse(arguments, __doc__, add_list, add_shards)
    tune_malloc()
    log_to_standard_streams()
    if options.write_list:
        return exit_code(lambda: write_list_of_folder(options))
    return exit_code(lambda: predict_folder(options, in_this_process).code)


def exit_code(command: Callable[[], int]) -> int:
    """Run what a command is asked for; log in one sentence why it ended early."""
    try:
        return command()
    except KeyboardInterrupt:
        log.error("Interrupted. The predictions written so far are complete; the same command continues.")
        return INTERRUPTED
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN


def predict_folder(options: argparse.Namespace, engine: Engine) -> Summary:
    """Predict the images of the input folder; raises UserError where nothing can be begun."""
    started = time.perf_counter()
    cases = find_cases(options)
    prepare_folder(options.output)
    with engine(cases, options) as outcomes:
        part = "" if options.shard == WHOLE else f" in part {options.shard}"
        log.info("Found %s%s.", images(len(cases)), part)
        summary = log_outcomes(outcomes, len(cases), options)
    log.info("%s, in %.1f s. Output: %s", summary, time.perf_counter() - started, options.output)
    if summary.failures and summary.counts.total() > 1:
        total = images(summary.counts.total())
        log.error("%d of %s failed; the first: %s", len(summary.failures), total, summary.failures[0])
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
def in_this_process(cases: Cases, options: argparse.Namespace) -> Iterator[Iterable[Outcome]]:
    """Predict on the devices of this process."""
    with (
        open_predictors(options) as predictors,
        closing(predict_cases(cases, predictors, batch_options(options))) as outcomes,
    ):
        yield outcomes


@contextmanager
def open_predictors(options: argparse.Namespace) -> Iterator[list[Predictor]]:
    """Open a predictor on each device that the options ask for, and log what its networks were trained on."""
    with ExitStack() as stack:
        predictors = [stack.enter_context(open_predictor(options, device)) for device in find_devices(options.device)]
        devices = ", ".join(str(predictor.device) for predictor in predictors)
        log_networks(predictors[0], options, f"{devices}, precision {predictors[0].precision}")
        yield predictors


def open_predictor(options: argparse.Namespace, device: torch.device | str) -> Predictor:
    """Open a predictor as the options say, but for the device."""
    settings = inference_settings(options)
    return Predictor.open(networks_folder(options), device=device, settings=settings, rescale=options.rescale)


def networks_folder(options: argparse.Namespace) -> Path:
    """Where the networks are; UserError where a mounted folder holds none."""
    folder: Path = options.resources or resources_folder(shipped_resources())
    return folder


def log_networks(predictor: Predictor, options: argparse.Namespace, where: str) -> None:
    """Log which networks predict where, how, and what they were trained on."""
    log.info("networks from %s on %s", networks_folder(options), where)
    settings = predictor.settings
    members = f"{settings.rotations} rotations" + (f" at {len(settings.scales)} scales" if settings.scales[1:] else "")
    log.info("tiles overlap by %g, mean over %s", settings.overlap, members)
    for name, metadata in predictor.checkpoints.items():
        log.info("%s: trained on %s", name, metadata.trained_on)


def log_outcomes(outcomes: Iterable[Outcome], total: int, options: argparse.Namespace) -> Summary:
    """Log one line for each image as it is done, and write the preview that is asked for."""
    summary, files = Summary(), Fraction()
    preview = PreviewWriter(options.output / preview_folder(options)) if options.preview else None
    for outcome in outcomes:
        summary.counts[outcome.status] += 1
        files += Fraction(1, outcome.case.scenes)
        if outcome.error is not None:
            message, source = one_sentence(outcome.error), outcome.case.source
            named = one_line(source.name) in message and outcome.case.scene is None
            title = source if outcome.case.scene is None else outcome.case.title
            summary.failures.append(message if named else one_line(f"{title}: {message}"))
            log.error(summary.failures[-1])
        elif preview is not None and outcome.job is not None and not summary.preview_failure:
            with _noting_preview_failure(summary):
                preview.add(preview_image(outcome.job))
        position = f"[{math.ceil(files)}/{total}]"
        log.info("%s %s: %s, %.1f s", position, outcome.case.title, outcome.message, outcome.seconds)
    if preview is not None and not summary.preview_failure:
        with _noting_preview_failure(summary):
            log.info("Preview: %s", preview.close())
    return summary


@contextmanager
def _noting_preview_failure(summary: Summary) -> Iterator[None]:
    """Note why the preview cannot be written, and let the predictions go on, which do not depend on it."""
    try:
        yield
    except UserError as error:
        summary.preview_failure = f"{one_sentence(error)} The preview is left out."
        log.error(summary.preview_failure)


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

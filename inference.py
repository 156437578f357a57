#!/usr/bin/env python3
"""Predict mitochondria, nucleus, tubulin and actin of unlabelled cells, for every image of a folder.

Takes the Grand Challenge platform's input folder, or any folder of TIFF and .mha images. Progress goes to
stdout, warnings and errors to stderr; its last line says what went wrong. Exit code: 0 all images predicted,
1 some failed (the others are predicted), 2 nothing could be begun, 130 interrupted.
"""

import argparse
import logging
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model.batch import BatchOptions, predict_cases
from model.errors import UserError
from model.files import prepare_folder
from model.grand_challenge import Case, discover
from model.labels import Modality
from model.memory import tune_malloc
from model.precision import Precision
from model.predictor import Predictor
from model.routing import resources_folder
from model.settings import PRESETS, InferenceSettings
from model.tiling import MAX_OVERLAP
from model.tta import QUARTER_TURNS

DEFAULT_RESOURCES = Path(__file__).resolve().parent / "resources"
INTERRUPTED = 130

log = logging.getLogger("inference")


def run(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    tune_malloc()
    log_to_standard_streams()
    try:
        return predict_all(options)
    except KeyboardInterrupt:
        log.error("Interrupted; every file written so far is whole.")
        return INTERRUPTED
    except UserError as error:
        log.error(str(error))
        return 2


def predict_all(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    cases = discover(options.input, options.output)
    prepare_folder(options.output)
    with open_predictor(options) as predictor:
        log.info(f"{count(cases)} to predict, to {options.output}")
        failures = predict_and_report(cases, predictor, options)
    seconds = time.perf_counter() - started
    log.info(f"{len(cases) - len(failures)} of {count(cases)} predicted in {seconds:.1f} s, in {options.output}")
    if failures and len(cases) > 1:
        log.error(f"{len(failures)} of {count(cases)} failed; the first: {failures[0]}")
    return 1 if failures else 0


def open_predictor(options: argparse.Namespace) -> Predictor:
    """The predictor that the options ask for, announced with what its networks were trained on."""
    resources = options.resources or resources_folder(DEFAULT_RESOURCES)
    predictor = Predictor.open(
        resources,
        device=options.device,
        settings=settings(options),
        rescale=options.rescale,
    )
    log.info(f"networks from {resources} on {predictor.device} in {predictor.precision}")
    log.info(f"windows overlap by {predictor.settings.overlap:g}, rotations averaged: {predictor.settings.rotations}")
    for name, metadata in predictor.checkpoints.items():
        log.info(f"{name}: trained on {metadata.trained_on}")
    return predictor


def settings(options: argparse.Namespace) -> InferenceSettings:
    """The preset, with what the options say otherwise."""
    precision = None if options.precision == "auto" else Precision(options.precision)
    preset = replace(PRESETS[options.preset], precision=precision)
    overrides = {name: getattr(options, name) for name in ("overlap", "rotations")}
    return replace(preset, **{name: value for name, value in overrides.items() if value is not None})


def predict_and_report(cases: Sequence[Case], predictor: Predictor, options: argparse.Namespace) -> list[str]:
    """Predict every case, one logged line each; returns a sentence for each that failed."""
    batch_options = BatchOptions(
        Modality(options.modality) if options.modality else None, options.strict, options.force
    )
    failures: list[str] = []
    for number, outcome in enumerate(predict_cases(cases, predictor, batch_options), start=1):
        if outcome.error is not None:
            message, source = in_one_sentence(outcome.error), outcome.case.source
            failures.append(message if source.name in message else f"{source}: {message}")
            log.error(failures[-1])
        log.info(f"[{number}/{len(cases)}] {outcome.case.title}: {outcome.message}, {outcome.seconds:.1f} s")
    return failures


def in_one_sentence(error: Exception) -> str:
    """What happened, in one line; where the fault may be ours, also log where it happened."""
    if isinstance(error, UserError):
        message = str(error)
    elif isinstance(error, OSError | MemoryError):
        message = str(error) or "not enough memory"
    else:
        log.error("".join(traceback.format_exception(error)).rstrip())
        message = f"unexpected {type(error).__name__}: {error}"
    return " ".join(message.split())


def parse(arguments: Sequence[str] | None, message: str | None = __doc__) -> argparse.Namespace:
    """The options of this command, and of serve.py, which describes itself in other words."""
    description, epilog = (message or "").split("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=epilog, allow_abbrev=False)
    add = parser.add_argument
    add(
        "--input",
        type=Path,
        default=Path("/input"),
        help="folder with images, never written to (%(default)s)",
    )
    add("--output", type=Path, default=Path("/output"), help="folder for the predictions (%(default)s)")
    add(
        "--resources",
        type=Path,
        help="folder with routing.json and its checkpoints "
        "(/opt/ml/model where it holds a routing.json, else resources/ beside this script)",
    )
    add("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1 … (%(default)s)")
    add("--preset", choices=list(PRESETS), default="paper", help="how thoroughly to go over an image (%(default)s)")
    add("--overlap", type=overlap, help=f"of windows, from 0 to {MAX_OVERLAP} (the preset's)")
    add("--rotations", type=int, choices=list(QUARTER_TURNS), help="to average over (the preset's)")
    formats = ["auto", *Precision]
    add("--precision", choices=formats, default="auto", help="of the networks; auto: the fastest that is as good")
    add("--modality", choices=list(Modality), help="of images that neither metadata nor name tell it of")
    add("--strict", action="store_true", help="make an unknown modality an error instead of a warning")
    add("--force", action="store_true", help="predict also what is in --output already, made by the same networks")
    add("--no-rescale", dest="rescale", action="store_false", help="do not resample to the pixel size learned")
    return parser.parse_args(arguments)


def overlap(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= MAX_OVERLAP:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MAX_OVERLAP}")
    return value


def log_to_standard_streams() -> None:
    """Progress to stdout, the rest to stderr: the platform shows its users whatever is on stderr."""
    to_stdout, to_stderr = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    to_stdout.addFilter(lambda record: record.levelno < logging.WARNING)
    to_stderr.setLevel(logging.WARNING)
    for ours in (log, logging.getLogger("model")):
        ours.handlers = [to_stdout, to_stderr]
        ours.setLevel(logging.INFO)
        ours.propagate = False


def count(cases: Sequence[Case]) -> str:
    return f"{len(cases)} image{'' if len(cases) == 1 else 's'}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else a container's first process ignores it
    raise SystemExit(run())

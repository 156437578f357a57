#!/usr/bin/env python3
"""Predict mitochondria, nucleus, tubulin and actin of unlabelled cells, for every image of a folder.

Takes the Grand Challenge platform's input folder, or any folder of TIFF and .mha images. Progress goes to
stdout, warnings and errors to stderr; its last line says what went wrong. Exit code: 0 all images predicted,
1 some failed (the others are predicted), 2 nothing could be begun, 130 interrupted.
"""

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from model.errors import UserError
from model.naming import modality_token
from model.ome import Plane, read_plane, write_plane
from model.predictor import Predictor
from model.rotation import QUARTER_TURNS
from model.routing import resources_folder
from model.sockets import Case, discover
from model.tiling import MAX_OVERLAP
from model.vocabulary import Modality

DEFAULT_RESOURCES = Path(__file__).resolve().parent / "resources"
INTERRUPTED = 130

log = logging.getLogger("inference")


def run(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
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
    resources = options.resources or resources_folder(DEFAULT_RESOURCES)
    with Predictor.open(
        resources,
        device=options.device,
        overlap=options.overlap,
        rotations=options.rotations,
        rescale=options.rescale,
    ) as predictor:
        log.info(f"{count(cases)} to predict on {predictor.device}, networks from {resources}")
        log.info(f"windows overlap by {options.overlap:g}, rotations averaged: {options.rotations}")
        for name, metadata in predictor.checkpoints.items():
            log.info(f"{name}: trained on {metadata.trained_on}")
        failures: list[str] = []
        for number, case in enumerate(cases, start=1):
            begun = time.perf_counter()
            try:
                outcome = predict_case(case, predictor, options)
            except Exception as error:  # whatever is wrong with one image must not cost the others
                outcome = "failed"
                failures.append(in_one_sentence(case, error))
                log.error(failures[-1])
            log.info(f"[{number}/{len(cases)}] {title(case)}: {outcome}, {time.perf_counter() - begun:.1f} s")
    seconds = time.perf_counter() - started
    log.info(f"{len(cases) - len(failures)} of {count(cases)} predicted in {seconds:.1f} s, in {options.output}")
    if failures and len(cases) > 1:
        log.error(f"{len(failures)} of {count(cases)} failed; the first: {failures[0]}")
    return 1 if failures else 0


def predict_case(case: Case, predictor: Predictor, options: argparse.Namespace) -> str:
    """Read, predict, and only when all four organelles are there, write; returns in words what it was."""
    plane = read_plane(case.source)
    modality = find_modality(case, plane, options)
    if doubt := predictor.doubt_about_scale(modality, plane.pixel_size_um):
        log.warning(f"{title(case)}: {doubt}.")
    predictions = predictor.predict(plane.pixels, modality, pixel_size_um=plane.pixel_size_um)
    provenance = predictor.provenance(modality, plane.pixel_size_um)
    for organelle, prediction in predictions.items():
        write_plane(
            case.outputs[organelle],
            prediction,
            channel=organelle.label,
            pixel_size_um=plane.pixel_size_um,
            provenance=provenance[organelle],
        )
    height, width = plane.pixels.shape
    return f"{height} x {width} px, {modality or 'unknown modality'}"


def find_modality(case: Case, plane: Plane, options: argparse.Namespace) -> Modality | None:
    """What the file says itself comes first, then its name at upload, then --modality."""
    if plane.modality is not None:
        return plane.modality
    if case.original_name and (named := modality_token(case.original_name)):
        return named
    if options.modality is not None:
        return Modality(options.modality)
    lacking = f"{title(case)}: nothing tells whether this is BF, PC or DIC"
    if options.strict:
        raise UserError(f"{lacking}, expected its channel name, its file name or --modality to say so.")
    log.warning(f"{lacking}, so the unified network predicts all organelles.")
    return None


def in_one_sentence(case: Case, error: Exception) -> str:
    """Name the image and what happened to it; where the fault may be ours, also show where it happened."""
    if isinstance(error, UserError):
        words = str(error)
    elif isinstance(error, OSError | MemoryError):
        words = str(error) or "not enough memory"
    else:
        log.error(traceback.format_exc().rstrip())
        words = f"unexpected {type(error).__name__}: {error}"
    words = " ".join(words.split())
    return words if case.source.name in words else f"{case.source}: {words}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    description, epilog = (__doc__ or "").split("\n\n")
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
    add("--overlap", type=overlap, default=0.8, help=f"of windows, from 0 to {MAX_OVERLAP} (%(default)s)")
    add("--rotations", type=int, choices=list(QUARTER_TURNS), default=4, help="to average over (%(default)s)")
    add("--modality", choices=list(Modality), help="of images that neither metadata nor name tell it of")
    add("--strict", action="store_true", help="make an unknown modality an error instead of a warning")
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


def title(case: Case) -> str:
    return f"{case.source.name} ({case.original_name})" if case.original_name else case.source.name


def count(cases: Sequence[Case]) -> str:
    return f"{len(cases)} image{'' if len(cases) == 1 else 's'}"


if __name__ == "__main__":
    raise SystemExit(run())

"""Predict mitochondria, nucleus, tubulin and actin of unlabelled cells, for every image of a folder.

Takes the Grand Challenge platform's input folder, or any folder of TIFF and .mha images. Progress goes to stdout,
warnings and errors to stderr; its last line says what went wrong. Exit code: 0 all images predicted, 1 some failed
(the others are predicted), 2 nothing could be begun, 130 interrupted.
"""

import argparse
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from .batch import Status, predict_cases
from .batch_options import BatchOptions
from .commands import (
    DONE,
    INTERRUPTED,
    NOT_BEGUN,
    SOME_FAILED,
    log_to_standard_streams,
    number,
    one_line,
    one_sentence,
    whole_number,
)
from .discovery import Case, discover
from .errors import UserError
from .files import prepare_folder
from .labels import Modality
from .memory import tune_malloc
from .outputs import FileFormat, Layout, OutputOptions
from .precision import Precision
from .predictor import Predictor
from .preview import PreviewWriter
from .preview.from_outputs import preview_image
from .routing import resources_folder, shipped_resources
from .selection import SelectionOptions
from .settings import PRESETS, InferenceSettings
from .tiling import MAX_OVERLAP
from .tta import QUARTER_TURNS

log = logging.getLogger(__name__)


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
        return DONE if self.counts.keys() - {Status.IS_PREDICTION} else NOT_BEGUN

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
    options = parse(arguments)
    tune_malloc()
    log_to_standard_streams()
    try:
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
    cases = discover(options.input, options.output)
    prepare_folder(options.output)
    with open_predictor(options) as predictor:
        log.info("Found %s.", images(len(cases)))
        summary = predict_and_report(cases, predictor, options)
    log.info("%s, in %.1f s. Output: %s", summary, time.perf_counter() - started, options.output)
    if summary.failures and len(cases) > 1:
        log.error("%d of %s failed; the first: %s", len(summary.failures), images(len(cases)), summary.failures[0])
    elif summary.code == NOT_BEGUN:
        log.error(only_predictions(options.input))
    return summary


def open_predictor(options: argparse.Namespace) -> Predictor:
    """Open the predictor that the options ask for, and log what its networks were trained on."""
    resources = options.resources or resources_folder(shipped_resources())
    predictor = Predictor.open(
        resources, device=options.device, settings=inference_settings(options), rescale=options.rescale
    )
    settings = predictor.settings
    log.info("networks from %s on %s, precision %s", resources, predictor.device, predictor.precision)
    log.info("tiles overlap by %g, mean over %d rotations", settings.overlap, settings.rotations)
    for name, metadata in predictor.checkpoints.items():
        log.info("%s: trained on %s", name, metadata.trained_on)
    return predictor


def predict_and_report(cases: Sequence[Case], predictor: Predictor, options: argparse.Namespace) -> Summary:
    """Predict every case and log one line for each."""
    batch_options = BatchOptions(
        modality=Modality(options.modality) if options.modality else None,
        override_modality=options.override_modality,
        strict=options.strict,
        force=options.force,
        selection=SelectionOptions(options.channel, options.t, options.z),
        outputs=OutputOptions(options.layout, options.format, options.disagreement),
    )
    summary = Summary()
    preview = PreviewWriter(options.output / "preview") if options.preview else None
    with closing(predict_cases(cases, predictor, batch_options)) as outcomes:
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


def only_predictions(folder: Path) -> str:
    """Say that a folder holds nothing to predict but what was predicted."""
    return f"{folder}: found nothing but predictions of this program, expected images of unlabelled cells."


def images(count: int) -> str:
    """E.g. "1 image"."""
    return f"{count} image{'' if count == 1 else 's'}"


def inference_settings(options: argparse.Namespace) -> InferenceSettings:
    """Change the preset by the options that are given."""
    precision = None if options.precision == "auto" else Precision(options.precision)
    preset = replace(PRESETS[options.preset], precision=precision)
    overrides = {name: getattr(options, name) for name in ("overlap", "rotations")}
    return replace(preset, **{name: value for name, value in overrides.items() if value is not None})


def _plane(*words: str) -> Callable[[str], int | str | None]:
    """Make an argparse type for an index from 0, one of some words, or "all", which is None."""
    index = whole_number(0)

    def plane(text: str) -> int | str | None:
        return None if text == "all" else text if text in words else index(text)

    return plane


def parse(arguments: Sequence[str] | None, message: str | None = __doc__) -> argparse.Namespace:
    """Read the command line.

    Parameters
    ----------
    arguments : sequence of str or None
        None: those of the process.
    message : str or None
        Two paragraphs, description and epilog of ``--help``: ``serve.py`` takes the same options.
    """
    description, epilog = (message or "\n\n").split("\n\n")
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
        "(/opt/ml/model where it holds a routing.json, else the shipped ones)",
    )
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1 … (%(default)s)")
    add(
        "--preset",
        choices=list(PRESETS),
        default="paper",
        help="paper: tiles that overlap by 0.8, 4 rotations; fast: full-image inference up to 1024 px, "
        "2 rotations (%(default)s)",
    )
    add("--overlap", type=number(0, MAX_OVERLAP), help=f"of tiles, from 0 to {MAX_OVERLAP} (the preset's)")
    add("--rotations", type=int, choices=list(QUARTER_TURNS), help="to average over (the preset's)")
    formats = ["auto", *Precision]
    add("--precision", choices=formats, default="auto", help="of the networks; auto: the fastest that is as good")
    add("--modality", choices=list(Modality), help="of images whose metadata and name do not tell it")
    add("--override-modality", action="store_true", help="follow --modality also where an image says otherwise")
    add("--strict", action="store_true", help="make an unknown modality an error instead of a warning")
    add("--force", action="store_true", help="predict also images that are already predicted")
    add("--channel", help="name or index (from 0) of the channel of transmitted light (told by its metadata)")
    add("--z", type=_plane("best"), metavar="all|best|INDEX", help="focal planes of a stack; indices from 0 (all)")
    add("--t", type=_plane(), metavar="all|INDEX", help="time points of a stack; indices from 0 (all)")
    add(
        "--layout",
        choices=get_args(Layout),
        default="organelles",
        help="organelles: a file for each; merged: one file, with the input (%(default)s)",
    )
    add("--format", choices=get_args(FileFormat), default="tiff", help="OME-TIFF or OME-Zarr (%(default)s)")
    add("--preview", action="store_true", help="write preview/index.html, to look at all images in a browser")
    add("--disagreement", action="store_true", help="write also how much the rotations disagree, as images")
    add("--no-rescale", dest="rescale", action="store_false", help="do not resample to the pixel size learned")
    options = parser.parse_args(arguments)
    if options.override_modality and not options.modality:
        parser.error("--override-modality is given without --modality, expected the modality to follow")
    return options

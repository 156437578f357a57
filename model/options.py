"""Options of the command line of prediction, for ``inference.py`` and the commands that predict as it does."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from .batch_options import BatchOptions
from .commands import number, whole_number
from .labels import Modality
from .manifest import WHOLE, Shard
from .outputs import FileFormat, Layout, OutputOptions
from .precision import Precision
from .selection import SelectionOptions
from .settings import PRESETS, InferenceSettings
from .tiling import MAX_OVERLAP
from .tta import ROTATIONS


def parse(
    arguments: Sequence[str] | None,
    message: str | None,
    *additions: Callable[[argparse.ArgumentParser], None],
) -> argparse.Namespace:
    """Read the command line.

    Parameters
    ----------
    arguments : sequence of str or None
        None: those of the process.
    message : str or None
        Two paragraphs, description and epilog of ``--help``.
    *additions : callable
        Each adds options of its own, such as `add_list`.
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
    add(
        "--device",
        default="auto",
        help="auto (all GPUs of one model, else the CPU), cpu, cuda, or several: cuda:0,cuda:2 (%(default)s)",
    )
    add(
        "--preset",
        choices=list(PRESETS),
        default="paper",
        help="paper: tiles that overlap by 0.8, 4 rotations; fast: full-image inference up to 1024 px, "
        "2 rotations; multiscale: fast, averaged over 3 scales (%(default)s)",
    )
    add("--overlap", type=number(0, MAX_OVERLAP), help=f"of tiles, from 0 to {MAX_OVERLAP} (the preset's)")
    add("--rotations", type=int, choices=ROTATIONS, help="to average over (the preset's)")
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
        "--scene",
        type=_plane(),
        metavar="all|INDEX",
        help="stage positions or series of a file; indices from 0 (all)",
    )
    add(
        "--layout",
        choices=get_args(Layout),
        default="organelles",
        help="organelles: a file for each; merged: one file, with the input (%(default)s)",
    )
    add("--format", choices=get_args(FileFormat), default="tiff", help="OME-TIFF or OME-Zarr (%(default)s)")
    add("--preview", action="store_true", help="write preview/index.html, to look at all images in a browser")
    add("--disagreement", action="store_true", help="write also how much what is averaged disagrees, as images")
    add("--no-rescale", dest="rescale", action="store_false", help="do not resample to the pixel size learned")
    parser.set_defaults(list=None, write_list=None, shard=WHOLE)
    for add_options in additions:
        add_options(parser)
    options = parser.parse_args(arguments)
    if options.override_modality and not options.modality:
        parser.error("--override-modality is given without --modality, expected the modality to follow")
    return options


def add_list(parser: argparse.ArgumentParser) -> None:
    """Add the option of a list of images."""
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="predict these images of the input folder, one path a line"
    )


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add the options by which processes divide a batch among themselves."""
    add = parser.add_argument
    add("--write-list", type=Path, metavar="FILE", help="write a list of the images instead of predicting")
    add(
        "--shard",
        type=_shard,
        default=WHOLE,
        metavar="I/N",
        help="predict only part I of N (1/N to N/N), for processes that share an output folder",
    )


def inference_settings(options: argparse.Namespace) -> InferenceSettings:
    """Change the preset by the options that are given."""
    precision = None if options.precision == "auto" else Precision(options.precision)
    preset = replace(PRESETS[options.preset], precision=precision)
    overrides = {name: getattr(options, name) for name in ("overlap", "rotations")}
    return replace(preset, **{name: value for name, value in overrides.items() if value is not None})


def batch_options(options: argparse.Namespace) -> BatchOptions:
    """Say how images are treated."""
    return BatchOptions(
        modality=Modality(options.modality) if options.modality else None,
        override_modality=options.override_modality,
        strict=options.strict,
        force=options.force,
        selection=SelectionOptions(options.channel, options.t, options.z, options.scene),
        outputs=OutputOptions(options.layout, options.format, options.disagreement),
    )


def _plane(*words: str) -> Callable[[str], int | str | None]:
    """Make an argparse type for an index from 0, one of some words, or "all", which is None."""
    index = whole_number(0)

    def plane(text: str) -> int | str | None:
        return None if text == "all" else text if text in words else index(text)

    return plane


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected I/N with I from 1 to N")
    return Shard(int(match[1]), int(match[2]))

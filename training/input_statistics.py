"""Record in a checkpoint what the images of its training look like; predictions warn of others.

    python -m training.input_statistics --checkpoint resources/pix2pix_bf.safetensors --data data/challenge data/low

A run of ``train.py`` does so by itself; this is for checkpoints that were made without.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model import checkpoint
from model.commands import DONE, NOT_BEGUN, log_to_standard_streams, one_sentence, whole_number
from model.errors import UserError
from model.input_statistics import InputStatistics, measure_input
from model.preprocessing import Preprocessing
from training.index import Field
from training.plane_cache import read_input
from training.scan import scan
from training.validation import choose_planes

log = logging.getLogger(f"{__package__}.input_statistics")  # __name__ is __main__ when this is the command

PLANES = 64


def learned_inputs(
    fields: Sequence[Field], preprocessing: Preprocessing, planes: int = PLANES
) -> InputStatistics | None:
    """Measure planes as the network gets them, chosen as in `choose_planes`; None where there are too few."""
    chosen = choose_planes(fields, planes, seed=0)
    measured = (measure_input(read_input(entry.planes[z], preprocessing)) for entry, z in chosen)
    return InputStatistics.of([features for features in measured if features is not None])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--checkpoint", type=Path, required=True, help="file to change; its weights stay as they are")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of images like those learned from")
    parser.add_argument("--planes", type=whole_number(1), default=PLANES, help="how many to measure (%(default)s)")
    options = parser.parse_args(arguments)
    log_to_standard_streams("training")
    try:
        metadata = checkpoint.read_metadata(options.checkpoint)
        fields = scan(options.data).only(metadata.modalities).fields
        statistics = learned_inputs(fields, metadata.preprocessing, options.planes)
        if statistics is None:
            folders, modalities = ", ".join(map(str, options.data)), " or ".join(metadata.modalities)
            raise UserError(
                f"{folders}: found {len(fields)} fields of {modalities}, expected more of them, or more --planes."
            )
        checkpoint.replace_metadata(options.checkpoint, replace(metadata, input_statistics=statistics))
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN
    log.info("%s: statistics of %d fields recorded", options.checkpoint, len(fields))
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())

"""Train the branch that tells cells from an empty dish, and store checkpoints with it.

    python -m training.foreground --checkpoint RUN/last.safetensors --specimens data/specimens --output with_foreground

The branch is trained by itself, so a step costs a hundredth of one with its generator: for each organelle it learns
whether there is anything of it near a pixel. All given checkpoints get the same branch, trained on their modality, or
on all modalities where they differ. A branch that the first of them has is trained further, or with ``--minutes 0``
copied to all, and only ``--kept-from`` changes. ``train.py --foreground`` trains branch and generator together instead.
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model import checkpoint
from model.checkpoint import CheckpointMetadata
from model.commands import DONE, NOT_BEGUN, log_to_standard_streams, one_sentence
from model.errors import UserError
from model.files import prepare_folder
from model.labels import Organelle
from model.networks.build import Network, rebuild
from model.networks.foreground import BACKGROUND, Foreground
from model.normalization import TargetNormalization
from simulation.renderer import SpecimenRenderer
from training.appearance import AppearanceConfig
from training.batches import Loader, SpecimenBatches
from training.config import TrainingConfig
from training.options import RECIPE_FOLDER, read_table

log = logging.getLogger(f"{__package__}.foreground")  # __name__ is __main__ when this is the command

CROP = 192
BLOCK = 8  # pixels a side of what one logit stands for
REACH = 8  # pixels around a block in which something counts: 2.4 µm at 0.3 µm a pixel
PRESENT = 0.1  # over the background, of the range that a target spans
LEARNING_RATE = 2e-3
DECAY_SHARE = 0.5


def near_structures(targets_BOYX: Tensor) -> Tensor:
    """Whether there is anything of an organelle near each block of pixels: (B, O, Y, X) to (B, O, Y / 8, X / 8)."""
    present = (targets_BOYX > BACKGROUND + PRESENT).float()
    return F.max_pool2d(present, BLOCK + 2 * REACH, stride=BLOCK, padding=REACH)


def train(
    learned: Sequence[CheckpointMetadata],
    specimens: Path,
    minutes: float,
    seed: int,
    start: Foreground | None = None,
) -> tuple[Foreground, int]:
    """Train a branch on what the networks of checkpoints see; the branch, and the steps that it took.

    ``start``: the branch to go on with.
    """
    seen = {modality for metadata in learned for modality in metadata.modalities}
    metadata = learned[0]
    config = TrainingConfig(
        modality=seen.pop().value if len(seen) == 1 else "all",
        seed=seed,
        crop=CROP,
        input_normalization=metadata.input_normalization,
        target_normalization=metadata.target_normalization,
        pixel_size_um=metadata.pixel_size_um,
        appearance=AppearanceConfig(**read_table(RECIPE_FOLDER / "appearance.toml")["appearance"]),
    )
    torch.manual_seed(seed)
    branch = Foreground(tuple(Organelle))
    if start is not None:
        branch.load_state_dict(start.state_dict())
    optimiser = torch.optim.Adam(branch.parameters(), lr=LEARNING_RATE)
    source = SpecimenBatches(SpecimenRenderer(specimens, config.modalities), config)
    began = told = time.monotonic()
    steps, losses = 0, []
    with closing(Loader(source)) as loader:
        while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (1 - share) / DECAY_SHARE)
            (batch,) = next(loader)
            logits, kept = branch.logits(batch.x_B1YX), near_structures(batch.y_BCYX)
            loss = F.binary_cross_entropy_with_logits(logits, kept)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            steps += 1
            losses.append(float(loss.detach()))
            if time.monotonic() - told >= 60:
                log.info("step %d, %d%%: loss %.3f", steps, 100 * share, np.mean(losses))
                told, losses = time.monotonic(), []
    return branch, steps


def _load(paths: Sequence[Path]) -> list[tuple[Network, CheckpointMetadata]]:
    """Load checkpoints that one branch can serve; UserError for others."""
    loaded = []
    for path in paths:
        network, metadata = checkpoint.load(path)
        if network.architecture.organelles != tuple(Organelle):
            found = ", ".join(network.architecture.organelles)
            raise UserError(f"{path}: predicts {found}, expected all four organelles.")
        if metadata.target_normalization is not TargetNormalization.PERCENTILE:
            raise UserError(f"{path}: learned {metadata.target_normalization} targets, expected percentile ones.")
        loaded.append((network, metadata))
    first = loaded[0][1]
    for path, (_, metadata) in zip(paths, loaded, strict=True):
        if metadata.preprocessing != first.preprocessing or metadata.pixel_size_um is None:
            raise UserError(f"{path}: normalizes or resamples its inputs otherwise than {paths[0]}.")
    return loaded


def _branch(
    loaded: Sequence[tuple[Network, CheckpointMetadata]], options: argparse.Namespace
) -> tuple[Foreground, dict[str, object]]:
    """Train the branch, or take that of the first checkpoint; also what is noted of it."""
    network, metadata = loaded[0]
    start = network.foreground
    if not options.minutes:
        assert start is not None  # for mypy
        return start, json.loads(metadata.notes.get("foreground", "{}"))
    learned = [each for _, each in loaded]
    branch, steps = train(learned, options.specimens, options.minutes, options.seed, start)
    asked = {name: getattr(options, name) for name in ("seed", "minutes")}
    return branch, {"specimens": str(options.specimens), **asked, "steps": steps}


def _check_names(paths: Sequence[Path]) -> None:
    """Refuse two checkpoints that would be written into one file."""
    first: dict[str, Path] = {}
    for path in paths:
        if other := first.get(path.name):
            raise UserError(f"{path}: found the file name of {other}, expected another, since outputs keep it.")
        first[path.name] = path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", required=True, help="with the same preprocessing; left as they are"
    )
    parser.add_argument("--specimens", type=Path, help="folder of simulate.py --specimens")
    parser.add_argument("--output", type=Path, required=True, help="new folder for files of the same names")
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="0: copy the first checkpoint's branch (%(default)s)"
    )
    parser.add_argument(
        "--kept-from", type=float, default=0.2, help="probability of a structure at which half is kept (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    options = parser.parse_args(arguments)
    if not 0 < options.kept_from < 1:
        parser.error(f"--kept-from {options.kept_from:g}, expected a probability between 0 and 1")
    if not options.minutes >= 0:
        parser.error(f"--minutes {options.minutes:g}, expected 0 or more")
    if options.minutes and options.specimens is None:
        parser.error("--specimens is needed to train")
    log_to_standard_streams("training")
    try:
        _check_names(options.checkpoint)
        loaded = _load(options.checkpoint)
        if not options.minutes and loaded[0][0].foreground is None:
            raise UserError(f"{options.checkpoint[0]}: has no foreground branch, expected one with --minutes 0.")
        prepare_folder(options.output, empty=True)
        branch, note = _branch(loaded, options)
        branch.kept_from.fill_(math.log(options.kept_from / (1 - options.kept_from)))
        note["kept_from"] = options.kept_from
        weights = {f"foreground.{name}": values for name, values in branch.state_dict().items()}
        for path, (network, metadata) in zip(options.checkpoint, loaded, strict=True):
            whole = rebuild(network, weights, foreground=True)
            notes = {**metadata.notes, "foreground": json.dumps(note)}
            checkpoint.save(
                options.output / path.name, whole, replace(metadata, architecture=whole.architecture, notes=notes)
            )
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN
    log.info("%s: a branch of %s steps in %d checkpoints", options.output, note.get("steps", "unknown"), len(loaded))
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())

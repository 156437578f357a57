"""Train the branch that tells cells from an empty dish, and store checkpoints with it.

    python -m training.foreground --checkpoint RUN/last.safetensors --specimens data/specimens --output with_foreground

The branch is trained by itself, so a step costs a hundredth of one with its generator: for each organelle it learns
whether there is anything of it near a pixel. ``train.py --foreground`` trains both together instead.
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
from model.labels import Modality, Organelle
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
    metadata: CheckpointMetadata, specimens: Path, minutes: float, seed: int, kept_from: float
) -> tuple[Foreground, int]:
    """Train a branch on what a checkpoint's network sees; the branch, and the steps that it took.

    ``kept_from``: the probability of a structure at which half of a prediction is kept.
    """
    config = TrainingConfig(
        modality=metadata.modalities[0].value if len(metadata.modalities) == 1 else "all",
        seed=seed,
        crop=CROP,
        input_normalization=metadata.input_normalization,
        target_normalization=metadata.target_normalization,
        pixel_size_um=metadata.pixel_size_um,
        appearance=AppearanceConfig(**read_table(RECIPE_FOLDER / "appearance.toml")["appearance"]),
    )
    torch.manual_seed(seed)
    branch = Foreground(tuple(Organelle))
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
    assert branch.last.bias is not None  # for mypy
    with torch.no_grad():
        branch.last.bias -= math.log(kept_from / (1 - kept_from))
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
        if metadata.modalities != first.modalities or len(metadata.modalities) not in (1, len(Modality)):
            found = ", ".join(metadata.modalities)
            raise UserError(f"{path}: saw {found}, expected one modality or all, the same in all checkpoints.")
        if metadata.preprocessing != first.preprocessing or metadata.pixel_size_um is None:
            raise UserError(f"{path}: normalizes or resamples its inputs otherwise than {paths[0]}.")
    return loaded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", required=True, help="of like modalities; left as they are"
    )
    parser.add_argument("--specimens", type=Path, required=True, help="folder of simulate.py --specimens")
    parser.add_argument("--output", type=Path, required=True, help="new folder for files of the same names")
    parser.add_argument("--minutes", type=float, default=15.0, help="(%(default)s)")
    parser.add_argument(
        "--kept-from", type=float, default=0.2, help="probability of a structure at which half is kept (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    options = parser.parse_args(arguments)
    if not 0 < options.kept_from < 1:
        parser.error(f"--kept-from {options.kept_from:g}, expected a probability between 0 and 1")
    if not options.minutes > 0:
        parser.error(f"--minutes {options.minutes:g}, expected more than 0")
    log_to_standard_streams("training")
    try:
        loaded = _load(options.checkpoint)
        prepare_folder(options.output, empty=True)
        branch, steps = train(
            loaded[0][1], options.specimens, options.minutes, options.seed, kept_from=options.kept_from
        )
        asked = {name: getattr(options, name) for name in ("seed", "minutes", "kept_from")}
        note = {"specimens": str(options.specimens), **asked, "steps": steps}
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
    log.info("%s: a branch of %d steps in %d checkpoints", options.output, steps, len(loaded))
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())

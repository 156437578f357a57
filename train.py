"""Fit one recipe on one data set: index, split, train, leave checkpoints that say what they are."""

import argparse
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import torch

from model import checkpoint
from model.errors import UserError
from model.images import inspect
from model.labels import Modality
from model.memory import tune_malloc
from model.networks.architecture import Upsampling
from model.normalization import InputNormalization, TargetNormalization
from model.preprocessing import Preprocessing
from simulation.renderer import SpecimenRenderer
from training.appearance import AppearanceConfig
from training.batches import BatchSource, FieldBatches, SpecimenBatches
from training.check import check
from training.config import RECIPES, Schedule, TrainingConfig, default_width
from training.index import Index, split
from training.plane_cache import PlaneCache
from training.scan import scan
from training.trainer import RunConfig, Trainer


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders in the challenge's layout")
    add(
        "--specimens", type=Path, metavar="DIR",
        help="learn from planes rendered from these specimens of simulate.py; --data is then held out as a whole",
    )  # fmt: skip
    add("--modality", choices=[*Modality, "all"], required=True, help="learn from these inputs")
    add("--recipe", choices=RECIPES, default="pix2pix", help="network and losses")
    add("--output", type=Path, required=True, metavar="RUN", help="new folder for checkpoints, state and logs")
    add("--resume", action="store_true", help="go on with the run in --output; repeat its other options")
    add("--init", type=Path, metavar="CHECKPOINT", help="start from these weights (same architecture)")
    add(
        "--trained-on",
        metavar="TEXT",
        help="what the checkpoint says it learned from (default: told by the data)",
    )
    add("--seed", type=int, default=0, help="of weights, split, batches and augmentation")

    group = parser.add_argument_group("network")
    group.add_argument("--width", type=int, help="channels of the first layer (default: 64; UNet++ 32)")
    group.add_argument("--blocks", type=int, default=9, help="residual blocks (pix2pix only)")
    group.add_argument("--dropout", type=float, default=0.0, help="share of channels dropped while training")
    group.add_argument("--upsampling", choices=get_args(Upsampling), default="transposed", help="of pix2pix decoders")
    group.add_argument("--discriminator-width", type=int, default=64, help="channels of its first layer")

    group = parser.add_argument_group("images")
    group.add_argument(
        "--input-normalization", choices=list(InputNormalization), default=InputNormalization.LINEAR, help="see docs"
    )
    group.add_argument(
        "--target-normalization", choices=list(TargetNormalization), default=TargetNormalization.LINEAR, help="see docs"
    )
    group.add_argument(
        "--pixel-size", type=float, nargs=2, metavar=("MIN", "MAX"),
        help="resample images whose pixels are outside this range, in µm (default: none is resampled)",
    )  # fmt: skip
    group.add_argument("--crop", type=int, default=512, help="side of a training crop in pixels")
    group.add_argument("--window", type=int, help="side of prediction's window in pixels (default: the crop)")
    group.add_argument(
        "--appearance", action="store_true", help="change contrast, noise and sharpness of inputs at random"
    )
    group.add_argument("--split-by", choices=("field", "study"), default="field", help="unit that is held out")
    group.add_argument("--validation-fraction", type=float, default=0.1, help="share of units that is held out")

    group = parser.add_argument_group("loss and optimiser")
    group.add_argument("--batch-per-organelle", type=int, default=1, help="samples from each organelle's list")
    group.add_argument("--lambda-l1", type=float, default=100.0, help="weight of the adaptive L1")
    group.add_argument("--lambda-gan", type=float, help="weight of the GAN, 0: none (default: 1; UNet++ 0)")
    group.add_argument("--lambda-correlation", type=float, default=0.0, help="weight of 1 - Pearson correlation")
    group.add_argument("--learning-rate", type=float, default=2e-4, help="Adam's, at the start")
    group.add_argument("--beta1", type=float, default=0.5, help="Adam's")
    group.add_argument("--ema", type=float, default=0.0, help="decay of averaged weights to ship, e.g. 0.999; 0: none")

    group = parser.add_argument_group("length")
    group.add_argument(
        "--schedule", choices=("epochs", "steps", "time"), default="epochs",
        help="unit of the learning rate's course; time: of --max-minutes, and not exactly repeatable",
    )  # fmt: skip
    group.add_argument("--epochs", type=float, default=150, help="at the full rate")
    group.add_argument("--decay-epochs", type=float, default=150, help="more, falling linearly to zero")
    group.add_argument("--steps-per-epoch", type=int, help="(default: training fields / batch size)")
    group.add_argument("--steps", type=int, default=0, help="at the full rate, with --schedule steps")
    group.add_argument("--decay-steps", type=int, default=0, help="more, falling linearly, with --schedule steps")
    group.add_argument(
        "--decay-share", type=float, default=0.5, help="share of the time that decays, with --schedule time"
    )
    group.add_argument(
        "--max-minutes", type=float, metavar="M",
        help="stop after this long, ready to resume; with --schedule time: minutes in all, resumed parts included",
    )  # fmt: skip

    group = parser.add_argument_group("housekeeping")
    group.add_argument("--validate-minutes", type=float, help="score and save this often (default: every epoch)")
    group.add_argument("--validation-planes", type=int, default=24, help="held-out planes to score")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    group.add_argument("--threads", type=int, help="CPU threads to compute with (default: all cores)")
    group.add_argument("--workers", type=int, default=1, help="threads that read and prepare images")
    group.add_argument("--cache-gb", type=float, default=2.0, help="memory for prepared images in GiB")
    return parser.parse_args(arguments)


def schedule_from(options: argparse.Namespace) -> Schedule:
    match options.schedule:
        case "steps":
            return Schedule("steps", options.steps, options.decay_steps)
        case "epochs":
            return Schedule("epochs", options.epochs, options.decay_epochs)
    if options.max_minutes is None:
        raise UserError("--schedule time is given without --max-minutes, expected the minutes to plan for")
    if not 0 <= options.decay_share <= 1:
        raise UserError(f"--decay-share is {options.decay_share}, expected a share in [0, 1]")
    decay = options.decay_share * options.max_minutes
    return Schedule("minutes", options.max_minutes - decay, decay)


def settings_from(options: argparse.Namespace) -> TrainingConfig:
    derived = {
        "schedule",
        "width",
        "input_normalization",
        "target_normalization",
        "pixel_size_um",
        "window",
        "lambda_gan",
        "appearance",
    }
    as_given = {field.name for field in fields(TrainingConfig)} - derived
    gan = 1.0 if options.recipe == "pix2pix" else 0.0
    width = default_width(options.recipe)
    if options.init is not None:
        width = checkpoint.read_metadata(options.init).architecture.width
    return TrainingConfig(
        schedule=schedule_from(options),
        width=width if options.width is None else options.width,
        input_normalization=InputNormalization(options.input_normalization),
        target_normalization=TargetNormalization(options.target_normalization),
        pixel_size_um=None if options.pixel_size is None else (options.pixel_size[0], options.pixel_size[1]),
        window=options.crop if options.window is None else options.window,
        appearance=AppearanceConfig() if options.appearance else None,
        lambda_gan=gan if options.lambda_gan is None else options.lambda_gan,
        **{name: getattr(options, name) for name in as_given},
    )


def read_data(options: argparse.Namespace, config: TrainingConfig) -> tuple[BatchSource, Index, str]:
    """What to learn from, what to validate on, and what a checkpoint says it was trained on."""
    index = read_index(options.data, config)
    if options.specimens is not None:
        renderer = SpecimenRenderer(options.specimens, modalities_of(config))
        print(f"{len(renderer.store)} specimens to render, {len(index.fields)} fields held out", flush=True)
        return SpecimenBatches(renderer, config), index, "simulated cells"
    training, validation = split_index(index, config)
    preprocessing = Preprocessing(config.input_normalization, config.pixel_size_um)
    cache = PlaneCache(preprocessing, config.target_normalization, int(options.cache_gb * 2**30))
    return FieldBatches(training, cache, config), validation, described(training, options.data)


def modalities_of(config: TrainingConfig) -> tuple[Modality, ...]:
    return tuple(Modality) if config.modality == "all" else (Modality(config.modality),)


def read_index(roots: list[Path], config: TrainingConfig) -> Index:
    """Index and check; say what was found and what is left out."""
    index = scan(roots)
    chosen = index.only(modalities_of(config))
    if not chosen.fields:
        present = ", ".join(index.labelled()) or "no labelled field"
        raise UserError(f"{roots[0]}: holds {present}, expected labelled fields of {config.modality}")
    chosen = check(chosen)
    print(chosen.summary(), flush=True)
    if not chosen.fields:
        raise UserError(f"{roots[0]}: none of its fields is usable, see the reasons above")
    return chosen


def split_index(chosen: Index, config: TrainingConfig) -> tuple[Index, Index]:
    """Hold fields out; say how many."""
    parts = split(chosen, by=config.split_by, fraction=config.validation_fraction, seed=config.seed)
    if not parts[0].fields:
        raise UserError(f"--validation-fraction {config.validation_fraction} leaves no {config.split_by} to train on")
    print(
        f"{len(parts[0].fields)} fields to train on, {len(parts[1].fields)} held out by {config.split_by}",
        flush=True,
    )
    return parts


def described(index: Index, roots: list[Path]) -> str:
    """What a checkpoint says it was trained on: simulate.py writes it into every file it renders."""
    texts = []
    for path in (next(iter(field.planes.values())) for field in index.fields):
        root = next(root for root in roots if path.is_relative_to(root))
        texts.append(inspect(path).provenance.get("origin") or f"data in {root.resolve().name}")
    return " and ".join(dict.fromkeys(texts))


def device_from(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} cannot be used here, expected auto, cpu, cuda or mps") from error
    return device


def run(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    config = settings_from(options)
    tune_malloc()
    if options.threads is not None:
        torch.set_num_threads(max(1, options.threads))
    source, validation, origin = read_data(options, config)
    run_config = RunConfig(
        output=options.output,
        device=device_from(options.device),
        resume=options.resume,
        initial=options.init,
        # A schedule in minutes ends by itself, and counts the minutes of the parts before a resume.
        max_minutes=None if options.schedule == "time" else options.max_minutes,
        validate_minutes=options.validate_minutes,
        workers=max(1, options.workers),
        trained_on=options.trained_on or origin,
        command=shlex.join(["python", "train.py", *(sys.argv[1:] if arguments is None else arguments)]),
    )
    trainer = Trainer(config, source, validation, run_config)
    print(
        f"{config.recipe}, {sum(p.numel() for p in trainer.module.network.parameters()) / 1e6:.2f} M parameters, "
        f"batches of {source.batch_size}, {trainer.steps_per_epoch} steps an epoch, on {run_config.device}, "
        f"learning from {run_config.trained_on}",
        flush=True,
    )
    print(trainer.run())


def main() -> int:
    try:
        run()
    except UserError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train.py: interrupted; the last saved state stands", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

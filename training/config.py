"""The configuration of a run, declared once: command line, TOML files and checkpoints all follow from these classes.

Types and limits are checked by pydantic, ``Attributes`` sections become the help of ``train.py``; `options` reads and
writes them. A key in a TOML file is the name of the option with ``_`` for ``-``, in a table where the option has a dot.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from model.errors import UserError
from model.labels import Modality
from model.networks.architecture import Architecture, Upsampling
from model.networks.build import NETWORKS
from model.networks.layers import smallest_side
from model.normalization import InputNormalization, TargetNormalization
from training.appearance import AppearanceConfig, PositiveLimits
from training.discriminator import SMALLEST_CROP

Recipe = Literal["pix2pix", "unetplusplus", "dynamic"]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
PartialLabels = Literal["adaptive", "complete", "blank"]
Sampling = Literal["balanced", "plain"]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


def _alias(name: str) -> object:
    return tyro.conf.arg(aliases=(f"--{name}",))


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate is constant, then falls linearly to zero (paper, section 2.2).

    In epochs or optimiser steps the course is exactly repeatable; in minutes it fits a budget.

    Attributes
    ----------
    unit : {"epochs", "steps", "time"}
        Unit in which the course is given; time: in minutes, not exactly repeatable.
    epochs : float
        At the full rate, with the unit epochs.
    decay_epochs : float
        More, falling linearly, with the unit epochs.
    steps : int
        At the full rate, with the unit steps.
    decay_steps : int
        More, falling linearly, with the unit steps.
    max_minutes : float or None
        Stop after this long, ready to resume; with the unit time: minutes in all, those of resumed parts included.
    decay_share : float
        Share of the minutes that falls, with the unit time.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    unit: Annotated[Literal["epochs", "steps", "time"], _alias("schedule")] = "epochs"
    epochs: Annotated[NonNegativeFloat, _alias("epochs")] = 150.0
    decay_epochs: Annotated[NonNegativeFloat, _alias("decay-epochs")] = 150.0
    steps: Annotated[NonNegativeInt, _alias("steps")] = 0
    decay_steps: Annotated[NonNegativeInt, _alias("decay-steps")] = 0
    max_minutes: Annotated[PositiveFloat | None, _alias("max-minutes")] = None
    decay_share: Annotated[Share, _alias("decay-share")] = 0.5

    @property
    def constant(self) -> float:
        """Units at the full rate."""
        match self.unit:
            case "epochs":
                return self.epochs
            case "steps":
                return self.steps
            case "time":
                return (1 - self.decay_share) * (self.max_minutes or 0)

    @property
    def total(self) -> float:
        """Units in all."""
        match self.unit:
            case "epochs":
                return self.epochs + self.decay_epochs
            case "steps":
                return self.steps + self.decay_steps
            case "time":
                return self.max_minutes or 0

    @property
    def part_minutes(self) -> float | None:
        """After how many minutes to stop before the end of the course; a course in minutes ends by itself."""
        return None if self.unit == "time" else self.max_minutes

    def factor(self, done: float) -> float:
        """Multiplier of the learning rate after ``done`` units, in [0, 1]."""
        if done <= self.constant:
            return 1.0
        return max(0.0, (self.total - done) / (self.total - self.constant)) if self.total > self.constant else 0.0

    def finished(self, done: float) -> bool:
        """Whether the course is over after ``done`` units."""
        return done >= self.total

    def validate(self) -> None:
        """Raise UserError where there is nothing to do."""
        if self.unit == "time" and self.max_minutes is None:
            raise UserError("--schedule time is given without --max-minutes, expected the minutes to plan for.")
        if self.total <= 0:
            raise UserError(f"--schedule {self.unit} lasts {self.total:g} in all, expected more than 0.")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What decides the weights of a run. Defaults are the paper's for pix2pix, where it states one.

    Attributes
    ----------
    recipe : {"pix2pix", "unetplusplus", "dynamic"}
        pix2pix: ResNet generator and conditional GAN; unetplusplus: UNet++ without GAN; dynamic: a UNet++ whose first
        convolution is generated from the modality. Its file in training/recipes/ replaces the defaults below.
    modality : {"BF", "PC", "DIC", "all"}
        Inputs to learn from.
    init : Path or None
        Checkpoint to start from. Architecture, normalizations, pixel sizes and window are taken over from it where no
        option names them.
    freeze : {"none", "encoder"}
        Part of the network that keeps the weights of --init.
    seed : int
        Of weights, split, batches and augmentation.
    width : int
        Channels of the network's first layer.
    blocks : int
        Residual blocks (ResNet only).
    dynamic : bool
        Whether the first convolution is generated from the modality, as in the recipe dynamic.
    dropout : float
        Share of channels dropped while training.
    upsampling : {"transposed", "filtered", "resize"}
        Of the ResNet's decoders: transposed convolutions as in the paper; the same and a fixed filter that takes their
        checkerboard out of the prediction; or resize convolutions, which print none.
    foreground : bool
        Whether a branch without instance norm fades predictions where there are no cells.
    discriminator_width : int
        Channels of the discriminators' first layer.
    input_normalization : InputNormalization
        linear: [0, 65535] to [-1, 1] as in the paper; percentile: minus the image's median, over its [2, 98]
        percentile range; zscore: minus its mean, over twice its standard deviation; flatfield: divided by its own wide
        background, then as percentile.
    target_normalization : TargetNormalization
        linear: as in the paper; percentile: the target's own [2, 99.8] percentiles, as the challenge's metrics.
    pixel_size_um : (float, float) or None
        Smallest and largest pixel size in µm that the network sees; images outside are resampled to the nearer one.
        None: images as they are.
    crop : int
        Side of a training crop in pixels, after resampling.
    window : int
        Side in pixels of the tiles that prediction uses.
    split_by : {"field", "study"}
        Unit that is held out for validation.
    validation_fraction : float
        Share of the units that is held out.
    validation_studies : tuple of str
        Hold out the fields of these studies instead, by name, e.g. Study_10.
    validation_planes : int
        Held-out planes to score.
    partial_labels : {"adaptive", "complete", "blank"}
        adaptive: learn what each field has labels of (paper, section 2.3). To compare with it: complete: only from
        fields that have all labels of their modality; blank: as if an organelle without label were not there.
    sampling : {"balanced", "plain"}
        balanced: equally many samples from each labelled organelle's list (paper, section 2.2); plain: from all fields.
    batch_per_organelle : int
        Samples from each labelled organelle's list in every micro-batch. A batch is --accumulate micro-batches of each
        of torchrun's processes; the learning rate is not changed by their number.
    accumulate : int
        Micro-batches whose gradients are summed before the optimizers move: the batch that does not fit into memory.
    lambda_l1 : float
        Weight of the adaptive L1 (paper, equation 2).
    outside_weight : float
        Weight in it of pixels outside the [2, 99.8] percentile range of their target; 1: all pixels weigh the same.
    lambda_gan : float
        Weight of the GAN (paper, equation 2); 0: no discriminators.
    lambda_correlation : float
        Weight of 1 - Pearson correlation.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Number format of the convolutions' factors; auto: bf16 where the device has it, fp16 with scaled losses on other
        CUDA devices, else fp32.
    compile : bool
        Compile the networks by torch.compile, which takes minutes and a C++ compiler.
    learning_rate : float
        Adam's, at the start.
    beta1 : float
        Adam's decay of the mean gradient.
    ema : float
        Decay of averaged weights, which are then validated and shipped, e.g. 0.999; 0: none.
    steps_per_epoch : int or None
        None: as many as see each training field once.
    schedule : Schedule
        Course of the learning rate, and length of the run.
    appearance : AppearanceConfig
        Random changes of the input crops.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    recipe: Recipe = "pix2pix"
    modality: Literal["BF", "PC", "DIC", "all"]
    init: Path | None = None
    freeze: Literal["none", "encoder"] = "none"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    width: Annotated[int, Field(ge=1, le=512)] = 64
    blocks: Annotated[int, Field(ge=0, le=64)] = 9
    dynamic: bool = False
    dropout: ShareBelowOne = 0.0
    upsampling: Upsampling = "transposed"
    foreground: bool = False
    discriminator_width: PositiveInt = 64
    input_normalization: InputNormalization = InputNormalization.LINEAR
    target_normalization: TargetNormalization = TargetNormalization.LINEAR
    pixel_size_um: Annotated[PositiveLimits | None, _alias("pixel-size")] = None
    crop: int = 512
    window: int = 512
    split_by: Literal["field", "study"] = "field"
    validation_fraction: ShareBelowOne = 0.1
    validation_studies: tuple[str, ...] = ()
    validation_planes: NonNegativeInt = 24
    batch_per_organelle: PositiveInt = 1
    accumulate: PositiveInt = 1
    partial_labels: PartialLabels = "adaptive"
    sampling: Sampling = "balanced"
    lambda_l1: NonNegativeFloat = 100.0
    outside_weight: Share = 0.1
    lambda_gan: NonNegativeFloat = 1.0
    lambda_correlation: NonNegativeFloat = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    learning_rate: PositiveFloat = 2e-4
    beta1: ShareBelowOne = 0.5
    ema: ShareBelowOne = 0.0
    steps_per_epoch: PositiveInt | None = None
    schedule: Schedule = field(default_factory=Schedule)
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities to learn from."""
        return tuple(Modality) if self.modality == "all" else (Modality(self.modality),)

    @property
    def architecture(self) -> Architecture:
        """The network to be trained; it always has all four organelles' heads."""
        resnet = self.recipe == "pix2pix"
        return Architecture(
            network="resnet" if resnet else "unetplusplus",
            width=self.width,
            blocks=self.blocks,
            dynamic=self.dynamic or self.recipe == "dynamic",
            dropout=self.dropout,
            upsampling=self.upsampling if resnet else "transposed",
            foreground=self.foreground,
        )

    def validate(self) -> None:
        """Check what concerns several options at once; raises UserError, one sentence that names them."""
        self.schedule.validate()
        stride = NETWORKS[self.architecture.network].stride
        for_discriminators = SMALLEST_CROP if self.lambda_gan else 0
        smallest = {"crop": max(smallest_side(stride), for_discriminators), "window": smallest_side(stride)}
        for name, least in smallest.items():
            side = getattr(self, name)
            if side % stride or side < least:
                raise UserError(f"--{name} is {side}, expected a multiple of {stride}, at least {least}.")
        if self.appearance.changes and self.input_normalization is not InputNormalization.FLATFIELD:
            raise UserError(
                f"--appearance.{self.appearance.changes[0]} is given, expected --input-normalization flatfield, "
                "whose range it changes."
            )
        if self.recipe != "pix2pix" and self.lambda_gan:
            raise UserError(f"--lambda-gan is {self.lambda_gan:g}, expected 0 for the recipe {self.recipe}.")
        if not (self.lambda_l1 or self.lambda_correlation):
            raise UserError("--lambda-l1 and --lambda-correlation are both 0, expected something to learn from.")
        if self.freeze != "none" and self.init is None:
            raise UserError(f"--freeze {self.freeze} is given without --init, expected the weights to keep.")


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainingConfig):
    """Fit one network on one data set, and leave checkpoints that say what they are.

    Attributes
    ----------
    data : tuple of Path
        Folders in the challenge's layout.
    specimens : Path or None
        Learn from planes rendered from these specimens of simulate.py; --data is then held out as a whole.
    trained_on : str or None
        What the checkpoint says it was trained on (None: as told by the data).
    output : Path
        New folder for checkpoints, state, configuration and logs.
    device : str
        auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.
    threads : int or None
        CPU threads to compute with (None: all cores).
    workers : int
        Threads that read and prepare images.
    cache_gb : float
        Memory for prepared images in GiB.
    validate_minutes : float or None
        Score and save this often (None: every epoch).
    """

    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    specimens: Path | None = None
    trained_on: Annotated[str, Field(pattern=r"\S")] | None = None
    output: Path
    device: str = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    cache_gb: Annotated[float, Field(ge=0, le=100_000)] = 2.0
    validate_minutes: NonNegativeFloat | None = None

    def validate(self) -> None:
        """As `TrainingConfig.validate`, for the whole run."""
        super().validate()
        if self.specimens is not None and self.validation_studies:
            raise UserError("--validation-studies is given with --specimens, which hold out all of --data.")
        if self.specimens is not None and (
            self.pixel_size_um is None
            or self.input_normalization is not InputNormalization.FLATFIELD
            or self.target_normalization is not TargetNormalization.PERCENTILE
        ):
            raise UserError(
                "--specimens is given, expected also --pixel-size MIN MAX, --input-normalization flatfield and "
                "--target-normalization percentile."
            )
        if self.specimens is not None and (self.partial_labels, self.sampling) != ("adaptive", "balanced"):
            raise UserError(
                "--specimens is given, whose planes have all labels: --partial-labels and --sampling say nothing."
            )


MAY_CHANGE = frozenset(
    {
        *("data", "specimens", "output", "device", "threads", "workers", "cache_gb", "validate_minutes"),
        "schedule.max_minutes",
    }
)
"""What a resumed run may be given anew: where things are, on what to compute, when to stop. That the data are the same
is checked by their hash."""

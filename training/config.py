"""What a run is: every choice that decides the weights, and the learning rate's course."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from model.errors import UserError
from model.networks.architecture import Architecture, Upsampling
from model.normalization import InputNormalization, TargetNormalization
from training.appearance import AppearanceConfig

RECIPES = ("pix2pix", "unetplusplus", "dynamic")
Unit = Literal["epochs", "steps", "minutes"]


@dataclass(frozen=True)
class Schedule:
    """Full learning rate for ``constant`` units, then linear to zero over ``decay`` more.

    Measured in epochs or optimiser steps the course is exactly repeatable; in minutes it fits a budget.
    """

    unit: Unit
    constant: float
    decay: float

    @property
    def total(self) -> float:
        return self.constant + self.decay

    def factor(self, done: float) -> float:
        """Multiplier of the learning rate after ``done`` units, in [0, 1]."""
        if done <= self.constant:
            return 1.0
        return max(0.0, 1.0 - (done - self.constant) / self.decay) if self.decay else 0.0

    def finished(self, done: float) -> bool:
        return done >= self.total


@dataclass(frozen=True)
class TrainingConfig:
    """The choices of one run. Defaults are the paper's (pix2pix) where it states one.

    recipe               pix2pix (ResNet generator, conditional GAN), unetplusplus (no GAN), or dynamic
                         (unetplusplus whose first convolution is generated from the modality)
    modality             "BF", "PC", "DIC" or "all"
    width, blocks        channels of the first layer; residual blocks (ResNet only)
    dropout              share of channels dropped while training
    pixel_size_um        (min, max) in µm the network may see; None: images as they are
    crop, window         side in pixels of a training crop, and of the window that prediction will use
    upsampling           of the ResNet's decoders: transposed (the paper's) or resize (no checkerboard)
    appearance           random changes of the input crops' appearance; None: none
    batch_per_organelle  samples from each labelled organelle's list in a batch
    lambda_*             weights of the adaptive L1, of the GAN, and of 1 - Pearson correlation
    ema                  decay a step of the averaged weights that are validated and eval_network; 0: none
    steps_per_epoch      None: as many as see each training field once
    split_by, validation_fraction, validation_planes   what is held out, and how much of it is scored
    """

    recipe: str
    modality: str
    schedule: Schedule
    width: int
    blocks: int = 9
    dropout: float = 0.0
    input_normalization: InputNormalization = InputNormalization.LINEAR
    target_normalization: TargetNormalization = TargetNormalization.LINEAR
    pixel_size_um: tuple[float, float] | None = None
    crop: int = 512
    window: int = 512
    upsampling: Upsampling = "transposed"
    appearance: AppearanceConfig | None = None
    batch_per_organelle: int = 1
    lambda_l1: float = 100.0
    lambda_gan: float = 1.0
    lambda_correlation: float = 0.0
    discriminator_width: int = 64
    learning_rate: float = 2e-4
    beta1: float = 0.5
    ema: float = 0.0
    steps_per_epoch: int | None = None
    split_by: str = "field"
    validation_fraction: float = 0.1
    validation_planes: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate once, at the edge. Raises UserError."""

        def require(holds: bool, name: str, value: object, expected: str) -> None:
            if not holds:
                raise UserError(f"--{name.replace('_', '-')} is {value}, expected {expected}")

        require(self.recipe in RECIPES, "recipe", self.recipe, f"one of {', '.join(RECIPES)}")
        for name in ("width", "crop", "window", "batch_per_organelle", "discriminator_width"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in (
            "blocks",
            "lambda_l1",
            "lambda_gan",
            "lambda_correlation",
            "validation_planes",
            "seed",
        ):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("dropout", "ema", "validation_fraction", "beta1"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")
        require(self.schedule.total > 0, self.schedule.unit, self.schedule.total, "more than 0 in all")
        require(
            min(self.schedule.constant, self.schedule.decay) >= 0,
            self.schedule.unit,
            "negative",
            "at least 0",
        )
        require(
            self.steps_per_epoch is None or self.steps_per_epoch >= 1,
            "steps_per_epoch",
            self.steps_per_epoch,
            "at least 1",
        )
        if self.pixel_size_um is not None:
            low, high = self.pixel_size_um
            require(0 < low <= high, "pixel_size", f"{low} {high}", "a smallest and a largest size in µm")
        if self.appearance is not None and self.input_normalization is not InputNormalization.FLATFIELD:
            raise UserError("--appearance is given, expected --input-normalization flatfield, whose range it changes.")
        if self.recipe != "pix2pix" and self.lambda_gan:
            raise UserError(f"--lambda-gan is {self.lambda_gan}, expected 0 for the recipe {self.recipe}")
        if not (self.lambda_l1 or self.lambda_correlation):
            raise UserError("--lambda-l1 and --lambda-correlation are both 0, expected something to learn from")

    def architecture(self) -> Architecture:
        """The network this run trains; it always has all four organelles' heads."""
        resnet = self.recipe == "pix2pix"
        return Architecture(
            network="resnet" if resnet else "unetplusplus",
            width=self.width,
            blocks=self.blocks,
            dynamic=self.recipe == "dynamic",
            dropout=self.dropout,
            upsampling=self.upsampling if resnet else "transposed",
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, to be stored with the training state."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(part) for name, part in value.items()}
            return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, str) else value

        return {name: plain(value) for name, value in asdict(self).items()}

    def require_same(self, stored: dict[str, Any]) -> None:
        """Raise UserError naming the first choice in which a stored run (its ``as_dict``) differs."""
        for name, value in self.as_dict().items():
            if stored.get(name) != value:
                raise UserError(
                    f"the setting {name} is {value}, but the run to be resumed was started with {stored.get(name)}; "
                    "repeat its command, or start a new run"
                )


def default_width(recipe: str) -> int:
    """Width where the user names none: 64 for the paper's generator, 32 for UNet++ (as costly a step)."""
    return 64 if recipe == "pix2pix" else 32

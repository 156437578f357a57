"""What a microscope, a camera or a viewer may do to an image, done to a network's input while it learns.

Changes of a normalized crop alone, never of its target: what is seen there stays there. Amplitudes are in units of the
normalized range (1 is the [2, 98] percentile range of an image under `InputNormalization.FLATFIELD`). Every choice
follows from the generator's state. Empty background is not made here, since its target would have to be emptied too:
the simulator has empty dishes.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat
from scipy import ndimage

from model.labels import Modality
from model.normalization import NORMALIZED_CLIP

Crop = NDArray[np.float32]


def ascending(limits: tuple[float, float]) -> tuple[float, float]:
    """Return a (low, high) as it is; ValueError where low is the larger."""
    if limits[0] > limits[1]:
        raise ValueError("expected the smaller one first")
    return limits


Probability = Annotated[float, Field(ge=0, le=1)]
Limits = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], AfterValidator(ascending)]
_FinitePositive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveLimits = Annotated[tuple[_FinitePositive, _FinitePositive], AfterValidator(ascending)]


@dataclass(frozen=True, kw_only=True)
class AppearanceConfig:
    """Probabilities of each change of an input crop (all 0: none), and smallest and largest strength.

    Attributes
    ----------
    sign : float
        Probability that contrast is inverted, in phase contrast only: positive and negative rings differ by little
        else. In DIC turns of the crop turn the shear, in bright field the focus turns the sign.
    tone : float
        Probability of a tone curve.
    tone_exponent : (float, float)
        Exponent of the curve over the crop's own range.
    contrast : float
        Probability of a factor on everything: a crop of an image whose other cells are stronger or weaker.
    contrast_factor : (float, float)
        That factor, log-uniform.
    noise : float
        Probability of noise, half of it white, half correlated.
    noise_sigma : (float, float)
        Its standard deviation, log-uniform.
    noise_px : (float, float)
        Correlation length of the correlated half.
    blur : float
        Probability of a Gaussian blur.
    blur_px : (float, float)
        Its standard deviation.
    flatten : float
        Probability that the local mean is taken away, as background correction does, or a phase ring with narrow
        halos; the crop's spread is restored.
    flatten_share : (float, float)
        How much of it.
    flatten_px : (float, float)
        Standard deviation of the Gaussian that sees the local mean.
    sharpen : float
        Probability of sharpening.
    sharpen_amount : (float, float)
        How much of what a Gaussian of 1 px takes away is added again.
    gradient : float
        Probability of a gradient in any direction.
    gradient_rise : (float, float)
        Its rise from one side of the crop to the other.
    corner : float
        Probability of the black corner of a round field stop.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    sign: Probability = 0.0
    tone: Probability = 0.0
    tone_exponent: PositiveLimits = (0.6, 1.6)
    contrast: Probability = 0.0
    contrast_factor: PositiveLimits = (0.5, 1.5)
    noise: Probability = 0.0
    noise_sigma: PositiveLimits = (0.01, 0.3)
    noise_px: Limits = (0.5, 3.0)
    blur: Probability = 0.0
    blur_px: Limits = (0.2, 1.2)
    flatten: Probability = 0.0
    flatten_share: Limits = (0.3, 0.95)
    flatten_px: PositiveLimits = (5.0, 30.0)
    sharpen: Probability = 0.0
    sharpen_amount: Limits = (0.3, 1.5)
    gradient: Probability = 0.0
    gradient_rise: Limits = (0.05, 0.6)
    corner: Probability = 0.0

    @property
    def changes(self) -> tuple[str, ...]:
        """Names of the changes that may happen."""
        names = ("sign", "tone", "contrast", "noise", "blur", "flatten", "sharpen", "gradient", "corner")
        return tuple(name for name in names if getattr(self, name))


def change_appearance(crop_YX: Crop, modality: Modality, config: AppearanceConfig, rng: np.random.Generator) -> Crop:
    """Change the appearance of a crop at random.

    Parameters
    ----------
    crop_YX : ndarray of float32, (Y, X)
        Normalized by `InputNormalization.FLATFIELD`; left as it is.
    modality : Modality
        Only phase contrast has two signs.
    config : AppearanceConfig
        What may happen.
    rng : numpy.random.Generator
        All choices follow from its state.

    Returns
    -------
    ndarray of float32, (Y, X)
        Within the normalization's limits, unless nothing may happen: then a copy of the crop.
    """
    if not config.changes:
        return np.array(crop_YX, dtype=np.float32)
    x = np.array(crop_YX, dtype=np.float32)
    if modality is Modality.PC and rng.random() < config.sign:
        np.negative(x, out=x)
    if rng.random() < config.tone:
        x = _bend(x, float(rng.uniform(*config.tone_exponent)))
    if rng.random() < config.flatten:
        x = _flatten(x, float(rng.uniform(*config.flatten_share)), _log_uniform(rng, config.flatten_px))
    if rng.random() < config.contrast:
        x *= np.float32(_log_uniform(rng, config.contrast_factor))
    # The optics blur before the camera makes noise; a viewer sharpens both.
    if rng.random() < config.blur:
        x = ndimage.gaussian_filter(x, rng.uniform(*config.blur_px), mode="nearest", truncate=3.0)
    if rng.random() < config.gradient:
        x += _ramp(x.shape, rng) * np.float32(rng.uniform(*config.gradient_rise))
    if rng.random() < config.noise:
        x += _noise(x.shape, config, rng)
    if rng.random() < config.sharpen:
        lost = x - ndimage.gaussian_filter(x, 1.0, mode="nearest", truncate=3.0)
        x += np.float32(rng.uniform(*config.sharpen_amount)) * lost
    if rng.random() < config.corner:
        x = _darken_corner(x, rng)
    return np.clip(x, -NORMALIZED_CLIP, NORMALIZED_CLIP, out=x)


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _bend(x: Crop, exponent: float) -> Crop:
    """A tone curve: relative grey raised to a power, over the crop's own range."""
    low, high = float(x.min()), float(x.max())
    if high <= low:
        return x
    relative = (x - np.float32(low)) / np.float32(high - low)
    bent: Crop = relative ** np.float32(exponent) * np.float32(high - low) + np.float32(low)
    # What was in the middle stays there, as normalization would see to.
    bent += np.float32(np.median(x) - np.median(bent))
    return bent


def _flatten(x: Crop, share: float, sigma_px: float) -> Crop:
    """Take part of the local mean away, computed on coarser pixels, and restore the standard deviation."""
    coarse_by = max(1, int(sigma_px / 2.5))
    coarse = ndimage.gaussian_filter(x[::coarse_by, ::coarse_by], sigma_px / coarse_by, mode="nearest", truncate=3.0)
    factors = [size / coarse.shape[axis] for axis, size in enumerate(x.shape)]
    mean = ndimage.zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
    flat: Crop = x - np.float32(share) * mean
    flat *= np.float32(x.std() / max(float(flat.std()), 1e-6))
    return flat


def _noise(shape: tuple[int, ...], config: AppearanceConfig, rng: np.random.Generator) -> Crop:
    sigma = np.float32(_log_uniform(rng, config.noise_sigma))
    grain: Crop = rng.standard_normal(shape, dtype=np.float32)
    if rng.random() < 0.5:
        grain = ndimage.gaussian_filter(grain, rng.uniform(*config.noise_px), mode="wrap", truncate=3.0)
        grain /= max(float(grain.std()), 1e-6)
    return grain * sigma


def _ramp(shape: tuple[int, ...], rng: np.random.Generator) -> Crop:
    """A plane in a random direction, from -0.5 to 0.5 along it."""
    bearing = rng.uniform(0, 2 * np.pi)
    y, x = (np.linspace(-0.5, 0.5, size, dtype=np.float32) for size in shape)
    plane: Crop = y[:, None] * np.float32(np.sin(bearing)) + x * np.float32(np.cos(bearing))
    return plane


def _darken_corner(x: Crop, rng: np.random.Generator) -> Crop:
    """Black outside of a circle that cuts off a corner or a side, over a soft edge."""
    height, width = x.shape
    bearing, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 3.0)
    inside = radius - rng.uniform(0.3, 0.6)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None] - np.float32(0.5 + inside * np.sin(bearing))
    columns = np.linspace(0, 1, width, dtype=np.float32) - np.float32(0.5 + inside * np.cos(bearing))
    beyond = (np.hypot(rows, columns) - np.float32(radius)) / np.float32(_log_uniform(rng, (0.004, 0.1)))
    covered = (1 / (1 + np.exp(-np.clip(beyond, -30, 30)))).astype(np.float32)
    darkened: Crop = x * (1 - covered) - np.float32(NORMALIZED_CLIP) * covered
    return darkened

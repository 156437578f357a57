"""From intensity to the numbers in a file: photons, electrons, gain, offset, bits, and what sits on the glass.

Photon transfer model (EMVA 1288; Janesick, Photon Transfer, 2007): electrons are Poisson distributed, pixels
differ in sensitivity, the read-out adds Gaussian noise, the gain makes codes, and codes are clipped to the
camera's bits. Files are stored as 16 bit, either with the camera's own codes or stretched to the full range,
as real data sets mix both.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float32]
Codes = NDArray[np.uint16]

FULL_RANGE = 65535
# Mean codes of raw transmitted images as measured on the real data: 250 to 38,700.
MEAN_CODE_RANGE = (250.0, 38_700.0)
# Fewer electrons a pixel than this would be noisier (3 %) than transmitted-light images are.
LEAST_ELECTRONS = 2_500.0
# Above this mean the Poisson distribution is drawn as its Gaussian limit, 20 times faster and alike within its noise.
GAUSSIAN_ABOVE = 50.0


@dataclass(frozen=True)
class Dust:
    """A grain on a window near the sensor: place as a fraction of the image, size in pixels, depth of its shadow."""

    y: float
    x: float
    radius_px: float
    depth: float
    ringing: float  # how far out of focus: 0 is a soft spot, 1 a ring


@dataclass(frozen=True)
class FieldStop:
    """A round diaphragm that cuts into the image: centre, radius and soft edge as fractions of the image's side.

    leak: illumination outside, relative to inside.
    """

    y: float
    x: float
    radius: float
    softness: float
    leak: float


@dataclass(frozen=True)
class Scratch:
    """A scratch of the dish, out of focus: middle and length as fractions of the side, direction in rad.

    bend: sideways deviation at a distance of one side; width_px: standard deviation of each of its two fringes, of
    opposite sign; depth: relative change of the light.
    """

    y: float
    x: float
    direction: float
    bend: float
    length: float
    width_px: float
    depth: float


@dataclass(frozen=True)
class Camera:
    """One study's camera and illumination.

    bit_depth: 12, 14 or 16; stretched: codes are multiplied to fill 16 bit. full_well: electrons at the
    highest code. background_electrons: mean electrons a pixel where the transmitted intensity is 1.
    read_noise and dark in electrons; prnu: relative rms spread of the pixels' sensitivity; offset in the
    camera's codes. tilt (y, x) and vignetting: relative change of illumination from centre to edge.
    pattern_seed fixes the pixels' sensitivities. flare: stray light that made no image, against the transmitted light
    of an empty field; it takes contrast away. export_bits and autoscaled tell what a viewer made of the file:
    8 bits instead of 16, stretched from the frame's own 0.05 to its 99.95 percentile.
    """

    bit_depth: int
    stretched: bool
    full_well: float
    background_electrons: float
    read_noise: float = 1.5
    dark: float = 1.0
    offset: float = 100.0
    prnu: float = 0.005
    tilt: tuple[float, float] = (0.0, 0.0)
    vignetting: float = 0.0
    dust: tuple[Dust, ...] = ()
    pattern_seed: int = 0
    field_stop: FieldStop | None = None
    scratches: tuple[Scratch, ...] = ()
    flare: float = 0.0
    export_bits: int = 16
    autoscaled: bool = False

    def __post_init__(self) -> None:
        if self.bit_depth not in (12, 14, 16):
            raise ValueError(f"A camera has 12, 14 or 16 bits, not {self.bit_depth}.")
        if self.export_bits not in (8, 16):
            raise ValueError(f"A file has 8 or 16 bits, not {self.export_bits}.")
        if not 0 <= self.offset < self.highest_code or self.full_well <= 0 or self.background_electrons < 0:
            raise ValueError("The offset must lie within the codes, and electrons must be positive.")

    @property
    def highest_code(self) -> int:
        """Largest code before any stretching."""
        return int(2**self.bit_depth - 1)

    @property
    def gain(self) -> float:
        """Codes (before stretching) an electron: the full well reaches the highest code."""
        return (self.highest_code - self.offset) / self.full_well

    @property
    def stretch(self) -> float:
        """Factor from the camera's codes to the file's."""
        return FULL_RANGE / self.highest_code if self.stretched else 1.0


def expose(intensity: Real, camera: Camera, rng: np.random.Generator) -> Codes:
    """A transmitted-light frame: intensity (Y, X) float32 with background 1 -> codes (Y, X) uint16.

    Illumination, vignetting, dust and pixel sensitivities come from the camera and are the same in every
    frame of a shape; rng draws the photons and the read noise alone.
    """
    flare = np.float32(camera.flare)
    electrons = (
        (np.asarray(intensity, dtype=np.float32) + flare) / (1 + flare) * _illumination(camera, _shape(intensity))
    )
    electrons *= np.float32(camera.background_electrons)
    return _read_out(electrons, camera, rng)


def expose_fluorescence(
    density: Real, camera: Camera, rng: np.random.Generator, signal_photons: float, background: float
) -> Codes:
    """A fluorescence frame: density (Y, X) float32, any unit -> codes (Y, X) uint16.

    signal_photons: mean electrons at the 99.5th percentile of density (of its maximum, where that percentile
    is 0); background: electrons everywhere, from medium and autofluorescence. Dust and gradients of the
    transmitted path play no part; sensitivities and offset do. An empty density gives background only. Above
    the full well codes saturate.
    """
    values = np.asarray(density, dtype=np.float32)
    scale = float(np.percentile(values, 99.5)) or float(values.max())
    electrons = values * np.float32(signal_photons / scale if scale > 0 else 0.0)
    electrons += np.float32(background)
    return _read_out(electrons, camera, rng)


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draw one study's camera within documented ranges; the same generator state gives the same camera.

    12, 14 or 16 bits, half of the first two stretched to 16; full well 10,000-40,000 electrons, read noise
    1-1.6 (sCMOS) or 4-7 electrons (CCD), sensitivities 0.2-1 %, offset about 100 codes, roll-off 3-20 %, up
    to 12 grains of dust of 5-50 pixels and 1-10 %. The exposure puts the mean code of transmitted frames
    between 250 and 38,700.
    """
    bit_depth = int(rng.choice([12, 14, 16], p=[0.4, 0.2, 0.4]))
    stretched = bit_depth < 16 and bool(rng.random() < 0.5)
    highest = 2**bit_depth - 1
    stretch = FULL_RANGE / highest if stretched else 1.0
    offset = float(rng.uniform(90, 110))
    full_well = float(np.exp(rng.uniform(np.log(1e4), np.log(4e4))))
    gain = (highest - offset) / full_well
    # The mean lies low enough that bright fringes rarely clip, and high enough that shot noise stays
    # realistic.
    darkest = max(MEAN_CODE_RANGE[0] * 1.1 / stretch, offset + LEAST_ELECTRONS * gain)
    brightest = min(MEAN_CODE_RANGE[1] * 0.95 / stretch, 0.55 * highest)
    mean_code = float(np.exp(rng.uniform(np.log(darkest), np.log(brightest))))
    read_noise = float(rng.uniform(1.0, 1.6) if rng.random() < 0.8 else rng.uniform(4, 7))
    roll_off = float(np.exp(rng.uniform(np.log(0.03), np.log(0.20))))
    share, angle = rng.uniform(0, 1), rng.uniform(0, 2 * np.pi)
    dust = tuple(
        Dust(
            y=float(rng.uniform(-0.02, 1.02)),
            x=float(rng.uniform(-0.02, 1.02)),
            radius_px=float(np.exp(rng.uniform(np.log(5), np.log(50)))),
            depth=float(np.exp(rng.uniform(np.log(0.01), np.log(0.10)))),
            ringing=float(rng.uniform(0, 1)),
        )
        for _ in range(int(rng.integers(0, 13)))
    )
    return Camera(
        bit_depth=bit_depth,
        stretched=stretched,
        full_well=full_well,
        background_electrons=(mean_code - offset) / gain,
        read_noise=read_noise,
        dark=float(rng.uniform(0, 3)),
        offset=offset,
        prnu=float(rng.uniform(0.002, 0.01)),
        tilt=(float(roll_off * share * np.sin(angle)), float(roll_off * share * np.cos(angle))),
        vignetting=float(roll_off * (1 - share)),
        dust=dust,
        pattern_seed=int(rng.integers(2**31)),
    )


def _shape(image: Real) -> tuple[int, int]:
    if image.ndim != 2:
        raise ValueError(f"An image of shape (Y, X) is expected, not {image.shape}.")
    return (image.shape[0], image.shape[1])


def _read_out(electrons: Real, camera: Camera, rng: np.random.Generator) -> Codes:
    """Mean electrons (Y, X) to file codes: sensitivity, shot noise, read noise, gain, offset, clipping, stretching."""
    electrons = np.maximum(electrons * _sensitivity(camera, _shape(electrons)) + np.float32(camera.dark), 0)
    counts = electrons + np.sqrt(electrons) * rng.standard_normal(electrons.shape, dtype=np.float32)
    few = electrons < GAUSSIAN_ABOVE
    counts[few] = rng.poisson(electrons[few])
    counts += np.float32(camera.read_noise) * rng.standard_normal(counts.shape, dtype=np.float32)
    codes = np.clip(np.rint(counts * np.float32(camera.gain) + np.float32(camera.offset)), 0, camera.highest_code)
    return _export(np.asarray(np.rint(codes * np.float32(camera.stretch)), dtype=np.uint16), camera)


def _export(codes: Codes, camera: Camera) -> Codes:
    """What a viewer saves of a frame's codes (Y, X): as they are, or stretched, or in 8 bits (0 to 255)."""
    if camera.export_bits == 16 and not camera.autoscaled:
        return codes
    low, high = np.percentile(codes, (0.05, 99.95)) if camera.autoscaled else (0, camera.highest_code * camera.stretch)
    highest = 2**camera.export_bits - 1
    stretched = (codes.astype(np.float32) - np.float32(low)) * np.float32(highest / max(high - low, 1))
    return np.asarray(np.rint(np.clip(stretched, 0, highest)), dtype=np.uint16)


@lru_cache(maxsize=4)
def _sensitivity(camera: Camera, shape: tuple[int, int]) -> Real:
    """Relative sensitivity of each pixel, mean 1: fixed for the camera."""
    pattern = np.random.default_rng(camera.pattern_seed).standard_normal(shape, dtype=np.float32)
    return np.asarray(np.maximum(1 + np.float32(camera.prnu) * pattern, 0), dtype=np.float32)


@lru_cache(maxsize=4)
def _illumination(camera: Camera, shape: tuple[int, int]) -> Real:
    """Relative illumination, mean 1: tilt, vignetting and the shadows of dust."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)
    field = 1 + camera.tilt[0] * y + camera.tilt[1] * x - camera.vignetting * (y**2 + x**2) / 2
    rows, columns = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)
    for grain in camera.dust:
        # Beyond 5.9 radii a grain changes nothing that double precision could hold.
        reach = 5.9 * grain.radius_px
        window = tuple(
            slice(max(0, int(centre * size - reach)), max(0, int(centre * size + reach) + 2))
            for centre, size in zip((grain.y, grain.x), shape, strict=True)
        )
        radius = np.hypot(rows[window[0]] - grain.y * shape[0], columns[window[1]] - grain.x * shape[1])
        radius = radius / np.float32(grain.radius_px)
        # A defocused grain: a soft-edged shadow whose middle fills with light the further it is out of focus.
        edge = 1 / (1 + np.exp(np.minimum((radius - 1) / 0.12, 40)))
        hollow = grain.ringing * np.exp(-((radius / 0.7) ** 2) / 2)
        field[window] = field[window] * (1 - grain.depth * edge * (1 - hollow))
    for scratch in camera.scratches:
        field = field * _scratched(scratch, rows / shape[0], columns / shape[1], 1 / max(shape))
    if camera.field_stop is not None:
        stop = camera.field_stop
        outside = np.hypot(rows / shape[0] - stop.y, columns / shape[1] - stop.x) - stop.radius
        open_part = 1 / (1 + np.exp(np.clip(outside / stop.softness, -40, 40)))
        field = np.maximum(field, 0.05) * (stop.leak + (1 - stop.leak) * open_part)
    return np.asarray(field / field.mean(), dtype=np.float32)


def _scratched(scratch: Scratch, y: NDArray[Any], x: NDArray[Any], pixel: float) -> Real:
    """Relative light (Y, X) at y (Y, 1), x (X,), fractions of the side: a bright fringe beside a dark one."""
    cos, sin = np.cos(scratch.direction), np.sin(scratch.direction)
    along = (x - scratch.x) * cos + (y - scratch.y) * sin
    across = (y - scratch.y) * cos - (x - scratch.x) * sin - scratch.bend * along**2
    fringe = across / (scratch.width_px * pixel)
    profile = fringe * np.exp(0.5 - fringe**2 / 2)  # at most 1
    within = 1 / (1 + np.exp(np.clip((np.abs(along) - scratch.length / 2) / 0.02, -40, 40)))
    return np.asarray(1 + scratch.depth * profile * within, dtype=np.float32)

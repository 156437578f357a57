"""One study: a params, a microscope and cameras drawn together, and the labelled fields they give."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from model.labels import Modality, Organelle
from simulation.camera import Camera, draw_camera, expose, expose_fluorescence
from simulation.field import grow
from simulation.microscope import Microscope, Setting, draw_microscope
from simulation.optics import interpolate, transmitted
from simulation.ordinary import (
    draw_empty_params,
    draw_ordinary_camera,
    draw_ordinary_microscope,
    draw_ordinary_params,
    draw_path_factor,
)
from simulation.sample_params import SampleParams, draw_sample_params
from simulation.specimen import Specimen
from simulation.volume import Volume, Window
from simulation.widefield import fluorescence

MARGIN_UM, MARGIN_PX = 4.0, 24  # rendered around the field and cut away, since Fourier optics wraps around

# Every set of labels that occurs in the studies of the challenge, by modality; DIC never has actin.
_M, _N, _T, _A = Organelle
CHALLENGE_LABELS: dict[Modality, tuple[frozenset[Organelle], ...]] = {
    Modality.BF: (frozenset({_M, _N}), frozenset({_N}), frozenset({_N, _M, _A}), frozenset({_N, _T})),
    Modality.PC: (frozenset({_M, _N}), frozenset({_N, _T}), frozenset({_N, _A})),
    Modality.DIC: (frozenset({_M}), frozenset({_N, _T}), frozenset({_M, _N}), frozenset({_M, _N, _T})),
}


@dataclass(frozen=True)
class Stain:
    """How the fluorescent images of one study come out."""

    photons: dict[Organelle, float]  # at the brightest structures
    background: float  # relative to the signal
    haze: float  # part of the signal spread by what the point-spread function does not tell
    haze_um: float
    blur_um: float


@dataclass(frozen=True)
class Study:
    """Everything the fields of one study share."""

    params: SampleParams
    microscope: Microscope
    camera: Camera
    stain: Stain
    fluorescence_camera: Camera
    focus_range_um: tuple[float, float]
    path_factor: float = 1.0  # optical paths are weakened by this
    binning: int = 1  # pixels of the optics' grid a side that make one of the camera's

    @property
    def pixel_size_um(self) -> float:
        """The camera's pixel in the specimen."""
        return self.microscope.pixel_size_um * self.binning


@dataclass(frozen=True)
class Field:
    """One field of view: planes (Z, Y, X) uint16 from low to high focus, the best one's index, truths (Y, X) uint16."""

    planes: NDArray[np.uint16]
    best_plane: int
    truths: dict[Organelle, NDArray[np.uint16]]


def draw_study(rng: np.random.Generator, modality: Modality, setting: Setting) -> Study:
    """Draw one study of a modality.

    ``setting``: "challenge" stands for 40x to 100x objectives, "low" for 20x assays with crowds of round cells,
    "ordinary" for any culture at 10x to 100x, "empty" for such a dish without cells.
    """
    if setting in ("ordinary", "empty"):
        return _draw_ordinary(rng, modality, empty=setting == "empty")
    low = setting == "low"
    microscope = draw_microscope(rng, modality, setting="low" if low else "challenge")
    stain = Stain(
        photons={organelle: float(np.exp(rng.uniform(np.log(60), np.log(3000)))) for organelle in Organelle},
        background=float(rng.uniform(0.02, 0.3)),
        haze=float(rng.uniform(0, 0.5 if low else 0.25)),
        haze_um=float(rng.uniform(4, 15)),
        blur_um=float(np.exp(rng.uniform(np.log(0.2), np.log(2.5)))) if low else float(rng.uniform(0, 0.15)),
    )
    return Study(
        params=draw_sample_params(rng, low_magnification=low),
        microscope=microscope,
        camera=draw_camera(rng),
        stain=stain,
        fluorescence_camera=draw_camera(rng),
        focus_range_um=(4.0, 16.0) if low else (0.5, 6.0),
    )


def _draw_ordinary(rng: np.random.Generator, modality: Modality, empty: bool) -> Study:
    microscope, binning = draw_ordinary_microscope(rng, modality)
    stain = Stain(
        photons={organelle: float(np.exp(rng.uniform(np.log(60), np.log(3000)))) for organelle in Organelle},
        background=float(rng.uniform(0.02, 0.3)),
        haze=float(rng.uniform(0, 0.25)),
        haze_um=float(rng.uniform(4, 15)),
        blur_um=float(rng.uniform(0, 0.3)),
    )
    # Whoever takes pictures focuses as well as the objective tells: to about its depth of field.
    depth = microscope.medium_index * microscope.wavelength_um / microscope.numerical_aperture**2
    near = min(max(depth, 0.5), 2.0 if modality is Modality.PC else 4.0)
    return Study(
        params=draw_empty_params(rng) if empty else draw_ordinary_params(rng),
        microscope=microscope,
        camera=draw_ordinary_camera(rng, modality),
        stain=stain,
        fluorescence_camera=draw_camera(rng),
        focus_range_um=(near, min(max(4 * near, 6.0), 16.0)),
        path_factor=draw_path_factor(rng, modality),
        binning=binning,
    )


def render(
    rng: np.random.Generator, study: Study, size: int, planes: int, offsets: NDArray[np.float64] | None = None
) -> Field:
    """Grow, image and expose one field of ``size`` × ``size`` pixels of the camera at ``planes`` focal planes.

    ``offsets`` from the best focus in µm; drawn unless they are given.
    """
    pixel = study.microscope.pixel_size_um
    size = size * study.binning
    margin = max(MARGIN_PX, int(np.ceil(MARGIN_UM / pixel)))
    whole = (size + 2 * margin, size + 2 * margin)
    inner = (slice(margin, margin + size), slice(margin, margin + size))
    specimen = grow(rng, study.params, whole, pixel)
    best_focus = brightest_height(specimen, Organelle.NUCLEUS)
    if offsets is None:
        offsets = draw_foci(rng, planes, study.focus_range_um)
    heights = [float(height) for height in specimen.grid.centres_um]
    foci = [best_focus + offset for offset in offsets]
    path = specimen.optical_path * (taper(whole, margin) * np.float32(study.path_factor))
    diffracted = transmitted(torch.from_numpy(path), heights, foci, study.microscope)
    images = interpolate(diffracted, whole).clamp_min(0).numpy()
    exposed = np.stack([expose(bin_pixels(image[inner], study.binning), study.camera, rng) for image in images])
    truths = {organelle: _expose_truth(rng, study, specimen, organelle, inner) for organelle in Organelle}
    return Field(exposed, int(np.abs(offsets).argmin()), truths)


def bin_pixels(image: Volume, binning: int) -> Volume:
    """Mean of ``binning`` × ``binning`` blocks of (Y, X): what a larger pixel collects."""
    if binning == 1:
        return image
    rows, columns = (size // binning for size in image.shape)
    blocks = image[: rows * binning, : columns * binning].reshape(rows, binning, columns, binning)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def draw_foci(rng: np.random.Generator, planes: int, range_um: tuple[float, float]) -> NDArray[np.float64]:
    """Focal offsets (Z,) in µm from the best focus, rising; one is within 0.3 µm of it.

    Of the others about half lie within the first bound of ``range_um``, half log-uniformly up to the second.
    """
    near, far = range_um
    others = np.where(
        rng.random(planes - 1) < 0.5,
        rng.uniform(0, near, planes - 1),
        np.exp(rng.uniform(np.log(near), np.log(far), planes - 1)),
    )
    signs = np.where(rng.random(planes - 1) < 0.5, -1, 1)
    return np.sort(np.concatenate([rng.uniform(-0.3, 0.3, 1), signs * np.maximum(others, 0.35)]))


@lru_cache(maxsize=8)
def taper(shape: tuple[int, int], margin: int) -> Volume:
    """Window (Y, X) that falls to 0 over the margin: Fourier optics continues the field periodically."""
    ramps = []
    for size in shape:
        distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
        ramps.append(np.sin(np.pi / 2 * np.minimum(distance / margin, 1)).astype(np.float32) ** 2)
    return ramps[0][:, None] * ramps[1][None, :]


def brightest_height(specimen: Specimen, organelle: Organelle) -> float:
    """Mean height of an organelle's fluorophore, µm: where whoever takes its image focuses."""
    weight = specimen.density[organelle].sum(axis=(1, 2), dtype=np.float64)
    if weight.sum() <= 0:
        return 2.0
    return float((weight * specimen.grid.centres_um).sum() / weight.sum())


def _expose_truth(
    rng: np.random.Generator, study: Study, specimen: Specimen, organelle: Organelle, inner: Window
) -> NDArray[np.uint16]:
    stain, pixel = study.stain, study.microscope.pixel_size_um
    image = fluorescence(
        specimen.density[organelle],
        [float(height) for height in specimen.grid.centres_um],
        brightest_height(specimen, organelle),
        study.microscope,
        organelle,
    )
    if stain.blur_um > 0.3 * pixel:
        image = ndimage.gaussian_filter(image, stain.blur_um / pixel)
    image = _spread_haze(image, stain.haze, stain.haze_um / pixel)[inner]
    photons = stain.photons[organelle]
    image = bin_pixels(image, study.binning)
    return expose_fluorescence(image, study.fluorescence_camera, rng, photons, stain.background * photons)


def _spread_haze(image: Volume, share: float, sigma_px: float) -> Volume:
    """Spread a share of the light (Y, X) by a wide Gaussian, computed on every fourth pixel."""
    coarse = ndimage.gaussian_filter(image[::4, ::4], sigma_px / 4)
    haze = np.kron(coarse, np.ones((4, 4), np.float32))[: image.shape[0], : image.shape[1]]
    return (np.float32(1 - share) * image + np.float32(share) * haze).astype(np.float32)

"""Wide-field fluorescence: every slab blurred by the point-spread function of its own defocus, and summed.

The point-spread function is the squared modulus of the focused field of a circular pupil with the exact (not
paraxial) defocus kz(f) z (Goodman, Introduction to Fourier Optics, ch. 6; Born & Wolf, ch. 8.8). Light from
slabs out of focus is only spread, not lost, so that haze comes from the sum itself.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

from model.labels import Organelle
from simulation.microscope import Microscope

Real = NDArray[np.float32]
Doubles = NDArray[Any]

# Entries of the radial transfer function's table; the image takes the nearest one.
_TABLE = 4096


def fluorescence(
    density: Real, z_um: Sequence[float], focus_um: float, microscope: Microscope, organelle: Organelle
) -> Real:
    """Image of a fluorophore density focused at one height.

    density: (K, Y, X) float32, fluorophores per pixel in each slab (any unit, incoherent and non-negative).
    z_um: (K,) heights of the slabs' centres, µm; focus_um: height in focus. Returns (Y, X) float32 in the
    unit of density: each slab's total is preserved (unit-sum point-spread functions). Raises ValueError where
    shapes disagree.
    """
    if density.ndim != 3 or len(z_um) != len(density):
        raise ValueError(f"Slabs of shape (K, Y, X) and K heights are expected, not {density.shape}, {len(z_um)}.")
    shape = (density.shape[1], density.shape[2])
    wavelength = microscope.emission(organelle)
    aperture = min(microscope.fluorescence_na, microscope.medium_index)
    cutoff = 2 * aperture / wavelength
    filled = [k for k in range(len(density)) if density[k].any()]
    if not filled:
        return np.zeros(shape, np.float32)
    defocus = np.array([focus_um - z_um[k] for k in filled], dtype=np.float64)
    tables = _radial_transfer(aperture, wavelength, microscope.medium_index, defocus)
    index = _table_index(shape, microscope.pixel_size_um, cutoff)
    total: NDArray[np.complex64] | None = None
    for k, table in zip(filled, tables, strict=True):
        spectrum = fft.rfft2(density[k].astype(np.float32, copy=False))
        spectrum *= table[index]
        total = spectrum if total is None else np.add(total, spectrum, out=total)
    # The table and the truncated tails leave ringing of about a thousandth: intensities stay non-negative.
    return np.maximum(np.asarray(fft.irfft2(total, s=shape), dtype=np.float32), 0)


@lru_cache(maxsize=16)
def _table_index(shape: tuple[int, int], pixel_size_um: float, cutoff: float) -> NDArray[np.uint16]:
    fy = fft.fftfreq(shape[0], pixel_size_um)[:, None]
    fx = fft.rfftfreq(shape[1], pixel_size_um)
    # The last entry, at and beyond the cutoff, is zero.
    scaled = np.rint(np.hypot(fy, fx) / cutoff * (_TABLE - 1))
    return np.asarray(np.minimum(scaled, _TABLE - 1), dtype=np.uint16)


def _radial_transfer(aperture: float, wavelength: float, index: float, defocus_um: NDArray[np.float64]) -> Real:
    """(len(defocus), _TABLE) transfer functions over 0..2 NA / wavelength, 1 at zero frequency.

    By Hankel transforms: pupil -> field -> intensity -> transfer function, so the cost does not depend on the
    image.
    """
    # Powers of two keep the cached matrices few; the in-focus pattern alone has far-reaching tails.
    slope = np.tan(np.arcsin(min(aperture / index, 0.98)))
    needed = 1.6 * slope * float(np.abs(defocus_um).max()) + 10 * wavelength / aperture
    pupil_radius, to_field, weight, to_transfer = _hankel(
        aperture, wavelength, max(32.0, float(2 ** np.ceil(np.log2(needed))))
    )
    axial = 2 * np.pi * np.sqrt(np.maximum((index / wavelength) ** 2 - pupil_radius**2, 0))
    waves = np.exp(1j * axial[:, None] * defocus_um[None])
    field = to_field @ waves.real + 1j * (to_field @ waves.imag)
    transfer = to_transfer @ (np.abs(field) ** 2 * weight[:, None])
    # The total is known by Parseval's theorem; what lies beyond the reach would be missing at zero frequency
    # only.
    transfer[0] = 1
    coarse = np.linspace(0, 1, len(transfer))
    fine = np.linspace(0, 1, _TABLE)
    tables = np.stack([np.interp(fine, coarse, column) for column in transfer.T])
    tables[:, -1] = 0
    return tables.astype(np.float32)


@lru_cache(maxsize=32)
def _hankel(aperture: float, wavelength: float, reach_um: float) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Pupil radii (cycles/µm), matrix to the field, weights r (µm), matrix from weighted intensity to transfer."""
    cutoff = aperture / wavelength
    # Bins of the pupil fine enough that the field's first alias, at radius 1 / step, lies far outside the
    # reach.
    pupil_count = int(np.ceil(4 * reach_um * cutoff)) + 32
    pupil_step = cutoff / pupil_count
    pupil_radius = (np.arange(pupil_count) + 0.5) * pupil_step
    radius_step = wavelength / (10 * aperture)
    radius = np.arange(int(np.ceil(reach_um / radius_step))) * radius_step
    to_field = 2 * np.pi * pupil_step * special.j0(2 * np.pi * radius[:, None] * pupil_radius) * pupil_radius
    # A smooth end keeps the truncated tail, which falls as r^-3, from ringing.
    window = np.clip((reach_um - radius) / (0.3 * reach_um), 0, 1)
    frequency = np.linspace(0, 2 * cutoff, 257)
    scale = 2 * np.pi * radius_step / (np.pi * cutoff**2)
    to_transfer = scale * special.j0(2 * np.pi * frequency[:, None] * radius) * window
    # The trapezoidal rule's end correction (Euler and Maclaurin) turns the weight r = 0 of the centre into h
    # / 12.
    weight = np.maximum(radius, radius_step / 12)
    return pupil_radius, to_field, weight, to_transfer

"""The illumination as source points, and the objective's pupil with phase ring or shear.

Zernike's ring: Zernike, Physica 9, 686, 1942; Born & Wolf, Principles of Optics, ch. 8.6.3. DIC: Mehta &
Sheppard, Opt. Express 16, 19462, 2008. Frequencies in cycles/µm, apertures as n sin(theta).
"""

import numpy as np
from numpy.typing import NDArray

from model.labels import Modality
from simulation.microscope import Microscope

# Sources are cheap to add, but each costs a full coherent image; these bounds keep a field near one second.
SOURCE_COUNTS = (8, 12, 16, 20, 24, 28, 32)

# The phase ring is wider than the image of the annulus, so that no direct light passes beside it.
RING_MARGIN = 1.4


def source_points(microscope: Microscope, count: int) -> NDArray[np.float64]:
    """Directions of illumination, (count, 2) as (y, x) in units of NA, equally weighted.

    Disk: a sunflower (Vogel, Math. Biosci. 44, 1979) of half the points folded onto the half-disk, and its
    mirror image: equal areas, and exact point symmetry, without which a phase object would not vanish in
    focus. Ring: equal angles on two radii in turn. count must be a multiple of 4.
    """
    if count % 4:
        raise ValueError(f"The number of source points must be a multiple of 4, not {count}.")
    if microscope.modality is Modality.PC:
        angle = 2 * np.pi * np.arange(count) / count
        side = np.where(np.arange(count) % 2, 1, -1) if count % 8 == 0 else np.zeros(count)
        # With count % 8 == 0 opposite points share a radius, so the ring stays point-symmetric.
        radius = microscope.ring_na * (1 + side * microscope.ring_width_ratio / 4)
        return np.asarray(np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1), dtype=np.float64)
    half = np.arange(count // 2)
    radius = microscope.condenser_na * np.sqrt((half + 0.5) / len(half))
    angle = np.mod(half * np.pi * (3 - np.sqrt(5)), 2 * np.pi) / 2
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return np.asarray(np.concatenate([points, -points]) + np.asarray(microscope.source_offset_na), dtype=np.float64)


def source_count(microscope: Microscope, defocus_um: float) -> int:
    """How many source points keep neighbouring points' images closer than the resolution at this defocus.

    Two points ds apart in NA displace their images by ds |dz| / n; a spacing of 0.5 wavelength n / (NA |dz|)
    hides that.
    """
    spacing = 0.5 * microscope.wavelength_um * microscope.medium_index / (microscope.pupil_na * max(defocus_um, 0.1))
    if microscope.modality is Modality.PC:
        needed = 2 * np.pi * microscope.ring_na / spacing
        return next((n for n in (8, 16, 24) if n >= needed), 32)
    needed = np.pi * microscope.condenser_na**2 / spacing**2
    return next((n for n in SOURCE_COUNTS if n >= needed), SOURCE_COUNTS[-1])


def pupil_at(
    microscope: Microscope, fy: NDArray[np.float64], fx: NDArray[np.float64], step: float
) -> NDArray[np.complex128]:
    """The objective's pupil at absolute frequencies (cycles/µm): aperture, aberrations, phase ring."""
    cutoff = microscope.pupil_na / microscope.wavelength_um
    radius = np.hypot(fy, fx)
    rho = radius / (microscope.numerical_aperture / microscope.wavelength_um)
    angle = np.arctan2(fy, fx)
    waves = microscope.spherical_waves * (6 * rho**4 - 6 * rho**2 + 1)
    waves = waves + rho**2 * (
        microscope.astigmatism_waves[1] * np.cos(2 * angle) + microscope.astigmatism_waves[0] * np.sin(2 * angle)
    )
    # Edges are softened inwards by one frequency step, against the staircase of a disk on a grid.
    pupil = np.clip((cutoff - radius) / step, 0, 1) * np.exp(2j * np.pi * waves)
    if microscope.modality is Modality.PC:
        decentre = np.asarray(microscope.ring_decentre_na) / microscope.wavelength_um
        ring = microscope.ring_na / microscope.wavelength_um
        half_width = 0.5 * RING_MARGIN * microscope.ring_width_ratio * ring
        distance = np.abs(np.hypot(fy - decentre[0], fx - decentre[1]) - ring)
        covered = np.clip((half_width - distance) / step + 0.5, 0, 1)
        # exp(-i pi/2) retards the direct against the scattered light by a quarter wave less: positive contrast.
        attenuated = np.sqrt(microscope.ring_transmission) * np.exp(1j * microscope.ring_phase_rad)
        pupil = pupil * (1 + covered * (attenuated - 1))
    return np.asarray(pupil, dtype=np.complex128)


def shear_factor(microscope: Microscope, fy: NDArray[np.float64], fx: NDArray[np.float64]) -> NDArray[np.complex128]:
    """DIC: difference of two images sheared by d with bias, as a factor of the spectrum; 1 otherwise.

    Frequencies are relative to the illuminating wave, since the condenser's prism compensates the shear at
    the source.
    """
    if microscope.modality is not Modality.DIC:
        return np.ones(np.broadcast(fy, fx).shape, np.complex128)
    shear_y, shear_x = microscope.shear_um
    return 1j * np.sin(np.pi * (fy * shear_y + fx * shear_x) + microscope.bias_rad / 2)

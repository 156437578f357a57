"""The illumination as source points, and the objective's pupil with phase ring or shear.

Zernike's ring: Zernike, Physica 9, 686, 1942; Born & Wolf, Principles of Optics, ch. 8.6.3. DIC: Mehta &
Sheppard, Opt. Express 16, 19462, 2008. Frequencies in cycles/µm, apertures as n sin(theta).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


def pupil_at(microscope: Microscope, fy: Tensor, fx: Tensor, step: float) -> Tensor:
    """The objective's pupil at absolute frequencies (cycles/µm): aperture, aberrations, phase ring.

    fy, fx: real tensors that broadcast against each other; returns complex of their precision.
    """
    cutoff = microscope.pupil_na / microscope.wavelength_um
    scale = microscope.wavelength_um / microscope.numerical_aperture
    squared_y, squared_x = (fy * scale) ** 2, (fx * scale) ** 2
    rho_squared = squared_y + squared_x
    radius = torch.sqrt(rho_squared) / scale
    # r² cos 2t and r² sin 2t, without the angle
    astigmatism = microscope.astigmatism_waves[1] * (squared_x - squared_y)
    astigmatism = astigmatism + microscope.astigmatism_waves[0] * 2 * scale**2 * fy * fx
    waves = microscope.spherical_waves * (6 * rho_squared**2 - 6 * rho_squared + 1) + astigmatism
    # Edges are softened inwards by one frequency step, against the staircase of a disk on a grid.
    pupil = phasor(2 * torch.pi * waves) * ((cutoff - radius) / step).clamp(0, 1)
    if microscope.modality is Modality.PC:
        decentre_y, decentre_x = (part / microscope.wavelength_um for part in microscope.ring_decentre_na)
        ring = microscope.ring_na / microscope.wavelength_um
        half_width = 0.5 * RING_MARGIN * microscope.ring_width_ratio * ring
        distance = (torch.sqrt((fy - decentre_y) ** 2 + (fx - decentre_x) ** 2) - ring).abs()
        covered = ((half_width - distance) / step + 0.5).clamp(0, 1)
        # exp(-i pi/2) retards the direct against the scattered light by a quarter wave less: positive contrast.
        attenuated = np.sqrt(microscope.ring_transmission) * np.exp(1j * microscope.ring_phase_rad)
        pupil = pupil * (1 + covered * complex(attenuated - 1))
    return pupil


def shear_factor(microscope: Microscope, fy: Tensor, fx: Tensor) -> Tensor:
    """DIC: difference of two images sheared by d with bias, as a factor of the spectrum, real; 1 otherwise.

    The factor i that all frequencies share is left out. Frequencies are relative to the illuminating wave, since the
    condenser's prism compensates the shear at the source.
    """
    if microscope.modality is not Modality.DIC:
        return torch.ones((), dtype=fy.dtype, device=fy.device)
    shear_y, shear_x = microscope.shear_um
    return torch.sin(torch.pi * (fy * shear_y + fx * shear_x) + microscope.bias_rad / 2)


def phasor(angle: Tensor) -> Tensor:
    """exp(i angle): several times faster than torch's complex exponential."""
    return torch.complex(torch.cos(angle), torch.sin(angle))

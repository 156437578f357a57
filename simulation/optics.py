"""From a specimen to the intensity on the camera: partially coherent transmitted light, and wide-field fluorescence.

Transmitted light is Abbe's sum (Born & Wolf, Principles of Optics, ch. 10.6; Goodman, Statistical Optics): every point
of the source sends a plane wave through the specimen, is imaged coherently, and intensities add. The wave behind the
specimen comes from Rytov's first approximation (Devaney, Opt. Lett. 6, 374, 1981): the slabs' phases are propagated
linearly to one reference plane *in the exponent*, u = exp(sum_k D_k[i k0 opd_k]). For small phases this is the weak-object
transfer function of Streibl (J. Opt. Soc. Am. A 2, 121, 1985), but unlike the latter it does not need a small total phase,
only one that changes little over a wavelength; and it costs one inverse transform a source point however many slabs.
Each focus is then one pupil multiplication. Phase contrast puts Zernike's ring into the pupil; DIC multiplies the
exit spectrum by the shear's sine (Mehta & Sheppard, Opt. Express 16, 19462, 2008).

Light travels towards +z, field exp(+i kz z); frequencies in cycles/µm; the field is periodic on the grid, so give
specimens a margin. All transforms are single precision and deterministic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from model.vocabulary import Modality
from simulation.microscope import Microscope, draw_microscope
from simulation.widefield import fluorescence

__all__ = ["Microscope", "draw_microscope", "fluorescence", "source_points", "transmitted"]

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]

# Sources are cheap to add, but each costs a full coherent image; these bounds keep a field near one second.
SOURCE_COUNTS = (8, 12, 16, 20, 24, 28, 32)

# Rytov's log-amplitude is linear in the phase and overshoots behind a strong ball lens, where the exact field stays
# finite; a factor of e^1.5 in amplitude (20 in intensity) is beyond any caustic seen in the exact model.
MAX_LOG_AMPLITUDE = 1.5

# The phase ring is wider than the image of the annulus, so that no direct light passes beside it.
RING_MARGIN = 1.4


def source_points(microscope: Microscope, count: int) -> NDArray[np.float64]:
    """Directions of illumination, (count, 2) as (y, x) in units of NA, equally weighted.

    Disk: a sunflower (Vogel, Math. Biosci. 44, 1979) of half the points folded onto the half-disk, and its mirror image:
    equal areas, and exact point symmetry, without which a phase object would not vanish in focus. Ring: equal angles
    on two radii in turn. count must be a multiple of 4.
    """
    if count % 4:
        raise ValueError(f"The number of source points must be a multiple of 4, not {count}.")
    if microscope.modality is Modality.PC:
        angle = 2 * np.pi * np.arange(count) / count
        side = np.where(np.arange(count) % 2, 1, -1) if count % 8 == 0 else np.zeros(count)
        # With count % 8 == 0 opposite points share a radius, so the ring stays point-symmetric.
        radius = microscope.ring_na * (1 + side * microscope.ring_width_ratio / 4)
        return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    half = np.arange(count // 2)
    radius = microscope.condenser_na * np.sqrt((half + 0.5) / len(half))
    angle = np.mod(half * np.pi * (3 - np.sqrt(5)), 2 * np.pi) / 2
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return np.concatenate([points, -points]) + np.asarray(microscope.source_offset_na)


def source_count(microscope: Microscope, defocus_um: float) -> int:
    """How many source points keep neighbouring points' images closer than the resolution at this defocus.

    Two points ds apart in NA displace their images by ds |dz| / n; a spacing of 0.5 wavelength n / (NA |dz|) hides that.
    """
    spacing = (
        0.5
        * microscope.wavelength_um
        * microscope.medium_index
        / (microscope.pupil_na * max(defocus_um, 0.1))
    )
    if microscope.modality is Modality.PC:
        needed = 2 * np.pi * microscope.ring_na / spacing
        return next((n for n in (8, 16, 24) if n >= needed), 32)
    needed = np.pi * microscope.condenser_na**2 / spacing**2
    return next((n for n in SOURCE_COUNTS if n >= needed), SOURCE_COUNTS[-1])


def transmitted(
    opd_um: Real, z_um: Sequence[float], foci_um: Sequence[float], microscope: Microscope
) -> Real:
    """Intensity images of a transparent specimen in the microscope's modality.

    opd_um: (K, Y, X) float32, the integral of (n - n_medium) dz over each slab, µm, on pixels of
    microscope.pixel_size_um. z_um: (K,) heights of the slabs' centres, µm. foci_um: (Z,) planes of the specimen in
    focus, in the same coordinate. Returns (Z, Y, X) float32 with an empty field of exactly 1. Raises ValueError where
    shapes disagree.
    """
    if opd_um.ndim != 3 or len(z_um) != len(opd_um) or len(foci_um) == 0:
        raise ValueError(
            f"Slabs of shape (K, Y, X), K heights and a focus are expected, not {opd_um.shape}, {len(z_um)}."
        )
    order = np.argsort(np.asarray(z_um), kind="stable")
    heights = np.asarray(z_um, dtype=np.float64)[order]
    weights = np.array([float(np.abs(opd_um[k]).sum(dtype=np.float64)) for k in order])
    if not weights.any():
        return np.ones((len(foci_um), *opd_um.shape[1:]), np.float32)
    reference = int(np.argmin(np.abs(heights - np.average(heights, weights=weights))))
    # Nine tenths of the specimen should look right: far outliers do not decide the number of source points.
    share = np.cumsum(weights) / weights.sum()
    low, high = heights[np.searchsorted(share, 0.05)], heights[np.searchsorted(share, 0.95)]
    defocus = max(max(abs(z - low), abs(z - high)) for z in foci_um)
    plan = _plan(microscope, (opd_um.shape[1], opd_um.shape[2]), source_count(microscope, defocus))

    wavenumber = 2 * np.pi / microscope.wavelength_um
    spectra = [_crop(fft.fft2(opd_um[k].astype(np.float32, copy=False)), plan.shape) for k in order]
    for spectrum in spectra:
        spectrum *= np.complex64(1j * wavenumber)

    intensity = np.zeros((len(foci_um), *plan.shape), np.float32)
    for source in plan.sources:
        axial, propagates = _axial_frequency(microscope, plan, source)
        psi = fft.ifft2(_propagate_to(reference, spectra, heights, axial, propagates), overwrite_x=True)
        exit_spectrum = _box_transform(_exponential(psi), source)
        box_axial = axial[source.rows[:, None], source.columns]
        for image, focus in zip(intensity, foci_um, strict=True):
            pupil_field = exit_spectrum * source.pupil
            pupil_field *= _phasor(box_axial * np.float32(focus - heights[reference]))
            # Zero-padding at the end instead of around the centre only multiplies the field by a phasor.
            columns = fft.ifft(pupil_field, n=plan.shape[0], axis=0, overwrite_x=True)
            field = fft.ifft(columns, n=plan.shape[1], axis=1, overwrite_x=True)
            image += field.real**2
            image += field.imag**2
    intensity *= np.float32(1 / plan.empty_field)
    return np.maximum(_zoom(intensity, opd_um.shape[1:]), 0)


@dataclass(frozen=True)
class _Source:
    """One illuminating plane wave: its frequency, and the window of the spectrum that its pupil lets through."""

    frequency: tuple[float, float]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    pupil: Complex


@dataclass(frozen=True)
class _Plan:
    """What does not depend on the specimen, on the diffraction grid of `shape` pixels and `step` cycles/µm."""

    shape: tuple[int, int]
    step: tuple[float, float]
    sources: tuple[_Source, ...]
    empty_field: float


@lru_cache(maxsize=4)
def _plan(microscope: Microscope, shape: tuple[int, int], count: int) -> _Plan:
    extent = tuple(n * microscope.pixel_size_um for n in shape)
    cutoff = microscope.pupil_na / microscope.wavelength_um
    # The intensity's band ends at twice the cutoff: the coarsest grid without aliasing, never finer than the given one.
    grid = tuple(
        min(n, fft.next_fast_len(int(np.ceil(4 * cutoff * length)) + 2))
        for n, length in zip(shape, extent, strict=True)
    )
    step = (1 / extent[0], 1 / extent[1])
    sources = []
    empty_field = 0.0
    for point in source_points(microscope, count) / microscope.wavelength_um:
        frequency = (float(point[0]), float(point[1]))
        indices = []
        for axis in range(2):
            centre, reach = -frequency[axis] / step[axis], cutoff / step[axis]
            indices.append(np.arange(int(np.ceil(centre - reach)), int(np.floor(centre + reach)) + 1))
        fy, fx = indices[0][:, None] * step[0], indices[1] * step[1]
        pupil = _pupil(microscope, fy + frequency[0], fx + frequency[1], min(step)) * _shear(
            microscope, fy, fx
        )
        direct = _pupil(microscope, np.asarray(frequency[0]), np.asarray(frequency[1]), min(step))
        zero = (int(-indices[0][0]), int(-indices[1][0]))
        # The direct light is taken at its exact frequency and as the grid sees it alike: an empty field is exactly 1.
        assert np.isclose(pupil[zero], direct * _shear(microscope, np.zeros(()), np.zeros(())))
        empty_field += float(np.abs(pupil[zero]) ** 2)
        sources.append(
            _Source(
                frequency,
                np.mod(indices[0], grid[0]),
                np.mod(indices[1], grid[1]),
                pupil.astype(np.complex64),
            )
        )
    return _Plan((grid[0], grid[1]), step, tuple(sources), empty_field)


def _pupil(
    microscope: Microscope, fy: NDArray[np.float64], fx: NDArray[np.float64], step: float
) -> NDArray[np.complex128]:
    """The objective's pupil at absolute frequencies (cycles/µm): aperture, aberrations, phase ring."""
    cutoff = microscope.pupil_na / microscope.wavelength_um
    radius = np.hypot(fy, fx)
    rho = radius / (microscope.numerical_aperture / microscope.wavelength_um)
    angle = np.arctan2(fy, fx)
    waves = microscope.spherical_waves * (6 * rho**4 - 6 * rho**2 + 1)
    waves = waves + rho**2 * (
        microscope.astigmatism_waves[1] * np.cos(2 * angle)
        + microscope.astigmatism_waves[0] * np.sin(2 * angle)
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
        attenuated = np.sqrt(microscope.ring_transmission) * np.exp(-0.5j * np.pi)
        pupil = pupil * (1 + covered * (attenuated - 1))
    return np.asarray(pupil, dtype=np.complex128)


def _shear(
    microscope: Microscope, fy: NDArray[np.float64], fx: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """DIC: difference of two images sheared by d with bias, as a factor of the spectrum; 1 otherwise.

    Frequencies are relative to the illuminating wave, since the condenser's prism compensates the shear at the source.
    """
    if microscope.modality is not Modality.DIC:
        return np.ones(np.broadcast(fy, fx).shape, np.complex128)
    shear_y, shear_x = microscope.shear_um
    return 1j * np.sin(np.pi * (fy * shear_y + fx * shear_x) + microscope.bias_rad / 2)


def _axial_frequency(microscope: Microscope, plan: _Plan, source: _Source) -> tuple[Real, Real]:
    """kz(f + s) - kz(s), rad/µm, on the diffraction grid, and 1 where f + s propagates, 0 where it is evanescent."""
    limit = (microscope.medium_index / microscope.wavelength_um) ** 2
    fy, fx = (fft.fftfreq(n, 1 / (n * step)) for n, step in zip(plan.shape, plan.step, strict=True))
    sy, sx = source.frequency
    axial = (limit - (fy + sy) ** 2).astype(np.float32)[:, None] - ((fx + sx) ** 2).astype(np.float32)
    propagates = (axial > 0).astype(np.float32)
    axial *= propagates
    np.sqrt(axial, out=axial)
    axial -= np.float32(np.sqrt(limit - sy**2 - sx**2))
    axial *= np.float32(2 * np.pi)
    return axial, propagates


def _propagate_to(
    reference: int, spectra: Sequence[Complex], heights: NDArray[np.float64], axial: Real, propagates: Real
) -> Complex:
    """Sum of the slabs' spectra, each propagated from its own height to that of slab `reference`.

    Horner's scheme from the lowest slab up and from the highest down: with equal spacing one phasor serves all.
    """
    phasors: dict[float, Complex] = {}

    def step(distance: float) -> Complex:
        distance = round(distance, 6)
        if distance not in phasors:
            phasors[distance] = _phasor(axial * np.float32(distance))
        return phasors[distance]

    total = spectra[reference].copy()
    if reference > 0:
        below = spectra[0].copy()
        for k in range(1, reference + 1):
            below *= step(heights[k] - heights[k - 1])
            if k < reference:
                below += spectra[k]
        total += below
    if reference < len(spectra) - 1:
        # From above the light is followed backwards: the conjugate phasor, applied to the conjugate sum.
        above = spectra[-1].conj()
        for k in range(len(spectra) - 2, reference - 1, -1):
            above *= step(heights[k + 1] - heights[k])
            if k > reference:
                above += spectra[k].conj()
        total += np.conj(above, out=above)
    total *= propagates
    return total


def _phasor(angle: Real) -> Complex:
    """exp(i angle), by the vectorised single-precision sine and cosine."""
    result = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=result.real)
    np.sin(angle, out=result.imag)
    return result


def _exponential(psi: Complex) -> Complex:
    """exp(psi), with the log-amplitude limited (MAX_LOG_AMPLITUDE)."""
    field = _phasor(psi.imag)
    field *= np.exp(np.minimum(psi.real, np.float32(MAX_LOG_AMPLITUDE)))
    return field


def _box_transform(field: Complex, source: _Source) -> Complex:
    """The part of the field's spectrum that the pupil can let through; the second axis only where needed."""
    rows = fft.fft(field, axis=1, overwrite_x=True)[:, source.columns]
    return np.asarray(fft.fft(rows, axis=0, overwrite_x=True)[source.rows])


def _crop(spectrum: Complex, shape: tuple[int, int]) -> Complex:
    """Low frequencies of a 2-D spectrum, scaled so that the coarser image keeps its values."""
    full = spectrum.shape
    for axis in range(2):
        keep, size = shape[axis], spectrum.shape[axis]
        if keep < size:
            half = (keep - 1) // 2
            low, high = np.arange(half + 1), np.arange(size - half, size)
            gap = keep - len(low) - len(high)  # an even grid's Nyquist bin, one-sided: dropped
            spectrum = np.take(spectrum, np.concatenate([low, [half + 1] * gap, high]).astype(int), axis=axis)
            if gap:
                spectrum[(slice(None),) * axis + (half + 1,)] = 0
    return spectrum * np.float32(shape[0] * shape[1] / (full[0] * full[1]))


def _zoom(images: Real, shape: tuple[int, int]) -> Real:
    """Band-limited interpolation of (Z, y, x) to (Z, Y, X) by zero-padding the spectrum."""
    rows, columns = images.shape[1:]
    if (rows, columns) == shape:
        return images
    spectrum = fft.rfft2(images)
    padded = np.zeros((len(images), shape[0], shape[1] // 2 + 1), np.complex64)
    half = (rows - 1) // 2
    wide = (columns - 1) // 2 + 1
    padded[:, : half + 1, :wide] = spectrum[:, : half + 1, :wide]
    if half:
        padded[:, -half:, :wide] = spectrum[:, rows - half :, :wide]
    padded *= np.float32(shape[0] * shape[1] / (rows * columns))
    return np.asarray(fft.irfft2(padded, s=shape, overwrite_x=True))

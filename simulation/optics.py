"""From a specimen to the intensity on the camera: partially coherent transmitted light, and wide-field fluorescence.

Transmitted light is Abbe's sum (Born & Wolf, Principles of Optics, ch. 10.6; Goodman, Statistical Optics):
every point of the source sends a plane wave through the specimen, is imaged coherently, and intensities add.
The wave behind the specimen comes from Rytov's first approximation (Devaney, Opt. Lett. 6, 374, 1981): the
slabs' phases are propagated linearly to one reference plane *in the exponent*, u = exp(sum_k D_k[i k0
opd_k]). For small phases this is the weak-object transfer function of Streibl (J. Opt. Soc. Am. A 2, 121,
1985), but unlike the latter it does not need a small total phase, only one that changes little over a
wavelength; and it costs one inverse transform a source point however many slabs. Each focus is then one pupil
multiplication. Phase contrast puts Zernike's ring into the pupil; DIC multiplies the exit spectrum by the
shear's sine (Mehta & Sheppard, Opt. Express 16, 19462, 2008).

Light travels towards +z, field exp(+i kz z); frequencies in cycles/µm; the field is periodic on the grid, so
give specimens a margin. All transforms are single precision and deterministic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulation.microscope import Microscope, draw_microscope
from simulation.pupil import pupil_at, shear_factor, source_count, source_points
from simulation.widefield import fluorescence

__all__ = ["Microscope", "draw_microscope", "fluorescence", "transmitted"]

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]
Frequencies = NDArray[Any]

# Rytov's log-amplitude is linear in the phase and overshoots behind a strong ball lens, where the exact field
# stays finite; a factor of e^1.5 in amplitude (20 in intensity) is beyond any caustic seen in the exact
# model.
MAX_LOG_AMPLITUDE = 1.5


def transmitted(opd_um: Real, z_um: Sequence[float], foci_um: Sequence[float], microscope: Microscope) -> Real:
    """Intensity images of a transparent specimen in the microscope's modality.

    opd_um: (K, Y, X) float32, the integral of (n - n_medium) dz over each slab, µm, on pixels of
    microscope.pixel_size_um. z_um: (K,) heights of the slabs' centres, µm. foci_um: (Z,) planes of the
    specimen in focus, in the same coordinate. Returns (Z, Y, X) float32 with an empty field of exactly 1.
    Raises ValueError where shapes disagree.
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
    # The intensity's band ends at twice the cutoff: the coarsest grid without aliasing, never finer than the
    # given one.
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
        fy: Frequencies = indices[0][:, None] * step[0]
        fx: Frequencies = indices[1] * step[1]
        pupil = pupil_at(microscope, fy + frequency[0], fx + frequency[1], min(step)) * shear_factor(microscope, fy, fx)
        direct = pupil_at(microscope, np.asarray(frequency[0]), np.asarray(frequency[1]), min(step))
        zero = (int(-indices[0][0]), int(-indices[1][0]))
        # The direct light is taken at its exact frequency and as the grid sees it alike: an empty field is
        # exactly 1.
        assert np.isclose(pupil[zero], direct * shear_factor(microscope, np.zeros(()), np.zeros(())))
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

    Horner's scheme from the lowest slab up and from the highest down: with equal spacing one phasor serves
    all.
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

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
give specimens a margin. All transforms are single precision, on the CPU or a GPU, wherever the specimen lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft as sizes
from torch import Tensor

from simulation.microscope import Microscope
from simulation.pupil import phasor, pupil_at, shear_factor, source_count, source_points

# Rytov's log-amplitude is linear in the phase and overshoots behind a strong ball lens, where the exact field
# stays finite; a factor of e^1.5 in amplitude (20 in intensity) is beyond any caustic seen in the exact
# model.
MAX_LOG_AMPLITUDE = 1.5


def transmitted(
    opd_KYX: Tensor,
    z_um: Sequence[float],
    foci_um: Sequence[float],
    microscope: Microscope,
    *,
    pixel_um: float | None = None,
    most_sources: int = 32,
) -> Tensor:
    """Intensity images (Z, Y, X) float32 of a transparent specimen, with an empty field of exactly 1.

    opd_KYX: (K, Y, X) float32, the integral of (n - n_medium) dz over each slab, µm, on pixels of ``pixel_um``
    (default: the microscope's). z_um: (K,) heights of the slabs' centres, µm. foci_um: (Z,) planes of the specimen
    in focus, in the same coordinate. most_sources: bound on the number of source points. Raises ValueError where
    shapes disagree.

    The images have the pixels of the grid of diffraction: the coarsest one that holds the intensity's band (twice the
    aperture), and never finer than the specimen's; ``interpolate`` brings them to any other. On a specimen coarser
    than that band, light scattered beyond the grid's own frequencies is left out: what direct and scattered light
    make of each other is exact up to the grid's limit, what scattered light makes with itself is not.
    """
    if opd_KYX.ndim != 3 or len(z_um) != len(opd_KYX) or len(foci_um) == 0:
        raise ValueError(
            f"Slabs of shape (K, Y, X), K heights and a focus are expected, not {tuple(opd_KYX.shape)}, {len(z_um)}."
        )
    order = np.argsort(np.asarray(z_um), kind="stable")
    heights = np.asarray(z_um, dtype=np.float64)[order]
    weights = opd_KYX.abs().sum(dim=(1, 2), dtype=torch.float64).cpu().numpy()[order]
    grid = _DiffractionGrid.of(microscope, (opd_KYX.shape[1], opd_KYX.shape[2]), pixel_um or microscope.pixel_size_um)
    if not weights.any():
        return torch.ones((len(foci_um), *grid.shape), device=opd_KYX.device)
    reference = int(np.argmin(np.abs(heights - np.average(heights, weights=weights))))
    # Nine tenths of the specimen should look right: far outliers do not decide the number of source points.
    share = np.cumsum(weights) / weights.sum()
    low, high = heights[np.searchsorted(share, 0.05)], heights[np.searchsorted(share, 0.95)]
    defocus = max(max(abs(z - low), abs(z - high)) for z in foci_um)
    count = min(source_count(microscope, defocus), most_sources)

    wavenumber = 2 * np.pi / microscope.wavelength_um
    spectra_Kyx = crop_spectrum(torch.fft.fft2(opd_KYX[order.tolist()]), grid.shape) * (1j * wavenumber)
    intensity = torch.zeros((len(foci_um), *grid.shape), device=opd_KYX.device)
    empty_field = 0.0
    for point in source_points(microscope, count) / microscope.wavelength_um:
        source = _Source.on(grid, microscope, (float(point[0]), float(point[1])), opd_KYX.device)
        empty_field += source.direct_intensity
        psi = torch.fft.ifft2(_propagate_to(reference, spectra_Kyx, heights, source))
        field = phasor(psi.imag) * psi.real.clamp_max(MAX_LOG_AMPLITUDE).exp()
        exit_spectrum = torch.fft.fft(torch.fft.fft(field, dim=1)[:, source.columns], dim=0)[source.rows]
        exit_spectrum = exit_spectrum * source.pupil
        axial = source.axial[source.rows][:, source.columns]
        for image, focus in zip(intensity, foci_um, strict=True):
            focused = exit_spectrum * phasor(axial * (focus - heights[reference]))
            # Zero-padding at the end instead of around the centre only multiplies the field by a phasor.
            columns = torch.fft.ifft(focused, n=grid.shape[0], dim=0)
            arrived = torch.fft.ifft(columns, n=grid.shape[1], dim=1)
            image += arrived.real.square() + arrived.imag.square()
    return intensity / empty_field


@dataclass(frozen=True)
class _DiffractionGrid:
    """Where waves are propagated: ``shape`` (Y, X) pixels, ``step`` cycles/µm between frequencies."""

    shape: tuple[int, int]
    step: tuple[float, float]

    @classmethod
    def of(cls, microscope: Microscope, shape: tuple[int, int], pixel_um: float) -> "_DiffractionGrid":
        cutoff = microscope.pupil_na / microscope.wavelength_um
        lengths = [n * pixel_um for n in shape]
        # The intensity's band ends at twice the cutoff.
        y, x = (
            min(n, sizes.next_fast_len(int(np.ceil(4 * cutoff * length)) + 2))
            for n, length in zip(shape, lengths, strict=True)
        )
        return cls((y, x), (1 / lengths[0], 1 / lengths[1]))


@dataclass(frozen=True)
class _Source:
    """One illuminating plane wave of one microscope on the grid of diffraction.

    axial: kz(f + s) - kz(s) (Y, X), rad/µm; propagates: 1 where f + s is a wave, 0 where it is evanescent; rows and
    columns: indices of the frequencies that the pupil (rows, columns) may let through.
    """

    axial: Tensor
    propagates: Tensor
    rows: Tensor
    columns: Tensor
    pupil: Tensor
    direct_intensity: float

    @classmethod
    def on(
        cls, grid: _DiffractionGrid, microscope: Microscope, frequency: tuple[float, float], device: torch.device
    ) -> "_Source":
        limit = (microscope.medium_index / microscope.wavelength_um) ** 2
        cutoff = microscope.pupil_na / microscope.wavelength_um
        squared, indices, relative = [], [], []
        for axis in range(2):
            size, step, s = grid.shape[axis], grid.step[axis], frequency[axis]
            every = torch.fft.fftfreq(size, 1 / (size * step), dtype=torch.float64)
            squared.append((every + s) ** 2)
            # Frequencies that the pupil lets through, as far as the grid holds them.
            first = max(int(np.ceil((-s - cutoff) / step)), -((size - 1) // 2))
            last = min(int(np.floor((-s + cutoff) / step)), size // 2)
            index = torch.arange(first, last + 1)
            indices.append(torch.remainder(index, size).to(device))
            relative.append(index.double() * step)
        axial = (limit - squared[0]).float().to(device)[:, None] - squared[1].float().to(device)
        propagates = (axial > 0).float()
        axial = (axial * propagates).sqrt() - float(np.sqrt(limit - frequency[0] ** 2 - frequency[1] ** 2))
        step = min(grid.step)
        fy, fx = (f.float().to(device) for f in (relative[0][:, None], relative[1]))
        pupil = pupil_at(microscope, fy + frequency[0], fx + frequency[1], step) * shear_factor(microscope, fy, fx)
        # The direct light as the grid sees it: an empty field is exactly 1.
        direct = pupil[int((relative[0] == 0).nonzero()), int((relative[1] == 0).nonzero())]
        return cls(axial * (2 * torch.pi), propagates, indices[0], indices[1], pupil, float(direct.abs() ** 2))


def _propagate_to(reference: int, spectra_KYX: Tensor, heights: NDArray[np.float64], source: _Source) -> Tensor:
    """Sum of the slabs' spectra, each propagated from its own height to that of slab `reference`: (Y, X).

    Horner's scheme from the lowest slab up and from the highest down: with equal spacing one phasor serves
    all.
    """
    phasors: dict[float, Tensor] = {}

    def step(distance: float) -> Tensor:
        distance = round(distance, 6)
        if distance not in phasors:
            phasors[distance] = phasor(source.axial * distance)
        return phasors[distance]

    total = spectra_KYX[reference].clone()
    if reference > 0:
        below = spectra_KYX[0].clone()
        for k in range(1, reference + 1):
            below *= step(heights[k] - heights[k - 1])
            if k < reference:
                below += spectra_KYX[k]
        total += below
    if reference < len(spectra_KYX) - 1:
        # From above the light is followed backwards: the conjugate phasor, applied to the conjugate sum.
        above = spectra_KYX[-1].conj().resolve_conj()
        for k in range(len(spectra_KYX) - 2, reference - 1, -1):
            above *= step(heights[k + 1] - heights[k])
            if k > reference:
                above += spectra_KYX[k].conj()
        total += above.conj()
    return total.mul_(source.propagates)


def crop_spectrum(spectrum: Tensor, shape: tuple[int, int]) -> Tensor:
    """Low frequencies of spectra (..., Y, X) of fft2, scaled so that the coarser image keeps its values."""
    full = spectrum.shape[-2:]
    for axis in (-2, -1):
        keep, size = shape[axis], spectrum.shape[axis]
        if keep < size:
            half = (keep - 1) // 2
            low, high = spectrum.narrow(axis, 0, half + 1), spectrum.narrow(axis, size - half, half)
            if keep % 2 == 0:  # the Nyquist bin, one-sided: dropped
                high = torch.cat([torch.zeros_like(low.narrow(axis, 0, 1)), high], dim=axis)
            spectrum = torch.cat([low, high], dim=axis)
    return spectrum * (shape[0] * shape[1] / (full[0] * full[1]))


def interpolate(images: Tensor, shape: tuple[int, int], transfer: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Band-limited interpolation of periodic images (..., y, x) to (..., Y, X), finer or coarser, of the same area.

    transfer: factors of the row (Y,) and column (X // 2 + 1,) frequencies of the result, e.g. a pixel's response.
    """
    rows, columns = images.shape[-2:]
    if (rows, columns) == shape and transfer is None:
        return images
    spectrum = torch.fft.rfft2(images)
    half, wide = (min(rows, shape[0]) - 1) // 2, (min(columns, shape[1]) - 1) // 2 + 1
    resized = torch.zeros((*images.shape[:-2], shape[0], shape[1] // 2 + 1), dtype=spectrum.dtype, device=images.device)
    resized[..., : half + 1, :wide] = spectrum[..., : half + 1, :wide]
    if half:
        resized[..., -half:, :wide] = spectrum[..., rows - half :, :wide]
    resized *= shape[0] * shape[1] / (rows * columns)
    if transfer is not None:
        resized *= transfer[0][:, None] * transfer[1]
    images_at_shape: Tensor = torch.fft.irfft2(resized, s=shape)
    return images_at_shape

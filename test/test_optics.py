"""Physics of the simulated optics: symmetry, contrast, band limits, and agreement with independent models."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from model.labels import Modality
from simulation import optics
from simulation.microscope import Microscope, draw_microscope
from simulation.pupil import source_count, source_points

SIZE = 144
Array = NDArray[np.float32]
PIXEL = 0.12


def microscope(modality: Modality, **changes: object) -> Microscope:
    plain = Microscope(
        modality=modality,
        numerical_aperture=0.8,
        condenser_na=0.32,
        wavelength_um=0.55,
        medium_index=1.337,
        pixel_size_um=PIXEL,
        ring_na=0.24,
        shear_um=(0.0, 0.2),
        bias_rad=0.8,
        fluorescence_na=0.8,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def transmitted(opd: Array, z_um: Sequence[float], foci_um: Sequence[float], scope: Microscope) -> Array:
    """Images (Z, Y, X) on the specimen's own pixels, as simulate.py makes them."""
    images = optics.transmitted(torch.from_numpy(np.ascontiguousarray(opd)), z_um, foci_um, scope)
    return optics.interpolate(images, (opd.shape[1], opd.shape[2])).clamp_min(0).numpy()


def smooth_noise(rng: np.random.Generator, sigma_px: float, size: int = SIZE) -> NDArray[np.float32]:
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), sigma_px, mode="wrap")
    return (noise / noise.std()).astype(np.float32)


def blob(radius_um: float, peak_opd_um: float, size: int = SIZE) -> NDArray[np.float32]:
    axis = (np.arange(size) - size // 2) * PIXEL
    squared = axis[:, None] ** 2 + axis**2
    return (peak_opd_um * np.exp(-squared / (2 * radius_um**2))).astype(np.float32)


def cell(rng: np.random.Generator, peak_phase: float, wavelength: float, slabs: int = 5) -> NDArray[np.float32]:
    """A domed cell with granules at all heights, its total phase up to about peak_phase (rad)."""
    dome = np.maximum(blob(3.0, 1.0) - 0.2, 0)
    opd = np.stack(
        [dome * (1 + 0.5 * smooth_noise(rng, 1.0 / PIXEL * 0.4)) * (1 - k / (slabs + 1)) for k in range(slabs)]
    )
    opd *= peak_phase / (2 * np.pi / wavelength) / opd.sum(axis=0).max()
    return opd.astype(np.float32)


def multislice(opd_um: NDArray, z_um: NDArray, foci: list[float], scope: Microscope, count: int) -> NDArray[np.float64]:
    """Abbe's sum with slab-by-slab propagation on the full grid, in double precision: an independent model."""
    k0 = 2 * np.pi / scope.wavelength_um
    f = np.fft.fftfreq(opd_um.shape[1], scope.pixel_size_um)
    total, empty = np.zeros((len(foci), *opd_um.shape[1:])), 0.0
    for sy, sx in source_points(scope, count) / scope.wavelength_um:
        ny, nx = f[:, None] + sy, f[None] + sx
        kz = 2 * np.pi * np.sqrt((scope.medium_index / scope.wavelength_um) ** 2 - ny**2 - nx**2 + 0j)
        alive = kz.imag == 0

        def free(distance: float, kz: NDArray = kz, alive: NDArray = alive) -> NDArray:
            return np.where(alive, np.exp(1j * (kz - kz[0, 0]).real * distance), 0)

        u = np.exp(1j * k0 * opd_um[0])
        for (low, high), opd in zip(pairwise(z_um), opd_um[1:], strict=True):
            u = np.fft.ifft2(np.fft.fft2(u) * free(high - low)) * np.exp(1j * k0 * opd)
        na = np.hypot(ny, nx) * scope.wavelength_um
        pupil = np.where(na <= scope.numerical_aperture, 1.0 + 0j, 0)
        if scope.modality is Modality.PC:
            ring = np.abs(na - scope.ring_na) <= 0.7 * scope.ring_width_ratio * scope.ring_na
            pupil = np.where(ring, pupil * -1j * np.sqrt(scope.ring_transmission), pupil)
        if scope.modality is Modality.DIC:
            shear = f[:, None] * scope.shear_um[0] + f[None] * scope.shear_um[1]
            pupil = pupil * np.sin(np.pi * shear + scope.bias_rad / 2)
        spectrum = np.fft.fft2(u) * pupil
        for image, focus in zip(total, foci, strict=True):
            image += np.abs(np.fft.ifft2(spectrum * free(focus - z_um[-1]))) ** 2
        empty += abs(pupil[0, 0]) ** 2
    return total / empty


def correlation(a: NDArray, b: NDArray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("peak_phase", [0.05, 1.5])
def test_agrees_with_multislice(modality: Modality, peak_phase: float) -> None:
    scope = microscope(modality)
    opd = cell(np.random.default_rng(3), peak_phase, scope.wavelength_um)
    z = np.arange(5) * 1.2
    foci = [-3.0, 1.0, 7.0]
    images = transmitted(opd, z.tolist(), foci, scope)
    share = np.cumsum(opd.sum((1, 2))) / opd.sum()
    low, high = z[np.searchsorted(share, 0.05)], z[np.searchsorted(share, 0.95)]
    count = source_count(scope, max(max(abs(f - low), abs(f - high)) for f in foci))
    for image, exact in zip(images, multislice(opd, z, foci, scope, count), strict=True):
        assert correlation(image, exact) > 0.97


def streibl(opd_um: NDArray, z_um: NDArray, focus: float, scope: Microscope, count: int) -> NDArray[np.float64]:
    """First-order image by the phase transfer function i (C - C-) of Streibl 1985, slab by slab."""
    f = np.fft.fftfreq(opd_um.shape[1], scope.pixel_size_um)

    def pupil(ny: NDArray, nx: NDArray, distance: float) -> NDArray:
        kz = 2 * np.pi * np.sqrt((scope.medium_index / scope.wavelength_um) ** 2 - ny**2 - nx**2 + 0j)
        inside = np.hypot(ny, nx) * scope.wavelength_um <= scope.numerical_aperture
        return np.where(inside, np.exp(1j * kz.real * distance), 0)

    spectrum = np.zeros(opd_um.shape[1:], complex)
    for opd, z in zip(opd_um, z_um, strict=True):
        transfer = np.zeros_like(spectrum)
        for sy, sx in source_points(scope, count) / scope.wavelength_um:
            direct = pupil(np.array(sy), np.array(sx), focus - z)
            plus = pupil(f[:, None] + sy, f[None] + sx, focus - z) * direct.conj()
            minus = pupil(sy - f[:, None], sx - f[None], focus - z).conj() * direct
            transfer += 1j * (plus - minus) / count
        spectrum += transfer * np.fft.fft2(2 * np.pi / scope.wavelength_um * opd)
    return 1 + np.fft.ifft2(spectrum).real


def test_weak_limit_is_streibls_transfer_function() -> None:
    scope = microscope(Modality.BF)
    z = np.arange(3) * 1.5
    rng = np.random.default_rng(5)
    opd = np.stack([smooth_noise(rng, 2.5) for _ in z]) * np.float32(2e-4)
    image = transmitted(opd, z.tolist(), [5.0], scope)[0]
    weak = streibl(opd, z, 5.0, scope, source_count(scope, 5.0))
    assert np.abs(image - weak).max() < 0.04 * np.abs(weak - 1).max()
    assert correlation(image, weak) > 0.9995
    assert (image - 1).std() == pytest.approx((weak - 1).std(), rel=0.01)


@pytest.mark.parametrize("modality", list(Modality))
def test_empty_field_is_one(modality: Modality) -> None:
    scope = microscope(modality, spherical_waves=0.1, astigmatism_waves=(0.02, 0.03))
    nothing = np.zeros((2, SIZE, SIZE), np.float32)
    glass = np.full_like(nothing, 0.1)
    np.testing.assert_allclose(transmitted(nothing, [0, 1], [0.0], scope), 1, atol=1e-6)
    np.testing.assert_allclose(transmitted(glass, [0, 1], [-5.0, 3.0], scope), 1, atol=1e-4)


def test_bright_field_conserves_energy_of_transparent_objects() -> None:
    # Shallow slopes scatter only inside the pupil, so the mean must stay that of the empty field.
    opd = blob(1.5, 0.05)[None]
    images = transmitted(opd, [0.0], [-4.0, 0.0, 4.0], microscope(Modality.BF))
    np.testing.assert_allclose(images.mean(axis=(1, 2)), 1, atol=2e-4)
    assert images.dtype == np.float32


def test_phase_object_vanishes_in_focus_and_reverses_through_it() -> None:
    opd = blob(0.6, 0.01)[None]
    below, focused, above = transmitted(opd, [2.0], [0.0, 2.0, 4.0], microscope(Modality.BF)) - 1
    assert np.abs(focused).max() < 0.03 * np.abs(above).max()
    assert correlation(below, above) < -0.97
    # A dense droplet is a lens: its light gathers behind it (above), and is missing before it.
    assert above[SIZE // 2, SIZE // 2] > 0.01 > -0.01 > below[SIZE // 2, SIZE // 2]


@pytest.mark.parametrize("direction", [(0.0, 1.0), (1.0, 0.0), (0.6, -0.8)])
def test_dic_relief_follows_the_shear_and_reverses_with_bias(direction: tuple[float, float]) -> None:
    shear = (0.2 * direction[0], 0.2 * direction[1])
    scope = microscope(Modality.DIC, shear_um=shear)
    phase = blob(0.8, 0.01)
    relief = transmitted(phase[None], [0.0], [0.0], scope)[0] - 1
    opposite = transmitted(phase[None], [0.0], [0.0], replace(scope, bias_rad=-scope.bias_rad))[0] - 1
    slope_y, slope_x = np.gradient(phase)
    assert correlation(relief, direction[0] * slope_y + direction[1] * slope_x) > 0.97
    assert abs(correlation(relief, direction[1] * slope_y - direction[0] * slope_x)) < 0.05
    assert correlation(relief, opposite) < -0.97


def test_dic_contrast_of_slow_objects() -> None:
    # sin^2((d grad phi + beta) / 2) / sin^2(beta / 2), Mehta & Sheppard 2008.
    scope = microscope(Modality.DIC, bias_rad=1.2)
    phase = blob(1.5, 0.08)
    gradient = np.gradient(phase, PIXEL, axis=1) * 2 * np.pi / scope.wavelength_um
    expected = np.sin((scope.shear_um[1] * gradient + 1.2) / 2) ** 2 / np.sin(0.6) ** 2
    image = transmitted(phase[None], [0.0], [0.0], scope)[0]
    assert np.abs(image - expected).max() < 0.15 * np.abs(expected - 1).max()


def test_phase_contrast_is_positive_with_halo() -> None:
    axis = (np.arange(SIZE) - SIZE // 2) * PIXEL
    radius = np.hypot(axis[:, None], axis)
    opd = (0.04 / (1 + np.exp((radius - 3.0) / 0.15))).astype(np.float32)
    image = transmitted(opd[None], [0.0], [0.0], microscope(Modality.PC))[0]
    assert image[radius < 2.8].mean() < 0.85
    assert image[(radius > 3.3) & (radius < 4.5)].mean() > 1.05
    # Shade-off: the middle of the object is less dark than its rim.
    assert image[radius < 0.8].mean() > image[(radius > 2.0) & (radius < 2.7)].mean()


@pytest.mark.parametrize("modality", list(Modality))
def test_no_energy_beyond_the_band(modality: Modality) -> None:
    scope = microscope(modality)
    frequency = np.fft.fftfreq(SIZE, PIXEL)
    radius = np.hypot(frequency[:, None], frequency)
    noise = np.random.default_rng(0).standard_normal((1, SIZE, SIZE)).astype(np.float32)
    edge = 2 / (SIZE * PIXEL)

    def power_outside(opd: NDArray, aperture: float) -> float:
        power = np.abs(np.fft.fft2(transmitted(opd, [0.0], [1.0], scope)[0] - 1)) ** 2
        return float(power[radius > aperture / scope.wavelength_um + edge].sum() / power.sum())

    assert power_outside(noise * 0.03, 2 * scope.numerical_aperture) < 1e-6
    if modality is Modality.BF:
        assert power_outside(noise * 3e-4, scope.numerical_aperture + scope.condenser_na) < 1e-3


def test_refocusing_shifts_with_the_specimen() -> None:
    opd = np.stack([smooth_noise(np.random.default_rng(k), 1.5) for k in range(3)]) * np.float32(0.01)
    scope = microscope(Modality.BF)
    here = transmitted(opd, [0.0, 1.0, 2.5], [3.0], scope)
    there = transmitted(opd, [10.0, 11.0, 12.5], [13.0], scope)
    shuffled = transmitted(opd[[2, 0, 1]], [2.5, 0.0, 1.0], [3.0], scope)
    np.testing.assert_allclose(here, there, atol=1e-4)
    np.testing.assert_array_equal(here, shuffled)


def test_grid_does_not_matter() -> None:
    # Finer pixels of the same specimen give the same image: the diffraction grid is as coarse as the band
    # allows.
    coarse = blob(0.8, 0.03)
    fine_axis = (np.arange(2 * SIZE) - SIZE) * PIXEL / 2
    fine = (0.03 * np.exp(-(fine_axis[:, None] ** 2 + fine_axis**2) / (2 * 0.8**2))).astype(np.float32)
    scope = microscope(Modality.PC)
    a = transmitted(coarse[None], [0.0], [1.5], scope)[0]
    b = transmitted(fine[None], [0.0], [1.5], replace(scope, pixel_size_um=PIXEL / 2))[0, ::2, ::2]
    np.testing.assert_allclose(a, b, atol=2e-3 * float(np.abs(a - 1).max()))


def test_odd_and_oblong_grids_and_same_bytes_twice() -> None:
    opd = smooth_noise(np.random.default_rng(1), 2.0)[:121, :97][None] * np.float32(0.01)
    scope = microscope(Modality.DIC)
    first = transmitted(opd, [0.0], [0.0, 1.0], scope)
    assert first.shape == (2, 121, 97)
    assert first.tobytes() == transmitted(opd, [0.0], [0.0, 1.0], scope).tobytes()


@pytest.mark.parametrize("modality", list(Modality))
def test_source_is_point_symmetric_and_inside(modality: Modality) -> None:
    scope = microscope(modality)
    for count in (8, 12, 32) if modality is not Modality.PC else (8, 16, 24, 32):
        points = source_points(scope, count)
        assert points.shape == (count, 2)
        np.testing.assert_allclose(np.sort(points, axis=0), np.sort(-points, axis=0), atol=1e-12)
        assert np.hypot(*points.T).max() < scope.source_edge_na
    if modality is Modality.PC:
        assert np.ptp(np.hypot(*points.T)) < scope.ring_na * scope.ring_width_ratio


@pytest.mark.parametrize("setting", ["challenge", "low"])
@pytest.mark.parametrize("modality", list(Modality))
def test_drawn_microscopes(modality: Modality, setting: str) -> None:
    low, high, na_low, na_high = (0.06, 0.16, 0.6, 1.43) if setting == "challenge" else (0.25, 0.35, 0.3, 0.5)
    drawn = [draw_microscope(np.random.default_rng(k), modality, setting=setting) for k in range(200)]  # type: ignore[arg-type]
    for scope in drawn:
        assert low <= scope.pixel_size_um <= high
        assert na_low <= scope.numerical_aperture <= na_high
        assert 4 * scope.pixel_size_um * scope.numerical_aperture <= scope.wavelength_um * 1.001
        assert scope.condenser_na <= 0.9
        hash(scope)
    assert drawn[0] == draw_microscope(np.random.default_rng(0), modality, setting=setting)  # type: ignore[arg-type]
    fixed = draw_microscope(np.random.default_rng(0), modality, 0.108)
    assert fixed.pixel_size_um == 0.108


def test_impossible_instruments_are_refused() -> None:
    with pytest.raises(ValueError, match="undersamples"):
        microscope(Modality.BF, pixel_size_um=0.3)
    with pytest.raises(ValueError, match="outside the pupil"):
        microscope(Modality.BF, condenser_na=0.85)
    with pytest.raises(ValueError, match="bias"):
        microscope(Modality.DIC, bias_rad=0.0)
    with pytest.raises(ValueError, match="cannot sample"):
        draw_microscope(np.random.default_rng(0), Modality.BF, 0.4)
    with pytest.raises(ValueError, match="Slabs"):
        transmitted(np.zeros((2, 8, 8), np.float32), [0.0], [0.0], microscope(Modality.BF))


@pytest.mark.parametrize("modality", list(Modality))
def test_a_coarse_specimen_shows_the_low_frequencies_of_a_fine_one(modality: Modality) -> None:
    # What a training draws: the specimen on pixels coarser than the aperture resolves.
    scope = microscope(modality, numerical_aperture=0.9)
    opd = cell(np.random.default_rng(3), 0.6, scope.wavelength_um)
    z, foci, half = [k * 1.2 for k in range(5)], [3.0], (SIZE // 2, SIZE // 2)
    fine = optics.interpolate(optics.transmitted(torch.from_numpy(opd), z, foci, scope), half)
    coarse_opd = optics.interpolate(torch.from_numpy(opd), half)
    coarse = optics.transmitted(coarse_opd, z, foci, scope, pixel_um=2 * PIXEL)
    assert coarse.shape[1:] == half
    assert correlation(fine.numpy(), coarse.numpy()) > 0.99
    assert float((fine - coarse).abs().max()) < 0.15 * float((fine - 1).abs().max())


def test_interpolation_keeps_what_both_grids_hold() -> None:
    image = torch.from_numpy(smooth_noise(np.random.default_rng(0), 6.0, 60))
    there_and_back = optics.interpolate(optics.interpolate(image, (91, 80)), (60, 60))
    np.testing.assert_allclose(there_and_back, image, atol=1e-4)
    smaller = optics.interpolate(image, (31, 45))
    assert float(smaller.mean()) == pytest.approx(float(image.mean()), abs=1e-6)
    np.testing.assert_allclose(optics.interpolate(smaller, (60, 60)), image, atol=0.02)

"""Wide-field fluorescence: the width of a point, the Airy pattern, and the haze of slabs out of focus."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from model.labels import Modality, Organelle
from simulation.microscope import Microscope
from simulation.widefield import fluorescence


def microscope(pixel_size_um: float, numerical_aperture: float) -> Microscope:
    """Of bright field, where only pixels, medium and aperture of the fluorescence matter."""
    return Microscope(Modality.BF, 0.8, 0.32, 0.55, 1.337, pixel_size_um, fluorescence_na=numerical_aperture)


def full_width(image: NDArray, pixel: float) -> float:
    """Full width at half maximum of a point's image along the row of its centre, µm."""
    centre = image.shape[0] // 2
    profile = image[centre, centre:] / image[centre, centre]
    below = int(np.argmax(profile < 0.5))
    return 2 * pixel * (below - 1 + (profile[below - 1] - 0.5) / (profile[below - 1] - profile[below]))


@pytest.mark.parametrize("organelle", list(Organelle))
def test_fluorescence_point_width(organelle: Organelle) -> None:
    scope = microscope(0.06, 0.8)
    point = np.zeros((1, 128, 128), np.float32)
    point[0, 64, 64] = 100
    image = fluorescence(point, [1.0], 1.0, scope, organelle)
    theory = 0.515 * scope.emission(organelle) / 0.8
    assert full_width(image, 0.06) == pytest.approx(theory, rel=0.03)
    assert image.sum() == pytest.approx(100, rel=1e-3)


def test_fluorescence_in_focus_is_the_airy_pattern() -> None:
    scope = microscope(0.06, 0.8)
    point = np.zeros((1, 128, 128), np.float32)
    point[0, 64, 64] = 1
    image = fluorescence(point, [0.0], 0.0, scope, Organelle.TUBULIN)
    axis = (np.arange(128) - 64) * 0.06
    v = 2 * np.pi * 0.8 / scope.emission(Organelle.TUBULIN) * np.hypot(axis[:, None], axis)
    airy = np.where(v == 0, 1, (2 * special.j1(v) / np.where(v == 0, 1, v)) ** 2)
    np.testing.assert_allclose(image / image.max(), airy, atol=5e-3)


def test_fluorescence_out_of_focus_matches_direct_transform() -> None:
    # The radial Hankel transforms against a plain two-dimensional transform of the defocused pupil.
    scope = microscope(0.08, 0.9)
    point = np.zeros((1, 256, 256), np.float32)
    point[0, 128, 128] = 1
    image = fluorescence(point, [0.0], 3.0, scope, Organelle.NUCLEUS)
    f = np.fft.fftfreq(1024, 0.04)
    radius = np.hypot(f[:, None], f)
    wavelength = scope.emission(Organelle.NUCLEUS)
    kz = 2 * np.pi * np.sqrt(np.maximum((scope.medium_index / wavelength) ** 2 - radius**2, 0))
    field = np.fft.ifft2(np.where(radius <= 0.9 / wavelength, np.exp(3j * kz), 0))
    direct = np.fft.fftshift(np.abs(field) ** 2)[::2, ::2][128:-128, 128:-128]
    assert np.corrcoef(image.ravel(), direct.ravel())[0, 1] > 0.995
    np.testing.assert_allclose(image / image.sum(), direct / direct.sum(), atol=0.04 * direct.max() / direct.sum())


def test_haze_comes_from_slabs_out_of_focus() -> None:
    scope = microscope(0.12, 0.8)
    slab = np.zeros((1, 144, 144), np.float32)
    slab[0, 60:80, 60:80] = 1
    sharp = fluorescence(slab, [0.0], 0.0, scope, Organelle.NUCLEUS)
    hazy = fluorescence(slab, [0.0], 6.0, scope, Organelle.NUCLEUS)
    both = fluorescence(np.concatenate([slab, slab]), [0.0, 6.0], 0.0, scope, Organelle.NUCLEUS)
    assert hazy.max() < 0.9 * sharp.max()
    assert hazy.sum() == pytest.approx(sharp.sum(), rel=1e-3)
    np.testing.assert_allclose(both, sharp + hazy, atol=1e-4)
    assert not fluorescence(slab * 0, [0.0], 0.0, scope, Organelle.NUCLEUS).any()

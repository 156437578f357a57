"""Appearance augmentation: deterministic, within limits, off where told, and each change does what it says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from model.labels import Modality
from model.normalization import NORMALIZED_CLIP
from training.appearance import AppearanceConfig, change_appearance

OFF = AppearanceConfig(sign=0, tone=0, contrast=0, noise=0, blur=0, flatten=0, sharpen=0, gradient=0, corner=0)
ALWAYS = AppearanceConfig(sign=1, tone=1, contrast=1, noise=1, blur=1, flatten=1, sharpen=1, gradient=1, corner=1)


def crop(seed: int = 0, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    rough = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(rough, 2.0)
    return (0.4 * smooth / smooth.std()).astype(np.float32)


def changed(config: AppearanceConfig, modality: Modality = Modality.PC, seed: int = 1) -> np.ndarray:
    return change_appearance(crop(), modality, config, np.random.default_rng(seed))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    modality=st.sampled_from(Modality),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    level=st.floats(-2, 2),
)
def test_any_crop_stays_a_crop_within_the_limits(
    seed: int, modality: Modality, height: int, width: int, level: float
) -> None:
    rough = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    for image in (rough, np.full((height, width), level, np.float32)):
        before = image.copy()
        result = change_appearance(image, modality, ALWAYS, np.random.default_rng(seed))
        assert result.shape == image.shape and result.dtype == np.float32
        assert np.isfinite(result).all() and np.abs(result).max() <= NORMALIZED_CLIP
        np.testing.assert_array_equal(image, before)
        again = change_appearance(image, modality, ALWAYS, np.random.default_rng(seed))
        np.testing.assert_array_equal(result, again)


def test_without_any_change_a_crop_is_what_it_was() -> None:
    np.testing.assert_array_equal(changed(OFF), crop())


@pytest.mark.parametrize("modality", Modality)
def test_the_sign_turns_in_phase_contrast_only(modality: Modality) -> None:
    expected = -crop() if modality is Modality.PC else crop()
    np.testing.assert_array_equal(changed(replace(OFF, sign=1), modality), expected)


def test_noise_has_the_strength_that_was_asked_for() -> None:
    config = replace(OFF, noise=1, noise_sigma=(0.1, 0.1001))
    for seed in range(6):
        added = change_appearance(np.zeros((128, 128), np.float32), Modality.BF, config, np.random.default_rng(seed))
        assert added.std() == pytest.approx(0.1, rel=0.05)


def test_blur_takes_fine_detail_away_and_sharpening_adds_it() -> None:
    def fine(x: np.ndarray) -> float:
        return float(np.abs(np.diff(x, axis=1)).mean())

    assert (
        fine(changed(replace(OFF, blur=1, blur_px=(1.0, 1.2)))) < fine(crop()) < fine(changed(replace(OFF, sharpen=1)))
    )


def test_flattening_takes_slow_changes_away_and_keeps_the_spread() -> None:
    slope = np.linspace(-1, 1, 64, dtype=np.float32) + 0.2 * crop()
    config = replace(OFF, flatten=1, flatten_share=(0.9, 0.95), flatten_px=(8.0, 9.0))
    flat = change_appearance(slope, Modality.BF, config, np.random.default_rng(0))
    rises = [float(x[:, 34:44].mean() - x[:, 20:30].mean()) for x in (slope, flat / flat.std() * (0.2 * crop()).std())]
    assert abs(rises[1]) < 0.3 * abs(rises[0])
    assert flat.std() == pytest.approx(slope.std(), rel=0.15)


def test_a_tone_curve_keeps_order_and_median() -> None:
    bent = changed(replace(OFF, tone=1))
    order = np.argsort(crop().ravel())
    assert (np.diff(bent.ravel()[order]) >= -1e-6).all()
    assert np.median(bent) == pytest.approx(np.median(crop()), abs=1e-5)
    assert not np.allclose(bent, crop(), atol=1e-3)


def test_a_gradient_is_a_plane_and_a_corner_is_black() -> None:
    added = changed(replace(OFF, gradient=1)) - crop()
    assert np.abs(np.diff(added, 2, axis=0)).max() < 1e-5 and np.abs(np.diff(added, 2, axis=1)).max() < 1e-5
    assert 0.03 < np.ptp(added) < 1.0
    dark = np.mean([changed(replace(OFF, corner=1), seed=seed) < -1.9 for seed in range(20)])
    assert 0.02 < dark < 0.5

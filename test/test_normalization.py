import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.normalization import InputNormalization, TargetNormalization, normalize_input, normalize_target, to_uint16

ANY_UINT16 = hnp.arrays(np.uint16, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def texture(shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape)


def test_linear_maps_the_range_and_comes_back_exactly():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for scaled in (
        normalize_input(every, InputNormalization.LINEAR),
        normalize_target(every, TargetNormalization.LINEAR),
    ):
        assert scaled.dtype == np.float32
        assert (scaled[0, 0], scaled[-1, -1]) == (-1, 1)
        assert np.array_equal(to_uint16(scaled), every)


def test_to_uint16_rounds_and_clips():
    step = 2 / 65535
    values = np.array([[-5, -1, -1 + 0.4 * step, -1 + 0.6 * step, 0, 1, 1.01, 1e30]])
    grey = to_uint16(values)
    assert grey.dtype == np.uint16
    assert grey.tolist() == [[0, 0, 0, 1, 32768, 65535, 65535, 65535]]
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            to_uint16(np.array([[0, bad]], dtype=np.float32))


@pytest.mark.parametrize(("slope_y", "slope_x"), [(0.3, 0.5), (0.1, 0.2)])
def test_flatfield_removes_an_illumination_gradient(slope_y, slope_x):
    y, x = np.mgrid[0:512, 0:512] / 512 - 0.5
    cells = 1 + 0.05 * texture((512, 512))
    flat = np.round(20_000 * cells).astype(np.uint16)
    lit = np.round(20_000 * (1 + slope_y * y + slope_x * x) * cells).astype(np.uint16)
    wanted, corrected = (normalize_input(image, InputNormalization.FLATFIELD) for image in (flat, lit))
    raw = normalize_input(lit, InputNormalization.LINEAR)

    def halves_apart(image):
        inner = image[128:-128, 128:-128]  # the border, where less is removed, is judged by the correlation
        return abs(inner[:, :128].mean() - inner[:, 128:].mean()) / inner.std()

    def likeness(image):
        return np.corrcoef(image.ravel(), wanted.ravel())[0, 1]

    assert halves_apart(raw) > 0.8
    assert halves_apart(corrected) < halves_apart(raw) / 4
    assert likeness(corrected) > 0.75
    assert 1 - likeness(corrected) < 0.4 * (1 - likeness(raw))


def test_flatfield_does_not_depend_on_exposure():
    image = (1_000 * (1 + 0.1 * texture((96, 130)))).astype(np.uint16)
    once, tenfold = (normalize_input(i, InputNormalization.FLATFIELD) for i in (image, image * np.uint16(10)))
    assert np.allclose(once, tenfold, atol=1e-3)
    assert np.median(once) == pytest.approx(0, abs=1e-3)


def test_flatfield_ignores_margins():
    inner = (8_000 * (1 + 0.1 * texture((200, 180)))).astype(np.uint16)
    framed = np.zeros((264, 260), dtype=np.uint16)
    framed[40:240, 16:196] = inner
    margin = framed == 0
    scaled = normalize_input(framed, InputNormalization.FLATFIELD, margin)
    assert (scaled[margin] == 0).all()
    alone = normalize_input(inner, InputNormalization.FLATFIELD)
    assert np.abs(scaled[40:240, 16:196] - alone).max() < 0.02


def test_percentile_and_zscore_do_as_they_say():
    image = (3_000 * (1 + 0.1 * texture((90, 120)))).astype(np.uint16)
    low, middle, high = np.percentile(image, (2, 50, 98))
    percentile = normalize_input(image, InputNormalization.PERCENTILE)
    assert np.allclose(percentile, np.clip((image - middle) / (high - low), -2, 2), atol=1e-4)
    zscore = normalize_input(image, InputNormalization.ZSCORE)
    assert np.allclose(zscore, np.clip((image - image.mean()) / (2 * image.std()), -2, 2), atol=1e-4)


@pytest.mark.parametrize("value", [0, 1, 30_000, 65_535])
@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (64, 64)])
def test_flatfield_of_a_constant_image_is_zero(value, shape):
    scaled = normalize_input(np.full(shape, value, np.uint16), InputNormalization.FLATFIELD)
    assert np.abs(scaled).max() < 1e-3


@settings(max_examples=40, deadline=None)
@given(ANY_UINT16)
def test_every_scaling_of_any_image_is_finite_and_bounded(image):
    before = image.copy()
    for input_normalization in InputNormalization:
        scaled = normalize_input(image, input_normalization)
        assert scaled.shape == image.shape and scaled.dtype == np.float32
        assert np.abs(scaled).max() <= 2  # false for NaN
        assert np.array_equal(scaled, normalize_input(image.astype(np.float32), input_normalization))
    for target_normalization in TargetNormalization:
        scaled = normalize_target(image, target_normalization)
        assert scaled.shape == image.shape and scaled.dtype == np.float32
        assert np.abs(scaled).max() <= 1
    assert np.array_equal(image, before)


def test_percentile_puts_the_metrics_range_where_it_says():
    image = np.linspace(100, 1100, 1001).reshape(7, 143).round().astype(np.uint16)
    low, high = np.percentile(image, (2, 99.8))
    scaled = normalize_target(image, TargetNormalization.PERCENTILE)
    assert np.allclose(scaled, (image - low) / (high - low) - 0.75, atol=1e-5)
    image[0, 0] = 65_535
    assert normalize_target(image, TargetNormalization.PERCENTILE)[0, 0] == 1
    assert (normalize_target(np.full((9, 9), 5, np.uint16), TargetNormalization.PERCENTILE) == 0).all()

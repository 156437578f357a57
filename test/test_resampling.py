import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.resampling import resample

SIDE = st.integers(1, 60)


def smooth(shape):
    y, x = (np.linspace(0, 1, n, endpoint=False) + 0.5 / n for n in shape)
    return (np.sin(2 * np.pi * y)[:, None] + np.cos(2 * np.pi * x)[None]).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE)
def test_any_shape_to_any_shape_and_constants_stay(height, width, new_height, new_width):
    image = np.full((height, width), 12.5, np.float32)
    resampled = resample(image, (new_height, new_width))
    assert resampled.shape == (new_height, new_width) and resampled.dtype == np.float32
    assert np.allclose(resampled, 12.5, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(SIDE, SIDE)
def test_the_same_shape_gives_the_same_values_in_an_array_of_its_own(height, width):
    image = np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)
    same = resample(image, (height, width))
    assert np.array_equal(same, image) and not np.shares_memory(same, image)


@pytest.mark.parametrize("shape", [(40, 60), (37, 91), (160, 240), (50, 200), (173, 64)])
def test_mean_is_preserved(shape):
    image = np.random.default_rng(1).uniform(size=(80, 120)).astype(np.float32)
    assert resample(image, shape).mean() == pytest.approx(image.mean(), abs=0.01)


@pytest.mark.parametrize("shape", [(32, 32), (40, 24), (21, 96)])
def test_shrinking_does_not_alias(shape):
    rows, columns = np.indices((96, 96))
    stripes = ((-1.0) ** rows).astype(np.float32)  # the finest pattern there is: gone on any coarser grid
    board = ((-1.0) ** (rows + columns)).astype(np.float32)
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(resample(stripes, shape)[inner]).max() < 0.15
    assert np.abs(resample(board, shape)[inner]).max() < 0.15


@pytest.mark.parametrize("shape", [(40, 50), (150, 160), (40, 160)])
def test_structures_stay_in_place(shape):
    # Pixel centres, not corners, define the grid: the same field of view sampled anew.
    assert np.abs(resample(smooth((80, 100)), shape) - smooth(shape)).max() < 0.02


def test_there_and_back_keeps_a_smooth_image():
    image = smooth((97, 71))
    assert np.abs(resample(resample(image, (58, 120)), (97, 71)) - image).max() < 0.03

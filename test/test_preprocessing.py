"""The grid and the normalization of an image are decided once, for prediction and training."""

import pytest

from model.preprocessing import Grid


@pytest.mark.parametrize(
    ("pixel_size_um", "expected"),
    [
        ((0.1, 0.1), (100, 200)),
        ((0.05, 0.16), (100, 200)),
        ((0.025, 0.1), (50, 200)),
        ((0.1, 0.32), (100, 400)),
        ((0.01, 0.01), (20, 40)),
    ],
)
def test_grid_brings_each_axis_into_the_learned_range(
    pixel_size_um: tuple[float, float], expected: tuple[int, int]
) -> None:
    grid = Grid.choose((100, 200), pixel_size_um, (0.05, 0.16))
    assert (grid.shape, grid.warning) == (expected, None)


@pytest.mark.parametrize("pixel_size_um", [None, (1e-6, 1e-6), (0.1, 7.0)])
def test_unknown_and_implausible_sizes_keep_the_image_and_are_warned_of(
    pixel_size_um: tuple[float, float] | None,
) -> None:
    grid = Grid.choose((100, 200), pixel_size_um, (0.05, 0.16))
    assert grid.shape == (100, 200) and grid.warning == grid.rescaling != "none needed"


def test_an_image_has_at_least_one_pixel() -> None:
    assert Grid.choose((1, 200), (0.05, 0.05), (0.1, 0.2)).shape == (1, 100)

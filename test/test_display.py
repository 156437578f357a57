"""The range of grey values between which a layer is shown."""

import numpy as np
import pytest

from model.display import INPUT_SHARE, ORGANELLE_SHARE, display_range


def test_most_of_a_field_is_dark_and_the_brightest_is_not_full() -> None:
    plane = np.linspace(0, 10000, 100_000).astype(np.uint16).reshape(250, 400)
    low, high = display_range(plane, organelle=True)
    assert low == pytest.approx(4000, abs=2) and high == pytest.approx(4000 + 5990 / ORGANELLE_SHARE, abs=4)
    low, high = display_range(plane, organelle=False)
    assert low == pytest.approx(50, abs=2) and high == pytest.approx(50 + 9930 / INPUT_SHARE, abs=9)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_there_is_always_a_range_of_16_bits(value: int) -> None:
    for organelle in (False, True):
        low, high = display_range(np.full((9, 9), value, np.uint16), organelle=organelle)
        assert 0 <= low < high <= 65535

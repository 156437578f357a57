"""How layers are shown: their colours, and the range of grey values."""

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from model.display import INPUT_SHARE, ORGANELLE_SHARE, display_range
from model.labels import ORGANELLE_COLOURS, Organelle


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


# Machado, Oliveira and Fernandes 2009 (doi:10.1109/TVCG.2009.113), severity 1: for linear RGB.
MISSING_CONE = {
    "none": np.eye(3),
    "long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("missing", MISSING_CONE)
def test_colours_of_organelles_differ_for_every_viewer(missing: str) -> None:
    rgb = np.array([list(bytes.fromhex(ORGANELLE_COLOURS[organelle])) for organelle in Organelle]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(MISSING_CONE[missing]), 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
    assert min(deltaE_ciede2000(a, b) for a, b in itertools.combinations(lab, 2)) >= 15

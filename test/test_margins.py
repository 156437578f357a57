"""Margins are where there is no image; zeros within an image are grey values. Images that show nothing stay blank."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from evaluation.metrics import pcc
from model.contrast import missing_contrast
from model.images import read_image
from model.labels import Modality, Organelle
from model.margins import find_margins
from model.predictor import Predictor

ROOT = Path(__file__).parents[1]
FIELD = ROOT / "test/input/Study_2"


def cells(seed: int = 0, shape: tuple[int, int] = (200, 260)) -> np.ndarray:
    """A smooth image around 8000, nowhere 0."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 5)
    return (8000 + 2500 * smooth / smooth.std()).clip(1, 65535).astype(np.uint16)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 4), st.floats(-20, 20), st.integers(0, 9))
def test_what_registration_leaves_is_a_margin(widths: tuple[int, int, int, int], turn: float, seed: int) -> None:
    top, bottom, left, right = widths
    framed = cells(seed)
    margin = np.ones(framed.shape, bool)
    margin[top : framed.shape[0] - bottom, left : framed.shape[1] - right] = False
    if not any((top, bottom, left, right)):
        margin = ndimage.rotate(np.zeros(framed.shape), turn, reshape=False, cval=1, order=0) > 0.5
    framed[margin] = 0
    found = find_margins(framed)
    assert not found[~margin].any()
    missed = (margin & ~found).sum()  # slivers along less than an eighth of a side
    assert missed <= 0.01 * margin.size


@pytest.mark.parametrize("percent", [1, 5, 10, 20])
@pytest.mark.parametrize("seed", range(4))
def test_what_was_clipped_to_black_is_none(percent: int, seed: int) -> None:
    image = cells(seed)
    low, high = np.percentile(image, (percent, 99.7))
    export = (np.clip((image - low) / (high - low), 0, 1) * 255).round().astype(np.uint16) * 257
    assert (export == 0).mean() > 0.8 * percent / 100
    assert not find_margins(export).any()


def test_dead_pixels_and_rows_within_are_none() -> None:
    image = cells()
    image[np.random.default_rng(0).random(image.shape) < 0.05] = 0
    image[90:93] = 0  # from border to border, but along few pixels of it
    assert not find_margins(image).any()


def test_the_black_corner_of_a_round_field_stop_is_a_margin() -> None:
    image = cells(shape=(256, 256)).astype(float)
    y, x = np.mgrid[:256, :256]
    stop = ndimage.gaussian_filter((np.hypot(y - 160, x - 160) < 190).astype(float), 2)
    image = np.where(stop < 0.02, 0, image * stop).astype(np.uint16)
    assert find_margins(image)[:20, :20].all() and not find_margins(image)[100:, 100:].any()


@pytest.mark.parametrize("percent", [5, 10])
def test_a_clipped_export_is_predicted_as_well_as_the_image(percent: int) -> None:
    image, truth = read_image(FIELD / "image_2_PC_z0.ome.tiff"), read_image(FIELD / "image_2_Nucleus.ome.tiff")
    low, high = np.percentile(image.pixels, (percent, 99.65))
    grey = (np.clip((image.pixels - low) / (high - low), 0, 1) * 255).round().astype(np.uint16)
    assert (grey == 0).mean() > 0.9 * percent / 100
    scores = []
    with Predictor.open(ROOT / "resources", device="cpu") as predictor:
        predictor.settings = replace(predictor.settings, rotations=1)
        for export in (grey * 257, np.maximum(grey, 1) * 257):
            outputs = predictor.predict(export, Modality.PC, pixel_size_um=image.info.pixel_size_um)
            scores.append(pcc(outputs[Organelle.NUCLEUS], truth.pixels))
    assert min(scores) >= 0.87 and abs(scores[0] - scores[1]) < 0.01


def noise(low: int, high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high + 1, (64, 64)).astype(np.uint16)


SATURATED = cells()
SATURATED[np.percentile(SATURATED, 1) < SATURATED] = 65535


@pytest.mark.parametrize(
    "image",
    [
        *(np.full((64, 64), value, np.uint16) for value in (0, 1, 1000, 65535)),
        noise(0, 1), noise(0, 1) * 257, noise(999, 1001), noise(0, 1) * 65535, SATURATED,
        np.full((1, 1), 7, np.uint16),
    ],
)  # fmt: skip
def test_an_image_that_shows_nothing_is_left_blank_and_warned_of(image: np.ndarray, resources: Path) -> None:
    with Predictor.open(resources, device="cpu") as predictor:
        plan = predictor.plan(Modality.BF, (image.shape[0], image.shape[1]), (0.1, 0.1))
        inputs = predictor.preprocess(image, plan)
        outputs = predictor.postprocess(predictor.forward(inputs), plan)
    (warning,) = inputs.warnings
    assert "no contrast" in warning and "blank" in warning
    assert "blank" in inputs.plan.provenance[Organelle.NUCLEUS]["contrast"]
    for prediction in outputs.values():
        assert prediction.shape == image.shape and np.ptp(prediction) == 0


@pytest.mark.parametrize("image", [cells(), cells() // 250, cells() // 2000 * 257, noise(998, 1002), noise(0, 65535)])
def test_an_image_with_contrast_is_predicted(image: np.ndarray) -> None:
    assert missing_contrast(image, find_margins(image)) is None


def test_a_margin_is_no_contrast() -> None:
    image = np.full((64, 64), 1000, np.uint16)
    image[:, :20] = 0
    assert missing_contrast(image, find_margins(image)) is not None

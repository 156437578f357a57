"""The challenge's metrics against direct calls of the libraries that define them."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import pearsonr
from skimage.metrics import structural_similarity
from sklearn.metrics import mean_absolute_error
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

from evaluation.metrics import METRICS, normalize, pcc, score, ssim
from model.errors import UserError
from model.labels import Organelle

FULL = {"MAE", "SSIM", "PCC", "E_dist", "C_dist"}


def images(seed: int = 0, shape: tuple[int, int] = (41, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A uint16 truth with few bright pixels, and a prediction that resembles it."""
    rng = np.random.default_rng(seed)
    truth = rng.gamma(1.5, 900, shape)
    prediction = 0.3 * truth + rng.normal(2000, 300, shape)
    return prediction.clip(0, 65535).astype(np.uint16), truth.clip(0, 65535).astype(np.uint16)


def by_percentiles(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, 2), np.percentile(image, 99.8)
    return (image - low) / (high - low)


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_the_libraries(seed):
    prediction, truth = images(seed)
    p, t = by_percentiles(prediction), by_percentiles(truth)
    flat = p.reshape(1, -1), t.reshape(1, -1)

    found = score(prediction, truth, Organelle.NUCLEUS)

    assert found["MAE"] == pytest.approx(mean_absolute_error(t, p), rel=1e-9)
    assert found["PCC"] == pytest.approx(pearsonr(t.ravel(), p.ravel()).statistic, rel=1e-9)
    similarity = structural_similarity(t, p, data_range=max(np.ptp(p), np.ptp(t)))
    assert found["SSIM"] == pytest.approx(similarity, rel=1e-9)
    assert found["E_dist"] == pytest.approx(euclidean_distances(*flat)[0, 0], rel=1e-6)
    assert found["C_dist"] == pytest.approx(abs(cosine_distances(*flat)[0, 0]), rel=1e-9)
    assert found["C_dist"] == pytest.approx(abs(cosine(p.ravel(), t.ravel())), rel=1e-9)
    assert pcc(prediction, truth) == pytest.approx(found["PCC"], rel=1e-9)
    assert ssim(prediction, truth) == pytest.approx(found["SSIM"], rel=1e-9)


def test_values_that_can_be_reckoned_by_hand():
    truth = np.zeros((10, 10))
    truth[:, 5:] = 100  # p2 = 0, p99.8 = 100
    opposite = 100 - truth
    found = score(opposite, truth, Organelle.MITOCHONDRIA)
    assert found["PCC"] == pytest.approx(-1)
    assert found["MAE"] == pytest.approx(1)
    assert found["E_dist"] == pytest.approx(10)  # sqrt(100 pixels), not divided by their number
    assert found["C_dist"] == pytest.approx(1)


@pytest.mark.parametrize("organelle", list(Organelle))
def test_each_organelle_has_the_figures_of_the_challenge(organelle):
    prediction, truth = images()
    full = organelle in (Organelle.NUCLEUS, Organelle.MITOCHONDRIA)
    assert set(score(prediction, truth, organelle)) == (FULL if full else {"SSIM", "PCC"})
    assert tuple(score(prediction, truth, organelle)) == METRICS[organelle]


def test_perfect_prediction():
    _, truth = images()
    found = score(truth.copy(), truth, Organelle.NUCLEUS)
    assert found["PCC"] == pytest.approx(1)
    assert found["SSIM"] == pytest.approx(1)
    assert [found[name] for name in ("MAE", "E_dist", "C_dist")] == pytest.approx([0, 0, 0])


def test_normalisation_does_not_clip():
    _, truth = images()
    assert normalize(truth).max() > 1
    assert normalize(truth).min() < 0
    assert np.percentile(normalize(truth), (2, 99.8)) == pytest.approx([0, 1])


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_constant_image_keeps_its_value(value):
    assert np.all(normalize(np.full((8, 8), value, np.uint16)) == value)


@pytest.mark.parametrize("value", [0, 300])
def test_constant_prediction_is_scored_without_nan_or_warning(value):
    _, truth = images()
    flat = np.full_like(truth, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score(flat, truth, Organelle.NUCLEUS)
    assert found["PCC"] == 0
    assert all(np.isfinite(list(found.values())))
    expected = cosine_distances(normalize(flat).reshape(1, -1), normalize(truth).reshape(1, -1))[0, 0]
    assert found["C_dist"] == pytest.approx(expected)  # 1 for a black image: empty is never the best


def test_both_images_constant():
    found = score(np.zeros((9, 9)), np.zeros((9, 9)), Organelle.NUCLEUS)
    assert found == {"MAE": 0, "SSIM": 0, "PCC": 0, "E_dist": 0, "C_dist": 1}


def test_nan_counts_zero():
    prediction, truth = (image.astype(float) for image in images())
    prediction[0, 0] = np.nan
    assert pcc(prediction, truth) == 0
    assert ssim(prediction, truth) == 0


@pytest.mark.parametrize("function", [pcc, ssim, lambda p, t: score(p, t, Organelle.ACTIN)])
def test_wrong_shape_is_refused(function):
    prediction, truth = images()
    with pytest.raises(UserError, match=r"41 x 60 pixels, expected 41 x 64"):
        function(prediction[:, :60], truth)
    with pytest.raises(UserError, match=r"1 x 41 x 64"):
        function(prediction[None], truth)


def test_images_below_the_window_of_ssim_are_refused():
    with pytest.raises(UserError, match="at least 7 x 7"):
        ssim(np.eye(6), np.eye(6))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gain=st.floats(1e-3, 1e3),
    offset=st.floats(-1e4, 1e4),
)
def test_figures_are_invariant_to_a_positive_affine_change(seed, gain, offset):
    prediction, truth = images(seed, (12, 17))
    changed = gain * prediction.astype(np.float64) + offset
    assert pcc(changed, truth) == pytest.approx(pcc(prediction, truth), abs=1e-6)
    expected = score(prediction, truth, Organelle.NUCLEUS)
    assert score(changed, truth, Organelle.NUCLEUS) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_images_does_not_matter_to_pcc_and_its_range_is_kept(seed):
    prediction, truth = images(seed, (9, 9))
    assert pcc(prediction, truth) == pytest.approx(pcc(truth, prediction))
    assert -1 <= pcc(prediction, truth) <= 1


def test_float32_arrays_of_the_trainer_lose_no_precision():
    prediction, truth = images()
    as_float = prediction.astype(np.float32) / 65535 * 2 - 1, truth.astype(np.float32) / 65535 * 2 - 1
    assert pcc(*as_float) == pytest.approx(pcc(prediction, truth), abs=1e-5)
    assert ssim(*as_float) == pytest.approx(ssim(prediction, truth), abs=1e-4)

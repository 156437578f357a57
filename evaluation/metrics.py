"""The challenge's five metrics for one predicted organelle.

Both images are first normalized to their own percentiles, so every metric is invariant to a positive affine
change of the prediction: intensity is relative, in the truth as in the prediction.

Source: the evaluation of the Light My Cells challenge; paper, section 3, "Evaluation metrics".
"""

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import distance
from scipy.stats import ConstantInputWarning, NearConstantInputWarning, pearsonr
from skimage.metrics import structural_similarity

from model.errors import UserError
from model.labels import Organelle

Image = NDArray[Any]

LOW_PERCENTILE, HIGH_PERCENTILE = 2.0, 99.8
SSIM_WINDOW = 7  # scikit-image's default; nothing smaller than this has a structural similarity

ALL_METRICS = ("MAE", "SSIM", "PCC", "E_dist", "C_dist")
METRICS: Mapping[Organelle, tuple[str, ...]] = MappingProxyType(
    {
        Organelle.MITOCHONDRIA: ALL_METRICS,
        Organelle.NUCLEUS: ALL_METRICS,
        Organelle.TUBULIN: ("SSIM", "PCC"),
        Organelle.ACTIN: ("SSIM", "PCC"),
    }
)
"""Which metrics the challenge computes for which organelle, in the order of the paper's Table 1."""


def normalize(image: Image) -> NDArray[np.float64]:
    """Map the image's own 2nd percentile to 0 and its 99.8th to 1, without clipping.

    Parameters
    ----------
    image : ndarray
        Any shape and numeric dtype.

    Returns
    -------
    ndarray of float64
        Of the same shape. An image whose two percentiles coincide (constant, or empty but for a few pixels) keeps its
        values, as in the challenge.
    """
    values = np.asarray(image, dtype=np.float64)
    low, high = np.percentile(values, (LOW_PERCENTILE, HIGH_PERCENTILE))
    return values if low == high else (values - low) / (high - low)


def pcc(prediction: Image, truth: Image) -> float:
    """Pearson's correlation over all pixels, which needs no normalization, being affinely invariant.

    Parameters
    ----------
    prediction, truth : ndarray, (Y, X)
        Any numeric dtype.

    Returns
    -------
    float
        In [-1, 1]; 0 where it is undefined (a constant image).

    Raises
    ------
    UserError
        Where the shapes differ.
    """
    _require_same_shape(prediction, truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        warnings.simplefilter("ignore", NearConstantInputWarning)
        # float64: SciPy would otherwise work in the precision of float32 inputs
        value = pearsonr(
            np.asarray(prediction, dtype=np.float64).ravel(), np.asarray(truth, dtype=np.float64).ravel()
        ).statistic
    return _number(value)


def ssim(prediction: Image, truth: Image) -> float:
    """Structural similarity of the two images, each normalized by `normalize`.

    Parameters
    ----------
    prediction, truth : ndarray, (Y, X)
        At least `SSIM_WINDOW` pixels a side, any numeric dtype, not normalized.

    Returns
    -------
    float
        At most 1; 0 where it is undefined (both constant).

    Raises
    ------
    UserError
        Where the shapes differ or are too small.
    """
    _require_same_shape(prediction, truth)
    return _ssim_of_normalized(normalize(prediction), normalize(truth))


def score(prediction: Image, truth: Image, organelle: Organelle) -> dict[str, float]:
    """Score one image by all metrics that the challenge computes for an organelle.

    Parameters
    ----------
    prediction, truth : ndarray, (Y, X)
        Any numeric dtype, as read from file.
    organelle : Organelle

    Returns
    -------
    dict of str to float
        By the names in ``METRICS[organelle]``. MAE and E_dist are in units of the percentile range; E_dist is not
        divided by the number of pixels, so it grows with the image.

    Raises
    ------
    UserError
        Where the shapes differ or are smaller than `SSIM_WINDOW`.
    """
    _require_same_shape(prediction, truth)
    predicted, wanted = normalize(prediction), normalize(truth)
    values = {"SSIM": _ssim_of_normalized(predicted, wanted), "PCC": pcc(predicted, wanted)}
    if "MAE" in METRICS[organelle]:
        difference = predicted - wanted
        values["MAE"] = _number(np.abs(difference).mean())
        values["E_dist"] = _number(np.linalg.norm(difference.ravel()))
        values["C_dist"] = _cosine_distance(predicted.ravel(), wanted.ravel())
    return {name: values[name] for name in METRICS[organelle]}


def _ssim_of_normalized(prediction: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    if min(truth.shape) < SSIM_WINDOW:
        raise UserError(
            f"The image is {_size(truth)} pixels, expected at least {SSIM_WINDOW} x {SSIM_WINDOW} for SSIM."
        )
    data_range = max(np.ptp(prediction), np.ptp(truth))
    with np.errstate(invalid="ignore", divide="ignore"):  # two constant images: 0/0, which counts 0
        return _number(structural_similarity(truth, prediction, data_range=data_range))


def _cosine_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # A black image has no direction. The challenge's scikit-learn calls it orthogonal to everything, which is
    # right where less is better: counting SciPy's NaN as 0 would make the empty prediction the best.
    if not a.any() or not b.any():
        return 1.0
    return abs(_number(distance.cosine(a, b)))


def _require_same_shape(prediction: Image, truth: Image) -> None:
    if np.ndim(truth) != 2:
        raise UserError(f"The ground truth has shape {np.shape(truth)}, expected one plane (Y, X).")
    if np.shape(prediction) != np.shape(truth):
        raise UserError(f"The prediction is {_size(prediction)} pixels, expected {_size(truth)} as the ground truth.")


def _size(image: Image) -> str:
    return " x ".join(map(str, np.shape(image)))


def _number(value: float | np.floating[Any]) -> float:
    """A plain float; NaN counts 0."""
    return 0.0 if np.isnan(value) else float(value)

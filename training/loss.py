"""The adaptive loss: only what is labelled is learned from (paper, section 2.3, equations 1 and 2).

All means run over the labelled (sample, organelle) pairs, so a partially labelled batch has exactly the loss of
its labelled subset, and nothing flows into the decoder of an organelle that no sample labels.
Shape suffixes: B samples, C organelles, P labelled pairs, Y rows, X columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

INSIDE_PERCENT = (2.0, 99.8)


def labelled_pairs(tensor_BCYX: Tensor, labelled_BC: Tensor) -> Tensor:
    """Drop what is unlabelled: the T of the paper's equation 1.

    Parameters
    ----------
    tensor_BCYX : Tensor
        Targets or predictions.
    labelled_BC : Tensor of bool

    Returns
    -------
    Tensor
        (P, Y, X), sample after sample.
    """
    return tensor_BCYX[labelled_BC]


def weight_map(target_PYX: Tensor, outside_weight: float) -> Tensor:
    """Weigh each pixel: 1 inside the [2, 99.8] percentile range of its own target, else less (equation 2: 0.1).

    Parameters
    ----------
    target_PYX : Tensor of float32
    outside_weight : float

    Returns
    -------
    Tensor of float32
        (P, Y, X).
    """
    flat = target_PYX.flatten(1)
    ranks = torch.tensor(INSIDE_PERCENT, dtype=flat.dtype, device=flat.device) / 100
    low_P, high_P = torch.quantile(flat, ranks, dim=1)
    inside = (target_PYX >= low_P[:, None, None]) & (target_PYX <= high_P[:, None, None])
    return torch.where(inside, 1.0, outside_weight)


def weighted_l1(prediction_PYX: Tensor, target_PYX: Tensor, outside_weight: float) -> Tensor:
    """Mean weighted absolute error (equation 2): each pixel is weighted before any average is taken."""
    return (weight_map(target_PYX, outside_weight) * (prediction_PYX - target_PYX).abs()).mean()


def correlation_loss(prediction_PYX: Tensor, target_PYX: Tensor) -> Tensor:
    """Mean over pairs of 1 - Pearson correlation.

    Not in the paper: on sparse targets an absolute error rewards blank images, a correlation does not. A blank
    target has no correlation; its pair counts 1 and has no gradient.
    """
    prediction = prediction_PYX.flatten(1)
    target = target_PYX.flatten(1)
    prediction = prediction - prediction.mean(1, keepdim=True)
    target = target - target.mean(1, keepdim=True)
    covariance = (prediction * target).mean(1)
    # The floor keeps the root's gradient finite where an image is constant.
    spread = (prediction.square().mean(1) * target.square().mean(1) + 1e-12).sqrt()
    return (1 - covariance / spread).mean()


def adversarial_loss(logits_by_organelle: list[Tensor], real: bool) -> Tensor:
    """Vanilla GAN objective (binary cross-entropy with logits), averaged over all labelled pairs.

    Parameters
    ----------
    logits_by_organelle : list of Tensor
        (labelled samples, 1, y, x) of each organelle's discriminator. Patches of a pair are averaged first, so that
        each pair counts the same.
    real : bool
        What the discriminators should have said.

    Returns
    -------
    Tensor
        Scalar.
    """
    per_pair = [
        F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)), reduction="none")
        .flatten(1)
        .mean(1)
        for logits in logits_by_organelle
    ]
    return torch.cat(per_pair).mean()

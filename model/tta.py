"""Test-time augmentation: the mean over quarter turns of the image plane (paper, "Test-time augmentation").

    y = 1/n Σ_k  R⁻ᵏ f(Rᵏ x),   R a quarter turn in (Y, X),   k = 0 | 0, 2 | 0, 1, 2, 3

The networks of an ensemble share the turns: two networks with two turns each take as long as one with four, and are
right more often (docs/performance.md). There are at most as many networks as turns.

Turns are exact permutations of pixels, so an identity network returns the image. A quarter turn of a
non-square image swaps its sides: `f` must take any shape, and plan its tiles for the shape it is given.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .resampling import resample

ROTATIONS = (1, 2, 4)
"""How many turned images may be averaged. Two of one network are 0 and 180°, which keep the shape."""

_PLANE = (-2, -1)  # never batch and channel, which turned nothing while the output was turned back


def quarter_turns(rotations: int, member: int = 0, members: int = 1) -> tuple[int, ...]:
    """Choose the quarter turns that one network of an ensemble predicts, so that all predict `rotations` together.

    Parameters
    ----------
    rotations : int
        1, 2 or 4.
    member, members : int
        Position of the network in its ensemble, from 0, and how many there are.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        For another number of rotations, or more networks than rotations.
    """
    if rotations not in ROTATIONS:
        raise ValueError(f"rotations must be 1, 2 or 4, got {rotations}")
    if not 0 <= member < members <= rotations:
        raise ValueError(f"at most {rotations} networks can share {rotations} rotations, got {member} of {members}")
    each = max(count for count in ROTATIONS if count <= rotations // members)
    return tuple((member + turn) % 4 for turn in range(0, 4, 4 // each))


def predict_with_tta(
    predict: Callable[[Tensor], Tensor], image_1YX: Tensor, turns: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """Mean and standard deviation of the predictions of the turned image, each turned back; float32 (C, Y, X).

    One turn has no deviation. It is the population's, of values in [-1, 1]: 1 at most.

    `predict` maps (1, Y, X) to (C, Y, X) for the image's shape and its transpose; `turns` are quarter turns.
    Raises ValueError if `predict` changes the shape of the plane.
    """
    sum_CYX: Tensor | None = None
    first_CYX: Tensor | None = None
    squares_CYX: Tensor | None = None  # of the differences from the first, which are small
    for turn in turns:
        turned_CYX = predict(torch.rot90(image_1YX, turn, _PLANE).contiguous()).float()
        prediction_CYX = torch.rot90(turned_CYX, -turn, _PLANE)
        if prediction_CYX.shape[-2:] != image_1YX.shape[-2:]:
            raise ValueError(
                f"predict must keep the plane's shape {tuple(image_1YX.shape[-2:])}, "
                f"got {tuple(prediction_CYX.shape[-2:])}"
            )
        sum_CYX = prediction_CYX.clone() if sum_CYX is None else sum_CYX.add_(prediction_CYX)
        if first_CYX is None:
            first_CYX = prediction_CYX
        else:
            squares = (prediction_CYX - first_CYX).square_()
            squares_CYX = squares if squares_CYX is None else squares_CYX.add_(squares)
    assert sum_CYX is not None
    assert first_CYX is not None
    mean_CYX = sum_CYX.div_(len(turns))
    if squares_CYX is None:
        return mean_CYX, None
    difference = mean_CYX - first_CYX
    return mean_CYX, squares_CYX.div_(len(turns)).sub_(difference.square_()).clamp_(min=0).sqrt_()


def average_predictions(predictions: Iterable[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    """Mean and standard deviation over predictions of one image, at several scales or by several networks.

    Parameters
    ----------
    predictions : iterable of (Tensor, Tensor or None)
        Of each the mean and the deviation, float32 (C, Y, X) on the CPU; each weighs the same.

    Returns
    -------
    (Tensor, Tensor or None)
        On the grid of the first; the deviation is that of all predictions, None where there is but one.
    """
    parts = list(predictions)
    if len(parts) == 1:
        return parts[0]
    _, height, width = parts[0][0].shape
    means_SCYX = torch.stack([_resampled(mean_CYX, (height, width)) for mean_CYX, _ in parts])
    variance_CYX = means_SCYX.var(0, correction=0)
    deviations = [_resampled(std_CYX, (height, width)) for _, std_CYX in parts if std_CYX is not None]
    if deviations:
        variance_CYX += torch.stack(deviations).square_().mean(0)
    return means_SCYX.mean(0), variance_CYX.sqrt_()


def _resampled(image_CYX: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.stack([torch.from_numpy(resample(image_YX.numpy(), shape)) for image_YX in image_CYX])

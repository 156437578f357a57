"""How much rotations, scales and networks disagree about an organelle: large where they guess.

Not a probability, and no measure of the error: it tells which images to look at first.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .normalization import to_uint16
from .resampling import resample


def disagreement(mean_YX: Tensor, std_YX: Tensor) -> float:
    """Root mean square of the deviation over what was averaged, relative to the prediction's own contrast.

    Parameters
    ----------
    mean_YX, std_YX : Tensor
        (Y, X) float32, as in `NetworkOutputs`.

    Returns
    -------
    float
        0: all agree. About 1: what is seen in the prediction is no more than what they disagree about.
    """
    contrast = float(mean_YX.std(correction=0))
    deviation = float(std_YX.square().mean().sqrt())
    return deviation / contrast if contrast > 0 else 0.0


def disagreement_map(std_YX: Tensor | None, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Bring the deviation (Y, X) to an image's grid and to 16 bit; 65535 stands for 1, the largest possible.

    All zero where there is none: nothing was predicted, or nothing averaged.
    """
    if std_YX is None:
        return np.zeros(shape, np.uint16)
    return to_uint16(resample(2 * std_YX.numpy() - 1, shape))

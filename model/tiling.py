"""The tile plan is data; cutting, predicting and blending are pure functions over it.

The paper predicts windows of 512 px with an overlap of 0.8 and merges them ("Inference"); the blend here is
Gaussian with a positive floor, so that every pixel of every size has a weight to be divided by.
Shape suffixes: B tiles, C organelles, Y rows, X columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_OVERLAP = 0.9
"""Largest overlap: the number of tiles grows with 1 / (1 - overlap)², without measurable gain."""

_SIGMA = 1 / 8
_FLOOR = 0.03


@dataclass(frozen=True)
class TilePlan:
    """Where square windows lie on an image of `shape` that was padded to `padded_shape`; all in px, (y, x).

    `offset` is where the image begins on the padded plane; `tiles` are the windows' upper left corners there.
    """

    shape: tuple[int, int]
    window: int
    padded_shape: tuple[int, int]
    offset: tuple[int, int]
    tiles: tuple[tuple[int, int], ...]

    @classmethod
    def make(cls, shape: tuple[int, int], window: int, overlap: float) -> "TilePlan":
        """Plan windows that reach every edge and overlap by `overlap`, a fraction of the window, or more.

        Windows start at whole pixels, so two neighbours may lie a fraction of a pixel further apart than requested.

        An axis shorter than the window is padded on both sides to exactly one window; a longer one is never
        padded: its tiles are spread evenly, so that none nearly repeats its neighbour at the far edge.

        Raises ValueError for a shape or window below 1 px or an overlap outside [0, 0.9].
        """
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"shape must be (Y, X) with at least 1 px each, got {shape}")
        if window < 1:
            raise ValueError(f"window must be at least 1 px, got {window}")
        if not 0 <= overlap <= MAX_OVERLAP:
            raise ValueError(f"overlap must lie in [0, {MAX_OVERLAP}], got {overlap}")
        # Not whole pixels: a step of 102 instead of 102.4 would add a seventh tile to the six that span 1024 px.
        # Rounded, since 10 * (1 - 0.9) is 0.9999999999999998 in floating point.
        step = max(1.0, round(window * (1 - overlap), 6))
        height, width = shape
        padded_shape = max(height, window), max(width, window)
        offset = (padded_shape[0] - height) // 2, (padded_shape[1] - width) // 2
        tiles = tuple(
            (y, x)
            for y in _axis_starts(padded_shape[0], window, step)
            for x in _axis_starts(padded_shape[1], window, step)
        )
        return cls((height, width), window, padded_shape, offset, tiles)


def gaussian_weights(window: int) -> Tensor:
    """Blend weights of one tile, float32 (window, window): a Gaussian of sigma window / 8, everywhere > 0.

    The floor (0.03 an axis) keeps the quotient of the blend well conditioned where only a tile's rim reaches,
    as in the image's corners.
    """
    position = torch.arange(window, dtype=torch.float32) - (window - 1) / 2
    profile = torch.exp(-0.5 * (position / (window * _SIGMA)) ** 2).clamp_min(_FLOOR)
    return profile[:, None] * profile[None, :]


def coverage(plan: TilePlan) -> Tensor:
    """Sum of the tiles' blend weights on the padded plane, float32 (Y, X): what a blend divides by."""
    weights = gaussian_weights(plan.window)
    total = torch.zeros(plan.padded_shape)
    for y, x in plan.tiles:
        total[y : y + plan.window, x : x + plan.window] += weights
    return total


def predict_tiled(predict: Callable[[Tensor], Tensor], image_1YX: Tensor, plan: TilePlan, batch: int = 4) -> Tensor:
    """Predict an image tile by tile and blend: the weighted mean of all tiles that see a pixel.

    `predict` maps (B, 1, window, window) to (B, C, window, window), B at most `batch`. The image is padded by
    symmetric reflection where it is smaller than a window. Returns float32 (C, Y, X) on the image's device,
    accumulated in float32 whatever `predict` returns, in the plan's order: one input gives one output.

    Raises ValueError if the image is not of the plan's shape, or `predict` changes the tiles' size or number.
    """
    if tuple(image_1YX.shape) != (1, *plan.shape):
        raise ValueError(f"image must be {(1, *plan.shape)} as planned, got {tuple(image_1YX.shape)}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1 tile, got {batch}")
    window, device = plan.window, image_1YX.device
    padded_1YX = _pad_symmetric(image_1YX, plan)
    weights_YX = gaussian_weights(window).to(device)
    sum_CYX: Tensor | None = None
    for first in range(0, len(plan.tiles), batch):
        corners = plan.tiles[first : first + batch]
        tiles_B1YX = torch.stack([padded_1YX[:, y : y + window, x : x + window] for y, x in corners])
        predictions_BCYX = predict(tiles_B1YX)
        if predictions_BCYX.ndim != 4 or predictions_BCYX[:, :1].shape != tiles_B1YX.shape:
            raise ValueError(
                f"predict must map {tuple(tiles_B1YX.shape)} to (B, C, Y, X) of the same B, Y and X, "
                f"got {tuple(predictions_BCYX.shape)}"
            )
        if sum_CYX is None:
            sum_CYX = torch.zeros(predictions_BCYX.shape[1], *plan.padded_shape, device=device)
        for (y, x), prediction_CYX in zip(corners, predictions_BCYX, strict=True):
            sum_CYX[:, y : y + window, x : x + window].addcmul_(prediction_CYX.float(), weights_YX)
    assert sum_CYX is not None, "a plan holds at least one tile"
    sum_CYX /= coverage(plan).to(device)
    (top, left), (height, width) = plan.offset, plan.shape
    return sum_CYX[:, top : top + height, left : left + width]


def _axis_starts(length: int, window: int, step: float) -> list[int]:
    """First px of each window along one axis: from 0 to length - window, at most `step` px apart, rounded up."""
    span = length - window
    gaps = math.ceil(span / step)
    return [0] if gaps == 0 else [(i * span + gaps // 2) // gaps for i in range(gaps + 1)]


def _pad_symmetric(image_1YX: Tensor, plan: TilePlan) -> Tensor:
    """Mirror the image about its outer edges (edge px repeated) as often as needed: any size from 1 px on."""
    if plan.padded_shape == plan.shape:
        return image_1YX
    rows, columns = (
        _mirrored_indices(length, padded, offset).to(image_1YX.device)
        for length, padded, offset in zip(plan.shape, plan.padded_shape, plan.offset, strict=True)
    )
    return image_1YX.index_select(1, rows).index_select(2, columns)


def _mirrored_indices(length: int, padded: int, offset: int) -> Tensor:
    folded = (torch.arange(padded) - offset) % (2 * length)
    return torch.where(folded < length, folded, 2 * length - 1 - folded)

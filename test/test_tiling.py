import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.tiling import TilePlan, coverage, gaussian_weights, predict_tiled
from model.tta import predict_with_tta, quarter_turns

SIZES = st.integers(1, 70)
WINDOWS = st.integers(1, 24)
OVERLAPS = st.floats(0, 0.9)


def identity(x: Tensor) -> Tensor:
    return x


def random_image(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@settings(max_examples=80, deadline=None)
@given(SIZES, SIZES, WINDOWS, OVERLAPS)
def test_every_pixel_is_covered_with_positive_weight(height: int, width: int, window: int, overlap: float) -> None:
    plan = TilePlan.make((height, width), window, overlap)
    visited = torch.zeros(plan.padded_shape, dtype=torch.int64)
    for y, x in plan.tiles:
        assert 0 <= y <= plan.padded_shape[0] - window
        assert 0 <= x <= plan.padded_shape[1] - window
        visited[y : y + window, x : x + window] += 1
    assert visited.min() >= 1
    assert coverage(plan).min() > 0
    assert len(set(plan.tiles)) == len(plan.tiles), "no tile is predicted twice"


@settings(max_examples=80, deadline=None)
@given(SIZES, SIZES, WINDOWS, OVERLAPS)
def test_neighbours_overlap_at_least_as_asked(height: int, width: int, window: int, overlap: float) -> None:
    plan = TilePlan.make((height, width), window, overlap)
    for axis in (0, 1):
        starts = sorted({tile[axis] for tile in plan.tiles})
        gaps = [after - before for before, after in itertools.pairwise(starts)]
        assert all(gap <= max(1, math.ceil(window * (1 - overlap) - 1e-5)) for gap in gaps)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.integers(4, 24), OVERLAPS, st.sampled_from([1, 2, 4]), st.integers(1, 7))
def test_identity_network_returns_the_image(
    height: int, width: int, window: int, overlap: float, rotations: int, batch: int
) -> None:
    image = random_image((height, width))

    def tiled(turned: Tensor) -> Tensor:
        plan = TilePlan.make((turned.shape[1], turned.shape[2]), window, overlap)
        return predict_tiled(identity, turned, plan, batch)

    result, _ = predict_with_tta(tiled, image, quarter_turns(rotations))
    assert result.shape == image.shape
    assert (result - image).abs().max() <= 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (513, 511), (512, 512)])
def test_identity_at_the_papers_window(shape: tuple[int, int]) -> None:
    image = random_image(shape)
    result = predict_tiled(identity, image, TilePlan.make(shape, 512, 0.8))
    assert (result - image).abs().max() <= 1e-5


def test_same_bytes_twice() -> None:
    image = random_image((65, 43))
    plan = TilePlan.make((65, 43), 16, 0.7)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    with torch.inference_mode():
        first, second = (predict_tiled(network, image, plan) for _ in range(2))
    assert first.numpy().tobytes() == second.numpy().tobytes()


def test_blend_is_the_weighted_mean_of_all_tiles_that_see_a_pixel() -> None:
    plan = TilePlan.make((9, 13), 6, 0.5)
    calls: list[float] = []

    def numbered(tiles: Tensor) -> Tensor:  # the n-th tile predicts n everywhere
        numbers = torch.arange(len(calls), len(calls) + len(tiles), dtype=torch.float32)
        calls.extend(numbers.tolist())
        return numbers[:, None, None, None].expand(-1, 2, 6, 6)

    result = predict_tiled(numbered, torch.zeros(1, 9, 13), plan, batch=3)
    weights = gaussian_weights(6)
    for y, x in ((0, 0), (4, 7), (8, 12), (3, 3)):
        seen = [(n, weights[y - v, x - u]) for n, (v, u) in enumerate(plan.tiles) if 0 <= y - v < 6 and 0 <= x - u < 6]
        expected = sum(n * w for n, w in seen) / sum(w for _, w in seen)
        assert result[:, y, x].tolist() == pytest.approx([float(expected)] * 2, abs=1e-5)


def test_one_tile_where_the_image_fits_and_symmetric_padding_around_it() -> None:
    plan = TilePlan.make((2, 3), 8, 0.8)
    assert plan.tiles == ((0, 0),)
    seen: list[Tensor] = []

    def spy(tiles: Tensor) -> Tensor:
        seen.append(tiles)
        return tiles

    predict_tiled(spy, torch.tensor([[[1.0, 2, 3], [4, 5, 6]]]), plan)
    tile = seen[0][0, 0]
    assert tile[3].tolist() == [2, 1, 1, 2, 3, 3, 2, 1]  # edge px repeated: 2 1 | 1 2 3 | 3 2 1
    assert tile[:, 2].tolist() == [4, 4, 1, 1, 4, 4, 1, 1]


def test_half_precision_predictions_are_accumulated_in_float32() -> None:
    image = random_image((40, 40))
    result = predict_tiled(lambda x: x.bfloat16(), image, TilePlan.make((40, 40), 16, 0.9))
    assert result.dtype == torch.float32
    assert (result - image.bfloat16().float()).abs().max() <= 1e-5


def test_papers_setting_costs_what_it_should() -> None:
    assert len(TilePlan.make((512, 512), 512, 0.8).tiles) == 1
    assert len(TilePlan.make((1024, 1024), 512, 0.8).tiles) == 6**2, "not 7: the step is 102.4 px, not 102"
    assert len(TilePlan.make((2048, 2048), 512, 0.8).tiles) == 16**2


@pytest.mark.parametrize(
    ("shape", "window", "overlap"),
    [((0, 4), 8, 0.5), ((4,), 8, 0.5), ((4, 4), 0, 0.5)]
    + [((4, 4), 8, overlap) for overlap in (0.91, -0.1, float("nan"))],
)
def test_impossible_plans_are_refused(shape: tuple[int, int], window: int, overlap: float) -> None:
    with pytest.raises(ValueError, match="must"):
        TilePlan.make(shape, window, overlap)


def test_misuse_is_refused() -> None:
    plan = TilePlan.make((8, 8), 8, 0)
    with pytest.raises(ValueError, match="as planned"):
        predict_tiled(identity, torch.zeros(1, 8, 9), plan)
    with pytest.raises(ValueError, match="same B, Y and X"):
        predict_tiled(lambda x: x[..., ::2], torch.zeros(1, 8, 8), plan)
    with pytest.raises(ValueError, match="same B, Y and X"):
        predict_tiled(lambda x: x[:, :, ::2], torch.zeros(1, 8, 8), plan)
    with pytest.raises(ValueError, match="batch"):
        predict_tiled(identity, torch.zeros(1, 8, 8), plan, batch=0)

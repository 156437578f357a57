"""The plane in focus of a stack: sharp detail against blur, and stacks that have none."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.focus import draw_stack
from model.focus import SCALE_PX, best_plane, laplacian_variance
from model.labels import Modality

MODALITIES: list[Modality | None] = [*Modality, None]


def blurred_stack(best: int, planes: int = 7) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    cells = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 1.5)
    detail = 20000 + 6000 * cells / cells.std()
    stack = [ndimage.gaussian_filter(detail, 1.5 * abs(z - best)) if z != best else detail for z in range(planes)]
    return [np.clip(plane + rng.normal(0, 20, plane.shape), 0, 65535).astype(np.uint16) for plane in stack]


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("best", [0, 3, 6])
def test_the_sharpest_plane_is_found(modality: Modality | None, best: int) -> None:
    assert best_plane(blurred_stack(best), modality) == best


def test_planes_are_read_once_one_after_the_other() -> None:
    seen: list[int] = []

    def planes() -> Iterator[np.ndarray]:
        for number, plane in enumerate(blurred_stack(2)):
            seen.append(number)
            yield plane

    assert best_plane(planes(), Modality.BF) == 2
    assert seen == list(range(7))


@pytest.mark.parametrize("modality", MODALITIES)
def test_planes_without_contrast_are_not_chosen(modality: Modality | None) -> None:
    stack = blurred_stack(3)
    stack[0] = np.zeros_like(stack[0])
    stack[1] = np.full_like(stack[1], 900)
    assert best_plane(stack, modality) == 3
    assert best_plane([np.zeros((50, 50), np.uint16)] * 3, modality) == 0


def test_brightness_does_not_count() -> None:
    stack = blurred_stack(4)
    dim = [(plane // (1 + z % 3)).astype(np.uint16) for z, plane in enumerate(stack)]
    assert best_plane(dim, Modality.PC) == best_plane(stack, Modality.PC)


@pytest.mark.parametrize("shape", [(1, 1), (2, 90), (5, 5), (12, 13)])
def test_planes_of_any_size(shape: tuple[int, int]) -> None:
    plane = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape) % 7
    assert np.isfinite([laplacian_variance(plane, scale) for scale in SCALE_PX.values()]).all()


def test_no_plane_at_all() -> None:
    with pytest.raises(ValueError, match="one plane at least"):
        best_plane([], Modality.BF)


@pytest.mark.parametrize("modality", Modality)
def test_a_simulated_stack(modality: Modality) -> None:
    distances = []
    for number in range(5):
        planes, best = draw_stack(np.random.default_rng([7, number]), modality, "challenge")
        distances.append(abs(best_plane(planes, modality) - best))
    assert np.mean(distances) <= 2  # of 13 planes; a plane at random is 4 away

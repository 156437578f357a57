"""A specimen cut into horizontal slabs, and the strokes it is drawn with: columns, spheres and tubes.

Axes are (slab, y, x); lengths are µm; z grows from the coverslip at 0 into the dish.
Every stroke conserves volume, so that a structure thinner than a pixel weighs what it should.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]  # what is stored: (K, Y, X), or one image (Y, X)
Floats = NDArray[np.floating[Any]]  # what is computed on the way, in either precision
Window = tuple[slice, slice]

SPHERE_CLASSES_PER_OCTAVE = 1.5  # radii of small spheres are rounded to classes, each drawn in one filtering


@dataclass(frozen=True)
class Grid:
    """Sampling of one specimen: ``shape`` (Y, X) in pixels of ``pixel_um``, slab borders ``edges_um`` (K + 1,)."""

    shape: tuple[int, int]
    pixel_um: float
    edges_um: tuple[float, ...]

    @property
    def centres_um(self) -> Volume:
        """Heights of the slab centres, (K,) µm."""
        edges = np.asarray(self.edges_um, np.float32)
        centres: Volume = (edges[1:] + edges[:-1]) / np.float32(2)
        return centres

    @property
    def extent_um(self) -> tuple[float, float]:
        """Size of the grid (y, x) in µm."""
        return self.shape[0] * self.pixel_um, self.shape[1] * self.pixel_um

    @property
    def everywhere(self) -> Window:
        """The window of all pixels."""
        return slice(0, self.shape[0]), slice(0, self.shape[1])

    def slab(self, z_um: float) -> int:
        """The slab that holds a height; the lowest or highest one for heights outside."""
        return int(np.clip(np.searchsorted(self.edges_um, z_um) - 1, 0, len(self.edges_um) - 2))

    def empty(self) -> Volume:
        """Zeros of shape (K, Y, X)."""
        return np.zeros((len(self.edges_um) - 1, *self.shape), np.float32)

    def window(self, y_um: float, x_um: float, radius_um: float) -> Window | None:
        """The pixels within ``radius_um`` of a point, or None where that lies outside the grid."""
        bounds = []
        for centre, size in zip((y_um, x_um), self.shape, strict=True):
            low = max(0, int((centre - radius_um) / self.pixel_um))
            high = min(size, int((centre + radius_um) / self.pixel_um) + 2)
            if low >= high:
                return None
            bounds.append(slice(low, high))
        return bounds[0], bounds[1]

    def offsets(self, window: Window, y_um: float, x_um: float) -> tuple[Floats, Floats]:
        """Distances (dy, dx) in µm of a window's pixel centres from a point, broadcastable to the window."""
        rows = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None]
        columns = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :]
        return (rows + 0.5) * self.pixel_um - y_um, (columns + 0.5) * self.pixel_um - x_um


def add_column(volume: Volume, grid: Grid, window: Window, bottom: Floats, top: Floats, value: Floats | float) -> None:
    """Add ``value`` per µm of height between ``bottom`` and ``top`` (window-shaped, µm) to the slabs."""
    highest, lowest = float(top.max()), float(bottom.min())
    for slab, (low, high) in enumerate(zip(grid.edges_um[:-1], grid.edges_um[1:], strict=True)):
        if highest <= low or lowest >= high:
            continue
        thickness = np.minimum(top, high)
        thickness -= np.maximum(bottom, low)
        np.maximum(thickness, 0, out=thickness)
        volume[(slab, *window)] += thickness * value


def scatter(grid: Grid, z_um: Floats, y_um: Floats, x_um: Floats, weight: Floats) -> Volume:
    """Deposit weights at points, bilinearly in (y, x) and into the nearest slab; (K, Y, X).

    Points outside the grid are left out. The sum over pixels is the sum of the weights inside.
    """
    slabs, (rows, columns) = len(grid.edges_um) - 1, grid.shape
    y, x = y_um / grid.pixel_um - 0.5, x_um / grid.pixel_um - 0.5
    inside = (y >= 0) & (x >= 0) & (y < rows - 1) & (x < columns - 1) & (weight != 0)
    y, x, weight = y[inside], x[inside], weight[inside]
    slab = np.clip(np.searchsorted(grid.edges_um, z_um[inside], side="right") - 1, 0, slabs - 1)
    y0, x0 = y.astype(np.int64), x.astype(np.int64)
    fy, fx = y - y0, x - x0
    base = (slab * rows + y0) * columns + x0
    corners = [
        (base + dy * columns + dx, weight * wy * wx)
        for dy, wy in ((0, 1 - fy), (1, fy))
        for dx, wx in ((0, 1 - fx), (1, fx))
    ]
    places, weights = (np.concatenate(column) for column in zip(*corners, strict=True))
    total = np.bincount(places, weights=weights, minlength=slabs * rows * columns)
    return total.reshape(slabs, rows, columns).astype(np.float32)


def blur(volume: Volume, sigma_um: float, pixel_um: float) -> Volume:
    """Widen deposited points to structures of standard deviation ``sigma_um``; empty slabs are passed over."""
    sigma = sigma_um / pixel_um
    if sigma < 0.3:  # bilinear deposition is already this wide
        return volume
    for slab in volume:
        if slab.any():
            ndimage.gaussian_filter(slab, sigma, output=slab, mode="nearest", truncate=3.0)
    return volume


def spheres(grid: Grid, z_um: Floats, y_um: Floats, x_um: Floats, radius_um: Floats, value: Floats | float) -> Volume:
    """Small solid spheres as (K, Y, X): ``value`` times the thickness in µm along z.

    A sphere's projection is approximated by a Gaussian of the same volume and variance (radius² / 5 an axis);
    radii are grouped into classes so that thousands cost a few filterings.
    """
    total = grid.empty()
    if not radius_um.size:
        return total
    volume_um3 = 4 / 3 * np.pi * radius_um**3
    weight = (volume_um3 * value / grid.pixel_um**2).astype(np.float32)
    octave = np.round(np.log2(radius_um) * SPHERE_CLASSES_PER_OCTAVE)
    for size_class in np.unique(octave):
        chosen = octave == size_class
        sigma = float(radius_um[chosen].mean()) / np.sqrt(5)
        total += blur(scatter(grid, z_um[chosen], y_um[chosen], x_um[chosen], weight[chosen]), sigma, grid.pixel_um)
    return total


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Volume:
    """Gaussian random field (Y, X) of zero mean, unit variance and correlation length ``sigma_px`` pixels."""
    coarse_by = max(1.0, sigma_px / 3)
    coarse = tuple(int(np.ceil(size / coarse_by)) + 4 for size in shape)
    field = rng.standard_normal(coarse).astype(np.float32)
    field = ndimage.gaussian_filter(field, sigma_px / coarse_by, mode="wrap")
    field = resize(field, (int(coarse[0] * coarse_by), int(coarse[1] * coarse_by)))[: shape[0], : shape[1]]
    unit: Volume = (field - field.mean()) / max(float(field.std()), 1e-6)
    return unit


def resize(image: Volume, shape: tuple[int, int]) -> Volume:
    """Bilinear interpolation of (Y, X) to another sampling of the same area."""
    factors = (shape[0] / image.shape[0], shape[1] / image.shape[1])
    out: Volume = ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True)
    return out[: shape[0], : shape[1]]


def radial_modes(
    rng: np.random.Generator, roughness: float, falloff: float, lowest: int = 2, highest: int = 7
) -> tuple[Floats, Floats, Floats]:
    """Random Fourier modes of an outline: (orders, amplitudes falling as order^-falloff of rms roughness, phases)."""
    orders = np.arange(lowest, highest + 1, dtype=np.float32)
    amplitudes = orders**-falloff * np.abs(rng.standard_normal(orders.size)).astype(np.float32)
    amplitudes *= roughness * np.sqrt(2) / max(float(np.sqrt((amplitudes**2).sum())), 1e-6)
    return orders, amplitudes, rng.uniform(0, 2 * np.pi, orders.size).astype(np.float32)


def outline(angle: Floats, modes: tuple[Floats, Floats, Floats]) -> Floats:
    """Relative radius of an outline at each angle (rad); mean about 1, never below 0.2."""
    radius = np.ones_like(angle)
    for order, amplitude, phase in zip(*modes, strict=True):
        radius += amplitude * np.cos(order * angle + phase)
    return np.maximum(radius, 0.2)

"""Nuclei with nucleoli, chromatin and envelope, drawn into the specimen as optical path and as DNA stain.

Outlines are ellipses roughened by Fourier modes; each nucleus lies at 0.4 of the room between coverslip and the
cell's roof, which it pushes up where it needs more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.labels import Organelle
from simulation.cells import Cell
from simulation.sample_params import SampleParams
from simulation.specimen import Specimen
from simulation.volume import Floats, Grid, Volume, Window, add_column, outline, radial_modes, smooth_noise

SMALLEST_RADIUS_UM = 2.5  # cells without room for this nucleus are drawn without one


@dataclass(frozen=True)
class _Footprint:
    """A nucleus from above: window, coordinates along and across its long axis (µm), radius of its rim by direction."""

    window: Window
    along: Floats
    across: Floats
    distance: Floats  # from the centre, in the frame where the mean outline is a circle
    rim: Floats
    radius_um: float

    @property
    def inside(self) -> Floats:
        """1 inside, 0 outside, over 0.15 µm between."""
        return np.clip((self.rim - self.distance) / 0.15 + 0.5, 0, 1)


def draw_nuclei(
    rng: np.random.Generator, params: SampleParams, specimen: Specimen, cells: Sequence[Cell], height: Volume
) -> Volume:
    """Draw each cell's nucleus with nucleoli and chromatin; returns the nuclear mask (Y, X) in [0, 1].

    ``height`` (Y, X) µm is raised in place where a nucleus pushes the cell's roof up.
    """
    grid = specimen.grid
    mask = np.zeros(grid.shape, np.float32)
    chromatin = smooth_noise(rng, grid.shape, rng.uniform(0.25, 0.6) / grid.pixel_um)
    chromatin += 0.7 * smooth_noise(rng, grid.shape, rng.uniform(0.8, 2.0) / grid.pixel_um)
    thickness_of_study = rng.uniform(*params.cells.nucleus_thickness_um)
    for cell in cells:
        for y, x, radius in _places(rng, params, cell):
            footprint = _draw_footprint(rng, params, grid, cell, y, x, radius)
            if footprint is None:
                continue
            bottom, top = _make_room(footprint, thickness_of_study * rng.lognormal(0, 0.12), height)
            nucleoli = _draw_nucleoli(rng, params, footprint, top - bottom)
            texture = np.clip(chromatin[footprint.window], -2.5, 2.5)
            _fill(params, specimen, footprint, bottom, top, nucleoli, texture, cell.brightness)
            mask[footprint.window] = np.maximum(mask[footprint.window], footprint.inside)
    return mask


def _places(rng: np.random.Generator, params: SampleParams, cell: Cell) -> Iterator[tuple[float, float, float]]:
    """Centre (y, x) and radius in µm of a cell's nucleus, or of the two that about 3 % of wide cells have."""
    radius = min(params.nucleus_radius_um * rng.lognormal(0, 0.12), 0.85 * cell.room_um)
    if radius < SMALLEST_RADIUS_UM:
        return
    two = rng.random() < 0.03 and cell.room_um > 1.6 * radius
    sin, cos = np.sin(cell.direction), np.cos(cell.direction)  # of double precision, and so is what follows
    for along in (-0.55, 0.55) if two else (0.0,):
        shift = 2 * radius * along
        yield cell.y_um + shift * sin, cell.x_um + shift * cos, radius * (0.7 if two else 1)


def _draw_footprint(
    rng: np.random.Generator, params: SampleParams, grid: Grid, cell: Cell, y: float, x: float, radius: float
) -> _Footprint | None:
    window = grid.window(y, x, 1.8 * radius + 2)
    if window is None:
        return None
    dy, dx = grid.offsets(window, y, x)
    axis = np.sqrt(min(cell.elongation, 1.8) * rng.uniform(0.85, 1.25))
    turn = cell.direction + 0.3 * rng.standard_normal()
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = (dx * cos + dy * sin) / axis, (dy * cos - dx * sin) * axis
    rim = outline(np.arctan2(across, along), radial_modes(rng, params.nucleus_roughness, 2.5)) * radius
    return _Footprint(window, along, across, np.hypot(along, across), rim, radius)


def _make_room(footprint: _Footprint, thickness_um: float, height: Volume) -> tuple[Floats, Floats]:
    """Raise the cell's roof over the nucleus, in place; returns the nucleus' bottom and top in µm."""
    relative = footprint.distance / footprint.rim
    dome = np.sqrt(np.maximum(1 - np.minimum(relative, 1) ** 3, 0)) * thickness_um
    roof = (dome + 0.6) * np.exp(-(np.maximum(relative - 1, 0) ** 2) / 0.05)
    body = height[footprint.window]
    body[...] = np.maximum(body, np.minimum(roof, body + 0.45 * roof))
    bottom = np.maximum((body - dome) * 0.4, 0.2)
    return bottom, np.minimum(bottom + dome, np.maximum(body, bottom))


def _draw_nucleoli(rng: np.random.Generator, params: SampleParams, footprint: _Footprint, room: Floats) -> Floats:
    """Thickness of the nucleoli in µm, nowhere more than the nucleus' own (``room``)."""
    radius = footprint.radius_um
    thickness = np.zeros_like(footprint.distance)
    for _ in range(int(rng.poisson(params.cells.nucleoli))):
        place, bearing = 0.7 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        along, across = place * radius * np.cos(bearing), place * radius * np.sin(bearing)
        size = rng.uniform(0.5, 1.4) * (radius / 8) ** 0.5
        squash = rng.uniform(0.7, 1.4)
        gap = ((footprint.along - along) * squash) ** 2 + ((footprint.across - across) / squash) ** 2
        thickness = np.maximum(thickness, np.minimum(np.sqrt(np.maximum(size**2 - gap, 0)) * 2, room))
    return thickness


def _fill(
    params: SampleParams,
    specimen: Specimen,
    footprint: _Footprint,
    bottom: Floats,
    top: Floats,
    nucleoli: Floats,
    texture: Floats,
    brightness: float,
) -> None:
    """Add nucleoplasm with chromatin, nucleoli (dark in DNA stains) and envelope to the specimen."""
    grid, window, inside = specimen.grid, footprint.window, footprint.inside
    middle = (bottom + top) / 2
    index = params.nucleoplasm + params.chromatin * texture
    add_column(specimen.optical_path, grid, window, bottom, top, index * inside)
    low, high = middle - nucleoli / 2, middle + nucleoli / 2
    add_column(specimen.optical_path, grid, window, low, high, params.nucleoli * inside)
    envelope = np.exp(-(((footprint.distance - footprint.rim) / max(0.12, grid.pixel_um)) ** 2)) * params.membrane
    specimen.optical_path[(grid.slab(float(middle.mean())), *window)] += envelope

    nucleolar = np.minimum(nucleoli / np.maximum(top - bottom, 0.3), 1)
    stain = np.maximum(1 + params.chromatin_contrast * texture, 0.1) * (1 - 0.8 * nucleolar)
    add_column(specimen.density[Organelle.NUCLEUS], grid, window, bottom, top, stain * inside * brightness)

"""Where adherent cells lie, how far they reach and how high they stand: the landscape organelles are put into."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.sample_params import CellType, SampleParams
from simulation.volume import Floats, Grid, Volume, outline, radial_modes, resize, smooth_noise

LANDSCAPE_PIXEL_UM = 0.4  # cell bodies are smooth on this scale, so the landscape may be coarser than the image
BORDER_UM = 12.0  # cells are seeded this far outside the grid, so that some reach in


@dataclass(frozen=True)
class Cell:
    """One adherent cell: its label in the landscape, its nucleus' place (µm), its long axis' direction (rad)."""

    label: int
    y_um: float
    x_um: float
    direction: float
    elongation: float
    room_um: float  # distance from the nucleus' centre to the nearest edge of the cell
    reach_um: float  # … and to the cell's farthest point
    brightness: float  # of its stains, log-normal


@dataclass(frozen=True)
class Landscape:
    """Cell bodies on a coarse grid of ``pixel_um``: labels (0: bare dish), height and distance from the edge in µm."""

    pixel_um: float
    labels: NDArray[np.int32]
    height: Volume
    edge_distance: Volume
    cells: tuple[Cell, ...]

    def at(self, field: NDArray[Any], y_um: Floats, x_um: Floats) -> NDArray[Any]:
        """Values of a landscape field at points; points outside take the nearest border's."""
        rows = np.clip((y_um / self.pixel_um).astype(np.int64), 0, field.shape[0] - 1)
        columns = np.clip((x_um / self.pixel_um).astype(np.int64), 0, field.shape[1] - 1)
        return field[rows, columns]


def draw_landscape(rng: np.random.Generator, params: SampleParams, grid: Grid) -> Landscape:
    """Seed, spread and raise the adherent cells of one field."""
    pixel = max(grid.pixel_um, LANDSCAPE_PIXEL_UM)
    shape = (int(np.ceil(grid.extent_um[0] / pixel)), int(np.ceil(grid.extent_um[1] / pixel)))
    seeds = _seed(rng, params, grid.extent_um)
    labels, directions, elongations = _spread(rng, params, shape, pixel, seeds)
    edge = _edge_distance(params, labels, pixel)
    height = _raise(rng, params, labels, edge, pixel)
    cells = _place_nuclei(rng, params, labels, edge, pixel, seeds, directions, elongations)
    return Landscape(pixel, labels, height, edge, cells)


def _seed(rng: np.random.Generator, params: SampleParams, extent_um: tuple[float, float]) -> Floats:
    """Cell centres (N, 2) in µm: best-candidate spacing inside colonies, which cover ``confluence`` of the dish."""
    if params.confluence == 0:
        return np.zeros((0, 2), np.float32)
    radius = np.sqrt(params.area_um2 / np.pi)
    border = BORDER_UM + radius
    high, wide = extent_um[0] + 2 * border, extent_um[1] + 2 * border
    colony_pixel = 5.0
    colonies = smooth_noise(rng, (int(high / colony_pixel) + 2, int(wide / colony_pixel) + 2), 8.0)
    threshold = np.quantile(colonies, 1 - params.confluence)
    wanted = rng.poisson(params.confluence * high * wide / (params.area_um2 * rng.uniform(0.7, 1.2)))
    seeds = np.zeros((0, 2), np.float32)
    for _ in range(max(1, int(wanted))):
        candidates = (rng.random((10, 2)) * (high, wide)).astype(np.float32)
        cell = (candidates / colony_pixel).astype(np.int64)
        candidates = candidates[colonies[cell[:, 0], cell[:, 1]] >= threshold]
        if not len(candidates):
            continue
        if len(seeds):
            gaps = np.linalg.norm(candidates[:, None] - seeds[None], axis=2).min(axis=1)
            candidates = candidates[[int(gaps.argmax())]]
        seeds = np.concatenate([seeds, candidates[:1]])
    if not len(seeds):
        seeds = (rng.random((1, 2)) * (high, wide)).astype(np.float32)
    # Whoever takes the picture frames a cell: the one nearest the middle is brought into the middle part.
    extent = np.asarray(extent_um, np.float32)
    nearest = seeds[int(np.abs(seeds - border - extent / 2).max(axis=1).argmin())]
    framed: Floats = (seeds - nearest + extent * rng.uniform(0.3, 0.7, 2)).astype(np.float32)
    return framed


def _spread(
    rng: np.random.Generator, params: SampleParams, shape: tuple[int, int], pixel: float, seeds: Floats
) -> tuple[NDArray[np.int32], Floats, Floats]:
    """Labels (Y, X) by competition of star-shaped outlines with protrusions, and each cell's axis."""
    nearest = np.full(shape, np.inf, np.float32)
    labels = np.zeros(shape, np.int32)
    wobble = params.ruggedness * 0.25 * np.sqrt(params.area_um2 / np.pi)
    warp_y, warp_x = (wobble * smooth_noise(rng, shape, 3.5 / pixel) for _ in range(2))
    common = rng.uniform(0, np.pi)
    aligned = rng.random() < 0.4
    directions = (
        common + 0.25 * rng.standard_normal(len(seeds)) if aligned else rng.uniform(0, np.pi, len(seeds))
    ).astype(np.float32)
    elongations = rng.uniform(*params.cells.elongation, len(seeds)).astype(np.float32)
    limit = 1.5 if params.epithelial else 1.0  # epithelial cells spread until they meet a neighbour
    for index, (y, x) in enumerate(seeds):
        radius = np.sqrt(params.area_um2 * rng.lognormal(0, 0.3) / np.pi)
        modes = radial_modes(rng, params.ruggedness, 1.2)
        lobes = int(rng.integers(params.cells.protrusions[0], params.cells.protrusions[1] + 1))
        longest = 1.4 + params.cells.tip_length[1] if params.cells.pointed else 2.6
        reach = limit * radius * (longest if lobes else 1.5) * np.sqrt(elongations[index])
        rows = slice(max(0, int((y - reach) / pixel)), min(shape[0], int((y + reach) / pixel) + 1))
        columns = slice(max(0, int((x - reach) / pixel)), min(shape[1], int((x + reach) / pixel) + 1))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        dy = (np.arange(rows.start, rows.stop, dtype=np.float32) * pixel - y)[:, None] + warp_y[rows, columns]
        dx = (np.arange(columns.start, columns.stop, dtype=np.float32) * pixel - x)[None] + warp_x[rows, columns]
        cos, sin = np.cos(directions[index]), np.sin(directions[index])
        stretch = np.sqrt(elongations[index])
        along, across = (dx * cos + dy * sin) / stretch, (dy * cos - dx * sin) * stretch
        angle = np.arctan2(across, along)
        relative = outline(angle, modes)
        for lobe in range(lobes):
            pole = np.pi * lobe if params.cells.bipolar and lobe < 2 else None
            relative += _protrusion(rng, angle, params.cells, pole)
        score = np.hypot(along, across) / (radius * relative)
        closer = (score < nearest[rows, columns]) & (score < limit)
        nearest[rows, columns][closer] = score[closer]
        labels[rows, columns][closer] = index + 1
    return labels, directions, elongations


def _protrusion(rng: np.random.Generator, angle: Floats, cells: CellType, pole: float | None) -> Floats:
    """What one protrusion adds to the relative radius at each angle (rad): at ``pole``, or in a random direction."""
    bearing = rng.uniform(0, 2 * np.pi) if pole is None else pole + rng.normal(0, 0.15)
    turn = np.angle(np.exp(1j * (angle - bearing))).astype(np.float32)
    length = rng.uniform(*cells.tip_length)
    apart = np.abs(turn) / rng.uniform(*cells.tip_width_rad)
    protrusion: Floats = length * np.exp(-apart if cells.pointed else -(apart**2))
    return protrusion


def _edge_distance(params: SampleParams, labels: NDArray[np.int32], pixel: float) -> Volume:
    """Distance (Y, X) in µm to the nearest place that is another cell's or nobody's; 0 on the bare dish."""
    different = labels == 0
    for axis in (0, 1):
        changes = np.diff(labels, axis=axis) != 0
        ahead = [slice(None), slice(None)]
        ahead[axis] = slice(0, -1)
        different[tuple(ahead)] |= changes
    distance: Volume = (ndimage.distance_transform_edt(~different) * pixel).astype(np.float32)
    return distance


def _raise(
    rng: np.random.Generator, params: SampleParams, labels: NDArray[np.int32], edge: Volume, pixel: float
) -> Volume:
    """Height (Y, X) in µm: a lamella at free edges, saturating inwards; epithelial borders stay high."""
    inside = labels > 0
    peak = rng.uniform(*params.cells.height_um)
    lamella = min(rng.uniform(*params.cells.lamella_um), 0.6 * peak)
    per_cell = rng.lognormal(0, 0.15, int(labels.max()) + 1).astype(np.float32)
    profile = 1 - np.exp(-edge / params.edge_um)
    if params.epithelial:
        to_bare = ndimage.distance_transform_edt(inside).astype(np.float32) * pixel
        profile = np.maximum(profile * 0.35 + 0.6, 0) * (1 - np.exp(-to_bare / params.edge_um))
    shape = (labels.shape[0], labels.shape[1])
    ruffles = 1 + 0.08 * smooth_noise(rng, shape, 1.2 / pixel) + 0.08 * smooth_noise(rng, shape, 5.0 / pixel)
    height = (lamella + (peak - lamella) * profile) * per_cell[labels] * ruffles * inside
    softened = ndimage.gaussian_filter(height, rng.uniform(0.4, 1.6) / pixel)
    raised: Volume = np.maximum(softened, 0).astype(np.float32)
    return raised


def _place_nuclei(
    rng: np.random.Generator,
    params: SampleParams,
    labels: NDArray[np.int32],
    edge: Volume,
    pixel: float,
    seeds: Floats,
    directions: Floats,
    elongations: Floats,
) -> tuple[Cell, ...]:
    """One cell per label with room for a nucleus, which sits near the cell's seed and where the cell is wide."""
    present = np.unique(labels)
    present = present[present > 0]
    if not present.size:
        return ()
    rows, columns = (np.arange(size, dtype=np.float32) * pixel for size in labels.shape)
    own = seeds[labels - 1]  # of the bare dish any, it is not asked
    astray = np.hypot(rows[:, None] - own[..., 0], columns[None] - own[..., 1])
    merit = edge * (1 + 0.15 * smooth_noise(rng, labels.shape, 4.0 / pixel)) - 0.6 * astray
    places = ndimage.maximum_position(merit, labels, present)
    centres = np.zeros((len(seeds), 2), np.float32)
    centres[present - 1] = np.asarray(places, np.float32) * pixel
    centre = centres[labels - 1]
    away = np.hypot(rows[:, None] - centre[..., 0], columns[None] - centre[..., 1])
    reaches = ndimage.maximum(away, labels, present)
    cells = []
    for label, (row, column), reach in zip(present, places, reaches, strict=True):
        cells.append(
            Cell(
                label=int(label),
                y_um=float((row + 0.5) * pixel),
                x_um=float((column + 0.5) * pixel),
                direction=float(directions[label - 1]),
                elongation=float(elongations[label - 1]),
                room_um=float(edge[row, column]),
                reach_um=float(reach),
                brightness=float(rng.lognormal(0, params.stain_spread)),
            )
        )
    return tuple(cells)


def height_on(landscape: Landscape, grid: Grid) -> Volume:
    """The cell bodies' height (Y, X) in µm, on the image's own grid."""
    return np.maximum(resize(landscape.height, grid.shape), 0)

"""What lies on or floats over the adherent cells: round, dividing and dead cells, and debris."""

from dataclasses import dataclass

import numpy as np

from model.labels import Organelle
from simulation.sample_params import SampleParams
from simulation.specimen import Specimen
from simulation.volume import Floats, Grid, Volume, Window, add_column, outline, radial_modes, smooth_noise, spheres

LARGEST_LYMPHOCYTE_UM, SMALLEST_DIVIDING_UM = 4.5, 6.0  # radii of round cells
MOST_ROUND_CELLS, MOST_SPECKS, MOST_DEAD = 700, 2000, 60  # a field
ROUND_CELL_STAIN = {Organelle.MITOCHONDRIA: 0.25, Organelle.TUBULIN: 0.25, Organelle.ACTIN: 0.15}


def draw_round_cells(rng: np.random.Generator, params: SampleParams, specimen: Specimen, height: Volume) -> None:
    """Round cells (lymphocyte-like or mitotic) on the dish or on other cells, alone and in clusters."""
    grid = specimen.grid
    high, wide = grid.extent_um
    count = int(min(rng.poisson(params.round_density * high * wide / 1000), MOST_ROUND_CELLS))
    texture = smooth_noise(rng, grid.shape, 0.35 / grid.pixel_um)
    packed: list[tuple[float, float, float]] = []
    for y, x in _clustered(rng, count, high, wide, params.round_cluster, params.round_radius_um[1]):
        radius = rng.uniform(*params.round_radius_um)
        gap = min((np.hypot(y - py, x - px) - pr for py, px, pr in packed), default=np.inf)
        if gap < 0.8 * radius:  # spheres do not interpenetrate
            continue
        packed.append((y, x, radius))
        ball = _draw_ball(rng, params, grid, height, y, x, radius)
        if ball is not None:
            _fill_ball(rng, params, specimen, texture, ball)


def _clustered(
    rng: np.random.Generator, count: int, high: float, wide: float, clustering: float, radius: float
) -> Floats:
    """Places (N, 2) µm: a share ``clustering`` of them sits beside an earlier one."""
    places = np.zeros((count, 2), np.float32)
    for index in range(count):
        if index and rng.random() < clustering:
            anchor = places[rng.integers(index)]
            bearing = rng.uniform(0, 2 * np.pi)
            places[index] = anchor + 2.1 * radius * np.array([np.sin(bearing), np.cos(bearing)])
        else:
            places[index] = rng.uniform((0, 0), (high, wide))
    return places


@dataclass(frozen=True)
class _Ball:
    """A round cell: its window, offsets from its centre (dy, dx) in µm, height of that, half thickness (Y, X) in µm."""

    window: Window
    dy: Floats
    dx: Floats
    radius_um: float
    centre_um: float
    half: Floats


def _draw_ball(
    rng: np.random.Generator, params: SampleParams, grid: Grid, height: Volume, y: float, x: float, radius: float
) -> _Ball | None:
    window = grid.window(y, x, 1.4 * radius)
    if window is None:
        return None
    dy, dx = grid.offsets(window, y, x)
    modes = radial_modes(rng, rng.uniform(0.01, 0.04), 2.0)
    rim = outline(np.arctan2(*np.broadcast_arrays(dy, dx)), modes) * radius
    half = np.sqrt(np.maximum(rim**2 - np.hypot(dy, dx) ** 2, 0)) * rng.uniform(0.8, 1)
    ground = float(np.median(height[window]))
    return _Ball(window, dy, dx, radius, radius * rng.uniform(0.75, 1.0) + rng.uniform(0.3, 1) * ground, half)


def _fill_ball(
    rng: np.random.Generator, params: SampleParams, specimen: Specimen, texture: Volume, ball: _Ball
) -> None:
    """Add a round cell's cytoplasm, its faint stains, and its nucleus or metaphase plate to the specimen."""

    def add(volume: Volume, half: Floats, value: Floats | float) -> None:
        add_column(volume, specimen.grid, ball.window, ball.centre_um - half, ball.centre_um + half, value)

    grain = texture[ball.window]
    index = params.cytoplasm * rng.uniform(0.9, 1.7)
    add(specimen.optical_path, ball.half, index * (1 + 0.6 * params.granularity * np.clip(grain, -3, 3)))
    for organelle, part in ROUND_CELL_STAIN.items():
        add(specimen.density[organelle], ball.half, part * 0.3 * params.round_stain)
    brightness = params.round_stain * rng.lognormal(0, params.stain_spread)
    if rng.random() < params.mitotic_fraction and ball.radius_um > SMALLEST_DIVIDING_UM:
        core, density, index = _metaphase_plate(rng, ball), 2.5, 0.02
    else:
        core, density, index = _round_nucleus(rng, ball), 1.0, params.nucleoplasm + 0.5 * params.chromatin
    core = np.minimum(core, ball.half).astype(np.float32)
    add(specimen.optical_path, core, index)
    stain = brightness * density * np.maximum(1 + params.chromatin_contrast * grain, 0.2)
    add(specimen.density[Organelle.NUCLEUS], core, stain)


def _metaphase_plate(rng: np.random.Generator, ball: _Ball) -> Floats:
    """Half thickness (Y, X) in µm of condensed chromosomes."""
    turn = rng.uniform(0, np.pi)
    along = ball.dx * np.cos(turn) + ball.dy * np.sin(turn)
    across = ball.dy * np.cos(turn) - ball.dx * np.sin(turn)
    plate = ((along / (0.6 * ball.radius_um)) ** 2 + (across / (0.22 * ball.radius_um)) ** 2) < 1
    return np.where(plate, 0.5 * ball.radius_um, 0.0)


def _round_nucleus(rng: np.random.Generator, ball: _Ball) -> Floats:
    """Half thickness (Y, X) in µm; a lymphocyte's nucleus nearly fills it."""
    share = rng.uniform(0.6, 0.9) if ball.radius_um < LARGEST_LYMPHOCYTE_UM else rng.uniform(0.5, 0.75)
    shift = (1 - share) * ball.radius_um * rng.uniform(-0.7, 0.7, 2)
    squared = (share * ball.radius_um) ** 2 - (ball.dy - shift[0]) ** 2 - (ball.dx - shift[1]) ** 2
    half: Floats = np.sqrt(np.maximum(squared, 0))
    return half


def draw_debris(rng: np.random.Generator, params: SampleParams, specimen: Specimen) -> None:
    """Unlabelled specks on the dish and in the medium, and dead cells as clumps of blebs with bright DNA."""
    grid = specimen.grid
    high, wide = grid.extent_um
    area = high * wide / 1000
    specks = int(min(rng.poisson(params.debris_density * area), MOST_SPECKS))
    y, x = rng.uniform(0, high, specks), rng.uniform(0, wide, specks)
    top = grid.edges_um[-1]
    z = np.where(rng.random(specks) < 0.7, rng.uniform(0, 2, specks), rng.uniform(0, top, specks))
    radius = np.exp(rng.uniform(np.log(0.15), np.log(1.6), specks))
    index = rng.uniform(0.01, 0.05, specks)

    clumps = int(min(rng.poisson(params.dead_density * area), MOST_DEAD))
    blebs: list[tuple[Floats, ...]] = [(z, y, x, radius, index)]
    for _ in range(clumps):
        count = int(rng.integers(5, 40))
        size = rng.uniform(1.5, 5)
        cy, cx = rng.uniform(0, high), rng.uniform(0, wide)
        by, bx = cy + rng.normal(0, size / 2, count), cx + rng.normal(0, size / 2, count)
        bz = np.clip(rng.normal(size, size / 2, count), 0.2, top)
        br = np.exp(rng.uniform(np.log(0.3), np.log(max(0.5, size / 2)), count))
        blebs.append((bz, by, bx, br, rng.uniform(0.015, 0.05, count)))
        if rng.random() < 0.5:
            some = rng.random(count) < 0.3
            glow = spheres(grid, bz[some], by[some], bx[some], br[some], rng.lognormal(0.3, 0.5))
            specimen.density[Organelle.NUCLEUS][:] += glow
    bz, by, bx, br, bi = (np.concatenate(column) for column in zip(*blebs, strict=True))
    specimen.optical_path[:] += spheres(grid, bz, by, bx, br, bi)

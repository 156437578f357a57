"""What lies on or floats over the adherent cells: round, dividing and dead cells, and debris."""

import numpy as np

from model.vocabulary import Organelle
from simulation.culture import Culture
from simulation.specimen import Specimen
from simulation.volume import Floats, add_column, outline, radial_modes, smooth_noise, spheres


def draw_round_cells(rng: np.random.Generator, culture: Culture, specimen: Specimen, height: Floats) -> None:
    """Round cells (lymphocyte-like or mitotic) on the dish or on other cells, alone and in clusters."""
    grid = specimen.grid
    high, wide = grid.extent_um
    count = int(min(rng.poisson(culture.round_density * high * wide / 1000), 400))
    texture = smooth_noise(rng, grid.shape, 0.35 / grid.pixel_um)
    packed: list[tuple[float, float, float]] = []
    for y, x in _clustered(rng, count, high, wide, culture.round_cluster, culture.round_radius_um[1]):
        radius = rng.uniform(*culture.round_radius_um)
        gap = min((np.hypot(y - py, x - px) - pr for py, px, pr in packed), default=np.inf)
        if gap < 0.8 * radius:  # spheres do not interpenetrate
            continue
        packed.append((y, x, radius))
        _draw_sphere(rng, culture, specimen, height, texture, y, x, radius)


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


def _draw_sphere(
    rng: np.random.Generator,
    culture: Culture,
    specimen: Specimen,
    height: Floats,
    texture: Floats,
    y: float,
    x: float,
    radius: float,
) -> None:
    grid = specimen.grid
    window = grid.window(y, x, 1.4 * radius)
    if window is None:
        return
    dy, dx = grid.offsets(window, y, x)
    modes = radial_modes(rng, rng.uniform(0.01, 0.08), 1.5)
    rim = outline(np.arctan2(dy + 0 * dx, dx + 0 * dy), modes) * radius
    distance = np.hypot(dy, dx)
    half = np.sqrt(np.maximum(rim**2 - distance**2, 0)) * rng.uniform(0.7, 1)
    ground = float(np.median(height[window]))
    centre = radius * rng.uniform(0.6, 1.0) + rng.uniform(0, 1) * ground
    index = culture.cytoplasm * rng.uniform(0.8, 1.5)
    lumpy = index * (1 + 0.6 * culture.granularity * np.clip(texture[window], -3, 3))
    add_column(specimen.optical_path, grid, window, centre - half, centre + half, lumpy)
    for organelle in (Organelle.MITOCHONDRIA, Organelle.TUBULIN, Organelle.ACTIN):
        lining = 0.15 if organelle is Organelle.ACTIN else 0.25
        add_column(
            specimen.density[organelle], grid, window, centre - half, centre + half, lining * 0.3 * culture.round_stain
        )
    brightness = culture.round_stain * rng.lognormal(0, culture.stain_spread)
    if rng.random() < culture.mitotic_fraction * 4 and radius > 4.5:
        turn = rng.uniform(0, np.pi)
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        plate = ((along / (0.6 * radius)) ** 2 + (across / (0.22 * radius)) ** 2) < 1
        core, density, bend = np.where(plate, 0.5 * radius, 0.0), 2.5, 0.02
    else:
        share = rng.uniform(0.6, 0.9) if radius < 4.5 else rng.uniform(0.5, 0.75)
        shift = (1 - share) * radius * rng.uniform(-0.7, 0.7, 2)
        core = np.sqrt(np.maximum((share * radius) ** 2 - (dy - shift[0]) ** 2 - (dx - shift[1]) ** 2, 0))
        density, bend = 1.0, culture.nucleoplasm + 0.5 * culture.chromatin
    core = np.minimum(core, half).astype(np.float32)
    grain = np.maximum(1 + culture.chromatin_contrast * texture[window], 0.2)
    add_column(specimen.optical_path, grid, window, centre - core, centre + core, bend)
    add_column(
        specimen.density[Organelle.NUCLEUS], grid, window, centre - core, centre + core, brightness * density * grain
    )


def draw_debris(rng: np.random.Generator, culture: Culture, specimen: Specimen) -> None:
    """Unlabelled specks on the dish and in the medium, and dead cells as clumps of blebs with bright DNA."""
    grid = specimen.grid
    high, wide = grid.extent_um
    area = high * wide / 1000
    specks = int(min(rng.poisson(culture.debris_density * area), 2000))
    y, x = rng.uniform(0, high, specks), rng.uniform(0, wide, specks)
    top = grid.edges_um[-1]
    z = np.where(rng.random(specks) < 0.7, rng.uniform(0, 2, specks), rng.uniform(0, top, specks))
    radius = np.exp(rng.uniform(np.log(0.15), np.log(1.0), specks))
    index = rng.uniform(0.01, 0.08, specks)

    clumps = int(min(rng.poisson(culture.dead_density * area), 60))
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
            glow = spheres(grid, bz[some], by[some], bx[some], br[some], rng.lognormal(0.3, 0.5) * culture.round_stain)
            specimen.density[Organelle.NUCLEUS][:] += glow
    bz, by, bx, br, bi = (np.concatenate(column) for column in zip(*blebs, strict=True))
    specimen.optical_path[:] += spheres(grid, bz, by, bx, br, bi)

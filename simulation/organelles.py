"""What surrounds the nuclei: drawn into the specimen as optical path and, where it is a target, as fluorophore.

Optical path is (n − n_surroundings) × thickness in µm; fluorophore density is relative, per µm.
"""

from collections.abc import Sequence

import numpy as np

from model.labels import Organelle
from simulation.cells import Landscape
from simulation.sample_params import SampleParams
from simulation.specimen import Specimen
from simulation.volume import Floats, Volume, add_column, blur, resize, scatter, smooth_noise, spheres

TUBULIN_WALL_AREA_UM2 = 1.9e-4  # cross-section of the protein wall of a 25 nm microtubule
TUBULIN_WALL_INDEX = 0.12
LONGEST_MICROTUBULE = 1.25  # of the way to the cell's farthest point, since they bend
STEP_UM = 0.2  # spacing of points along tubes
DROPLET_RADIUS_UM = (0.15, 0.8)
MOST_GRANULES = 4000  # of a kind in one cell


def draw_cytoplasm(
    rng: np.random.Generator, params: SampleParams, specimen: Specimen, height: Volume, nuclei: Volume
) -> None:
    """Fill the cell bodies (``height`` (Y, X) µm) with cytoplasm, granular outside the nuclei, and diffuse stain."""
    grid = specimen.grid
    fine, coarse = rng.uniform(0.2, 0.5), rng.uniform(0.6, 1.6)
    texture = 0.6 * smooth_noise(rng, grid.shape, max(fine / grid.pixel_um, 0.6))
    texture = texture + 0.8 * smooth_noise(rng, grid.shape, coarse / grid.pixel_um)
    density = 1 + params.granularity * np.clip(texture, -3, 3) * (1 - 0.75 * nuclei)
    bottom = np.zeros_like(height)
    add_column(specimen.optical_path, grid, grid.everywhere, bottom, height, params.cytoplasm * density)
    for organelle, part in params.diffuse.items():
        add_column(specimen.density[organelle], grid, grid.everywhere, bottom, height, 0.1 * part * density)


def exclude_nuclei(specimen: Specimen, mask: Volume, factor: float, organelles: Sequence[Organelle]) -> None:
    """Take the diffuse part of cytoplasmic stains out of the nuclei (mask (Y, X) in [0, 1]) by ``factor``."""
    for organelle in organelles:
        specimen.density[organelle] *= 1 - factor * mask


def draw_mitochondria(
    rng: np.random.Generator, params: SampleParams, specimen: Specimen, landscape: Landscape, nuclei: Volume
) -> None:
    """Tubes of random persistence around the nuclei, kept out of them and of the cell's outer rim."""
    grid = specimen.grid
    area = np.pi / 4 * params.mitochondria_diameter_um**2
    steps = max(4, int(params.mitochondria_length_um / STEP_UM))
    parts: list[tuple[Floats, ...]] = []
    for cell in landscape.cells:
        spread = min(params.mitochondria_reach_um, cell.room_um)
        extent = params.nucleus_radius_um + spread
        volume = np.pi * (extent**2 - 0.5 * params.nucleus_radius_um**2) * 0.5 * params.cells.height_um[0]
        tubes = int(np.clip(params.mitochondria_fraction * volume / (area * steps * STEP_UM), 8, 400))
        bearing = rng.uniform(0, 2 * np.pi, tubes)
        start = 0.6 * params.nucleus_radius_um + rng.gamma(2.0, spread / 2, tubes)
        y0, x0 = cell.y_um + start * np.sin(bearing), cell.x_um + start * np.cos(bearing)
        y, x = _worms(rng, y0, x0, bearing + rng.normal(0, 1.2, tubes), steps, STEP_UM, 2.5)
        own = (landscape.at(landscape.labels, y, x) == cell.label) & (
            landscape.at(landscape.edge_distance, y, x) > 0.12 * cell.room_um
        )
        tall = landscape.at(landscape.height, y, x)
        z = np.broadcast_to(rng.uniform(0.2, 0.8, (tubes, 1)), y.shape) * tall
        weight = own * (1.0 - _nuclear(nuclei, grid.pixel_um, y, x)) * area * STEP_UM / grid.pixel_um**2
        parts.append((z, y, x, weight, weight * cell.brightness * rng.lognormal(0, 0.3, (tubes, 1))))
    _deposit_tubes(specimen, parts, params.mitochondria, params.mitochondria_diameter_um / 4, Organelle.MITOCHONDRIA)


def draw_microtubules(
    rng: np.random.Generator, params: SampleParams, specimen: Specimen, landscape: Landscape, nuclei: Volume
) -> None:
    """Filaments from the centrosome beside the nucleus to the cell's edge (apparent persistence about 30 µm)."""
    grid = specimen.grid
    parts: list[tuple[Floats, ...]] = []
    for cell in landscape.cells:
        count = params.microtubules
        side = rng.uniform(0, 2 * np.pi)
        away = rng.uniform(0.7, 1.05) * min(params.nucleus_radius_um, cell.room_um)
        y0 = cell.y_um + away * np.sin(side) + rng.normal(0, 0.4, count)
        x0 = cell.x_um + away * np.cos(side) + rng.normal(0, 0.4, count)
        bearing = rng.uniform(0, 2 * np.pi, count)
        steps = max(16, int(LONGEST_MICROTUBULE * cell.reach_um / STEP_UM))
        y, x = _worms(rng, y0, x0, bearing, steps, STEP_UM, 30.0)
        own = landscape.at(landscape.labels, y, x) == cell.label
        along = np.arange(y.shape[1])[None] / y.shape[1]
        begin = np.maximum(rng.uniform(-0.3, 0.45, (count, 1)), 0)  # many are released from the centrosome
        own = np.logical_and.accumulate(own, axis=1) & (along >= begin) & (along < rng.uniform(0.5, 1, (count, 1)))
        tall = landscape.at(landscape.height, y, x)
        z = np.broadcast_to(rng.uniform(0.15, 0.7, (count, 1)), y.shape) * tall
        over = 1.0 - 0.5 * _nuclear(nuclei, grid.pixel_um, y, x)  # fewer run above or below the nucleus
        weight = own * over * STEP_UM / grid.pixel_um**2
        parts.append((z, y, x, weight * TUBULIN_WALL_AREA_UM2, weight * 0.05 * cell.brightness))
    _deposit_tubes(specimen, parts, TUBULIN_WALL_INDEX, 0.05, Organelle.TUBULIN)


def draw_actin(
    rng: np.random.Generator, params: SampleParams, specimen: Specimen, landscape: Landscape, height: Volume
) -> None:
    """Stress fibres along the cell's axis near the coverslip, and the cortex at its border."""
    grid = specimen.grid
    area = np.pi / 4 * params.fibre_diameter_um**2
    parts: list[tuple[Floats, ...]] = []
    for cell in landscape.cells:
        reach = np.sqrt(params.area_um2 / np.pi)
        count = int(rng.poisson(params.fibres_per_cell)) + 1
        length = rng.uniform(0.4, 1.6, count) * reach * np.sqrt(cell.elongation)
        steps = max(8, int(length.max() / STEP_UM))
        across = rng.uniform(-0.9, 0.9, count) * reach / np.sqrt(cell.elongation)
        along = rng.normal(0, 0.3, count) * reach
        cos, sin = np.cos(cell.direction), np.sin(cell.direction)
        y0 = cell.y_um + across * cos + (along - length / 2) * sin
        x0 = cell.x_um - across * sin + (along - length / 2) * cos
        y, x = _worms(rng, y0, x0, cell.direction + rng.normal(0, 0.12, count), steps, STEP_UM, 150.0)
        own = landscape.at(landscape.labels, y, x) == cell.label
        own &= np.arange(steps)[None] < (length / STEP_UM)[:, None]
        z = np.full(y.shape, 0.3, np.float32)
        strength = rng.lognormal(0, 0.4, (count, 1))
        weight = own * strength * area * STEP_UM / grid.pixel_um**2
        parts.append((z, y, x, weight, weight * cell.brightness))
    _deposit_tubes(specimen, parts, params.fibres, params.fibre_diameter_um / 4, Organelle.ACTIN)

    width = rng.uniform(0.25, 0.6)
    rim = np.exp(-landscape.edge_distance / width) * (landscape.labels > 0)
    cortex = resize(rim, grid.shape) * params.cortex
    add_column(specimen.density[Organelle.ACTIN], grid, grid.everywhere, np.zeros_like(height), height, 0.25 * cortex)
    low, high = 0.2 * height, 0.8 * height
    index = 0.3 * params.membrane + 0.5 * params.fibres  # the cortex is a looser mesh of what the fibres are made of
    add_column(specimen.optical_path, grid, grid.everywhere, low, high, index * np.minimum(cortex, 2))


def draw_granules(
    rng: np.random.Generator, params: SampleParams, specimen: Specimen, landscape: Landscape, nuclei: Volume
) -> None:
    """Vesicles and lipid droplets, thick around the nucleus: they carry no label, but most of the contrast."""
    parts: list[tuple[Floats, ...]] = []
    for cell in landscape.cells:
        reach = params.vesicle_reach_um * rng.lognormal(0, 0.3)
        extent = params.nucleus_radius_um + reach
        density = params.vesicle_density * rng.lognormal(0, 0.5)
        kinds = (
            (density * np.pi * extent**2, params.vesicle_radius_um, params.vesicles),
            (params.droplets_per_cell, DROPLET_RADIUS_UM, params.droplets),
        )
        for mean, (smallest, largest), index in kinds:
            count = int(min(rng.poisson(mean), MOST_GRANULES))
            if not count:
                continue
            bearing = rng.uniform(0, 2 * np.pi, count)
            far = rng.random(count) < 0.15  # some wander through the whole cell
            start = 0.5 * params.nucleus_radius_um + rng.gamma(2.0, reach / 2, count) * np.where(far, 3, 1)
            y, x = cell.y_um + start * np.sin(bearing), cell.x_um + start * np.cos(bearing)
            own = landscape.at(landscape.labels, y, x) == cell.label
            own &= rng.random(count) > 0.9 * _nuclear(nuclei, specimen.grid.pixel_um, y, x)
            tall = landscape.at(landscape.height, y, x)
            z = rng.uniform(0.15, 0.85, count) * tall
            radius = np.exp(rng.uniform(np.log(smallest), np.log(max(largest, smallest * 1.01)), count))
            radius = np.minimum(radius, 0.5 * tall + 0.1)
            indices = index * rng.lognormal(0, 0.3, count)
            parts.append((z[own], y[own], x[own], radius[own], indices[own]))
    if parts:
        specimen.optical_path[:] += spheres(
            specimen.grid, *(np.concatenate(column) for column in zip(*parts, strict=True))
        )


def _nuclear(nuclei: Volume, pixel_um: float, y: Floats, x: Floats) -> Floats:
    rows = np.clip((y / pixel_um).astype(np.int64), 0, nuclei.shape[0] - 1)
    columns = np.clip((x / pixel_um).astype(np.int64), 0, nuclei.shape[1] - 1)
    return nuclei[rows, columns]


def _worms(
    rng: np.random.Generator, y: Floats, x: Floats, heading: Floats, steps: int, step_um: float, persistence_um: float
) -> tuple[Floats, Floats]:
    """Worm-like chains from (y, x): points (N, steps) whose heading loses memory over ``persistence_um``."""
    turns = rng.normal(0, np.sqrt(2 * step_um / persistence_um), (y.size, steps))
    course = heading[:, None] + np.cumsum(turns, axis=1)
    return (
        y[:, None] + step_um * np.cumsum(np.sin(course), axis=1),
        x[:, None] + step_um * np.cumsum(np.cos(course), axis=1),
    )


def _deposit_tubes(
    specimen: Specimen, parts: list[tuple[Floats, ...]], index: float, sigma_um: float, organelle: Organelle
) -> None:
    if not parts:
        return
    z, y, x, volume, signal = (
        np.concatenate([field.ravel() for field in column]) for column in zip(*parts, strict=True)
    )
    pixel = specimen.grid.pixel_um
    specimen.optical_path[:] += index * blur(scatter(specimen.grid, z, y, x, volume), sigma_um, pixel)
    specimen.density[organelle][:] += blur(scatter(specimen.grid, z, y, x, signal), sigma_um, pixel)

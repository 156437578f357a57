"""Grow one field of cells: the parts in the order in which they make room for each other."""

import numpy as np

from model.labels import Organelle
from simulation.cells import draw_landscape, height_on
from simulation.nuclei import draw_nuclei
from simulation.organelles import (
    draw_actin,
    draw_cytoplasm,
    draw_granules,
    draw_microtubules,
    draw_mitochondria,
    exclude_nuclei,
)
from simulation.round_cells_and_debris import draw_debris, draw_round_cells
from simulation.sample_params import SampleParams
from simulation.specimen import Specimen
from simulation.volume import Grid

SLABS = 6


def grow(
    rng: np.random.Generator, params: SampleParams, shape: tuple[int, int], pixel_um: float, slabs: int = SLABS
) -> Specimen:
    """Draw a field of ``shape`` (Y, X) pixels of one study's sample, cut into ``slabs``."""
    top = max(1.4 * params.cells.height_um[1], 2.3 * params.round_radius_um[1])
    # slabs thicken upwards: most of what is small lies near the coverslip
    edges = tuple(float(top * part**1.4) for part in np.linspace(0, 1, slabs + 1))
    grid = Grid(shape, pixel_um, edges)
    specimen = Specimen.empty(grid)
    landscape = draw_landscape(rng, params, grid)
    height = height_on(landscape, grid)
    nuclei = draw_nuclei(rng, params, specimen, landscape.cells, height)
    draw_cytoplasm(rng, params, specimen, height, nuclei)
    exclude_nuclei(specimen, nuclei, 0.85, (Organelle.MITOCHONDRIA, Organelle.TUBULIN, Organelle.ACTIN))
    draw_mitochondria(rng, params, specimen, landscape, nuclei)
    draw_microtubules(rng, params, specimen, landscape, nuclei)
    draw_actin(rng, params, specimen, landscape, height)
    draw_granules(rng, params, specimen, landscape, nuclei)
    draw_round_cells(rng, params, specimen, height)
    draw_debris(rng, params, specimen)
    return specimen

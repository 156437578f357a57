"""The simulated specimen: strokes conserve volume, parts lie where cells keep them, indices come in the right order."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from model.labels import Organelle
from simulation.cells import Landscape, draw_landscape, height_on
from simulation.field import grow
from simulation.nuclei import draw_nuclei
from simulation.organelles import draw_cytoplasm, draw_granules, draw_microtubules, draw_mitochondria, exclude_nuclei
from simulation.round_cells_and_debris import draw_debris, draw_round_cells
from simulation.sample_params import CELL_TYPES, SampleParams, draw_sample_params
from simulation.specimen import Specimen
from simulation.volume import (
    Grid,
    Volume,
    add_column,
    blur,
    outline,
    radial_modes,
    resize,
    scatter,
    smooth_noise,
    spheres,
)

GRID = Grid((96, 120), 0.25, (0.0, 1.0, 2.5, 5.0, 9.0))


def culture(seed: int = 0, **changes: object) -> SampleParams:
    return replace(draw_sample_params(np.random.default_rng(seed)), **changes)


def landscape(seed: int = 0, **changes: object) -> tuple[np.random.Generator, SampleParams, Landscape, Volume]:
    drawn = culture(seed, cells=CELL_TYPES["MCF-7"], area_um2=300.0, confluence=1.0, **changes)
    rng = np.random.default_rng(seed)
    cells = draw_landscape(rng, drawn, GRID)
    return rng, drawn, cells, height_on(cells, GRID)


# --- strokes -------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(bottom=st.floats(-2, 10), thickness=st.floats(0, 12))
def test_a_column_is_shared_among_slabs_without_loss(bottom: float, thickness: float) -> None:
    volume, window = GRID.empty(), (slice(3, 5), slice(7, 10))
    low = np.full((2, 3), bottom)
    add_column(volume, GRID, window, low, low + thickness, 0.5)
    within = max(0.0, min(bottom + thickness, 9.0) - max(bottom, 0.0))
    assert volume[:, 3:5, 7:10].sum(axis=0) == pytest.approx(0.5 * within, abs=1e-5)
    assert volume.sum() == pytest.approx(6 * 0.5 * within, abs=1e-4)
    for slab, (lower, upper) in enumerate(zip(GRID.edges_um[:-1], GRID.edges_um[1:], strict=True)):
        assert volume[slab].max() <= 0.5 * (upper - lower) + 1e-6


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_scatter_keeps_the_weight_and_its_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, y, x = rng.uniform(0, 9, 50), rng.uniform(1, 22, 50), rng.uniform(1, 28, 50)
    weight = rng.uniform(0.1, 1, 50)
    volume = scatter(GRID, z, y, x, weight)
    assert volume.sum() == pytest.approx(weight.sum(), rel=1e-5)
    rows, columns = (np.arange(size) * 0.25 + 0.125 for size in GRID.shape)
    assert (volume.sum(axis=(0, 2)) * rows).sum() == pytest.approx((weight * y).sum(), rel=1e-4)
    assert (volume.sum(axis=(0, 1)) * columns).sum() == pytest.approx((weight * x).sum(), rel=1e-4)
    for slab, (low, high) in enumerate(zip(GRID.edges_um[:-1], GRID.edges_um[1:], strict=True)):
        assert volume[slab].sum() == pytest.approx(weight[(z >= low) & (z < high)].sum(), rel=1e-4, abs=1e-6)


def test_points_outside_are_left_out() -> None:
    outside = np.array([-1.0, 500.0])
    assert not scatter(GRID, np.ones(2), outside, np.full(2, 5.0), np.ones(2)).any()
    assert GRID.window(-50.0, 5.0, 3.0) is None


def test_blur_conserves_volume_and_has_the_stated_width() -> None:
    volume = scatter(GRID, np.array([3.0]), np.array([12.125]), np.array([15.125]), np.array([2.0]))
    widened = blur(volume.copy(), 1.0, GRID.pixel_um)
    assert widened.sum() == pytest.approx(2.0, rel=1e-4)
    rows = (np.arange(96) + 0.5) * 0.25 - 12.125
    assert np.sqrt((widened.sum(axis=(0, 2)) * rows**2).sum() / 2) == pytest.approx(1.0, rel=0.03)
    assert not widened[[0, 1, 3]].any()


def test_optical_path_of_spheres_is_volume_times_index() -> None:
    radius = np.array([0.12, 0.3, 0.31, 0.9, 2.0])
    index = np.array([0.02, 0.05, 0.01, 0.09, 0.03])
    place = np.full(5, 12.0)
    drawn = spheres(GRID, np.full(5, 3.0), place, place, radius, index)
    expected = (index * 4 / 3 * np.pi * radius**3).sum()
    assert drawn.sum() * GRID.pixel_um**2 == pytest.approx(expected, rel=1e-3)
    assert not spheres(GRID, *(np.zeros(0) for _ in range(4)), 1.0).any()


def test_a_sphere_is_as_wide_as_a_solid_one() -> None:
    middle = np.array([12.125])
    profile = spheres(GRID, np.array([3.0]), middle, middle, np.array([2.0]), 1.0).sum(axis=(0, 2))
    rows = (np.arange(96) + 0.5) * GRID.pixel_um - 12.125
    assert (profile * rows**2).sum() / profile.sum() == pytest.approx(2.0**2 / 5, rel=0.05)


@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 70), columns=st.integers(1, 70), sigma=st.floats(0.5, 20))
def test_noise_fills_any_shape_with_zero_mean(rows: int, columns: int, sigma: float) -> None:
    field = smooth_noise(np.random.default_rng(0), (rows, columns), sigma)
    assert field.shape == (rows, columns)
    assert np.isfinite(field).all()
    assert abs(float(field.mean())) < 1e-3


def test_outlines_stay_open_and_as_rough_as_asked() -> None:
    modes = radial_modes(np.random.default_rng(0), 0.1, 2.0)
    angle = np.linspace(-np.pi, np.pi, 721)[:-1]
    assert outline(angle, modes).std() == pytest.approx(0.1, rel=0.01)
    assert outline(angle, radial_modes(np.random.default_rng(0), 5.0, 2.0)).min() >= 0.2


# --- cells ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_cells_stand_on_their_labels(seed: int) -> None:
    _, drawn, cells, _ = landscape(seed)
    assert cells.cells
    assert (cells.edge_distance[cells.labels == 0] == 0).all()
    assert (cells.height >= 0).all()
    assert cells.height.max() < 2.5 * drawn.cells.height_um[1]
    for cell in cells.cells:
        assert cells.at(cells.labels, np.array([cell.y_um]), np.array([cell.x_um]))[0] == cell.label


@pytest.mark.parametrize("seed", range(3))
def test_nuclei_lie_inside_cells(seed: int) -> None:
    rng, drawn, cells, height = landscape(seed)
    specimen = Specimen.empty(GRID)
    mask = draw_nuclei(rng, drawn, specimen, cells.cells, height)
    assert mask.min() >= 0
    assert mask.max() == 1
    stain = specimen.density[Organelle.NUCLEUS]
    assert not stain.sum(axis=0)[mask == 0].any()
    occupied = np.stack([np.clip(height - low, 0, None) for low in GRID.edges_um[:-1]])
    assert not stain[occupied == 0].any(), "a nucleus sticks out of its cell's roof"
    labels = cells.at(cells.labels, *np.meshgrid(*(np.arange(n) * 0.25 + 0.125 for n in GRID.shape), indexing="ij"))
    assert (labels[mask > 0.5] > 0).mean() > 0.97


def test_mitochondria_keep_out_of_nuclei_and_stay_in_cells() -> None:
    rng, drawn, cells, height = landscape(1)
    specimen = Specimen.empty(GRID)
    mask = draw_nuclei(rng, drawn, specimen, cells.cells, height)
    draw_mitochondria(rng, drawn, specimen, cells, mask)
    signal = specimen.density[Organelle.MITOCHONDRIA].sum(axis=0)
    assert signal.sum() > 0
    assert signal[mask > 0.95].mean() < 0.15 * signal[mask < 0.05].mean()
    bare = height == 0
    assert signal[bare].sum() < 0.02 * signal.sum()


@pytest.mark.parametrize("seed", range(3))
def test_microtubules_fill_their_cell_to_its_edge(seed: int) -> None:
    rng, drawn, cells, _ = landscape(seed, epithelial=True, microtubules=120)  # a sheet, its cells spread wide
    specimen = Specimen.empty(GRID)
    draw_microtubules(rng, drawn, specimen, cells, np.zeros(GRID.shape, np.float32))
    signal = specimen.density[Organelle.TUBULIN].sum(axis=0)
    edge = resize(cells.edge_distance, GRID.shape)
    rim, middle = (edge > 0.5) & (edge < 2), edge > 4
    assert (signal[rim] > 0).mean() > 0.5
    assert signal[rim].mean() < signal[middle].mean(), "they run apart"
    assert signal[resize((cells.labels > 0).astype(np.float32), GRID.shape) < 0.01].sum() < 0.02 * signal.sum()


def test_filaments_are_drawn_without_gaps() -> None:
    grid = Grid((400, 400), 0.06, (0.0, 4.0))
    drawn = culture(0, cells=CELL_TYPES["U2OS"], area_um2=3000.0, microtubules=1)
    rng = np.random.default_rng(0)
    specimen, cells = Specimen.empty(grid), draw_landscape(rng, drawn, grid)
    draw_microtubules(rng, drawn, specimen, cells, np.zeros(grid.shape, np.float32))
    signal = blur(specimen.density[Organelle.TUBULIN], 0.1, grid.pixel_um)[0]  # as the finest objective shows it
    ridge = signal > 0.5 * signal.max()
    assert ridge.sum() > 300
    assert ndimage.label(ridge, np.ones((3, 3)))[1] <= len(cells.cells), "one piece each, no row of dots"


def test_diffuse_stain_is_hollow_where_nuclei_are() -> None:
    rng, drawn, _, _ = landscape()
    specimen, height = Specimen.empty(GRID), np.full(GRID.shape, 4.0, np.float32)
    nuclei = np.zeros(GRID.shape, np.float32)
    nuclei[20:40, 20:40] = 1
    draw_cytoplasm(rng, drawn, specimen, height, nuclei)
    exclude_nuclei(specimen, nuclei, 0.85, (Organelle.TUBULIN,))
    tubulin, actin = (specimen.density[organelle].sum(axis=0) for organelle in (Organelle.TUBULIN, Organelle.ACTIN))
    assert (tubulin / actin)[nuclei == 1].mean() == pytest.approx(
        0.15 * (tubulin / actin)[nuclei == 0].mean(), rel=1e-3
    )


# --- refractive indices --------------------------------------------------------------------------------------------


def test_cytoplasm_has_the_index_of_its_culture() -> None:
    rng, drawn, _, _ = landscape(granularity=0.0)
    specimen, height = Specimen.empty(GRID), np.full(GRID.shape, 5.0, np.float32)
    draw_cytoplasm(rng, drawn, specimen, height, np.zeros(GRID.shape, np.float32))
    assert specimen.optical_path.sum(axis=0) == pytest.approx(5.0 * drawn.cytoplasm, rel=1e-4)


def test_nucleoplasm_and_nucleoli_differ_as_their_culture_says() -> None:
    changes = {"chromatin": 0.0, "membrane": 0.0, "nucleoplasm": -0.006, "nucleoli": 0.03, "chromatin_contrast": 0.0}
    without = replace(CELL_TYPES["MCF-7"], nucleoli=0.0)
    rng, drawn, cells, height = landscape(2, **changes)
    specimen = Specimen.empty(GRID)
    draw_nuclei(rng, replace(drawn, cells=without), specimen, cells.cells, height.copy())
    stain = specimen.density[Organelle.NUCLEUS].sum(axis=0)
    assert specimen.optical_path.max() <= 0
    assert specimen.optical_path.sum() / stain.sum() == pytest.approx(-0.006, rel=0.5)  # stains vary between cells
    rng, _, cells, height = landscape(2, **changes)
    with_nucleoli = Specimen.empty(GRID)
    draw_nuclei(rng, replace(drawn, cells=replace(without, nucleoli=4.0)), with_nucleoli, cells.cells, height)
    path = with_nucleoli.optical_path.sum(axis=0)
    assert path.max() > 0.005, "nucleoli stand out of the nucleoplasm"
    bright = path > 0.005
    nuclear = with_nucleoli.density[Organelle.NUCLEUS].sum(axis=0)
    assert nuclear[bright].mean() < np.median(nuclear[(path < 0) & (nuclear > 0)]), "and are dark in DNA stains"


@pytest.mark.parametrize("seed", range(40))
def test_refractive_indices_come_in_the_order_of_the_literature(seed: int) -> None:
    for low in (False, True):
        drawn = draw_sample_params(np.random.default_rng(seed), low_magnification=low)
        cytoplasm = drawn.medium + drawn.cytoplasm
        assert 1.335 <= drawn.medium <= 1.338
        assert 1.350 <= cytoplasm <= 1.370
        assert drawn.medium < cytoplasm + drawn.nucleoplasm
        nucleolus = cytoplasm + drawn.nucleoplasm + drawn.nucleoli
        assert cytoplasm < nucleolus < 1.41
        # at 20x sheets are drawn smoother than the literature's range, see draw_sample_params
        assert (1.354 if low else 1.36) <= cytoplasm + drawn.mitochondria <= 1.42
        droplet = cytoplasm + drawn.droplets
        assert max(nucleolus, cytoplasm + drawn.mitochondria) < droplet <= 1.48


def test_granules_carry_contrast_but_no_label() -> None:
    rng, drawn, cells, _ = landscape(0, vesicle_density=0.3, droplets_per_cell=5.0)
    specimen = Specimen.empty(GRID)
    draw_granules(rng, drawn, specimen, cells, np.zeros(GRID.shape, np.float32))
    assert specimen.optical_path.sum() > 0
    assert not any(density.any() for density in specimen.density.values())


# --- what lies over the cells --------------------------------------------------------------------------------------


def test_round_cells_are_nearly_spheres_of_their_index() -> None:
    drawn = culture(0, round_density=4.0, round_radius_um=(3.0, 3.001), round_cluster=0.0, granularity=0.0)
    drawn = replace(drawn, nucleoplasm=0.0, chromatin=0.0, mitotic_fraction=0.0)
    specimen = Specimen.empty(GRID)
    draw_round_cells(np.random.default_rng(4), drawn, specimen, np.zeros(GRID.shape, np.float32))
    path = specimen.optical_path.sum(axis=0)
    # no cell is thicker than its diameter, or denser than 1.5 times cytoplasm (rims may overlap a little)
    assert 0 < path.max() <= 1.5 * drawn.cytoplasm * 6.0 * 1.3
    assert specimen.density[Organelle.NUCLEUS].any()


def test_crowds_of_round_cells_do_not_interpenetrate() -> None:
    sparse, dense = (
        culture(0, round_density=density, round_radius_um=(3.0, 3.1), round_cluster=1.0, mitotic_fraction=0.0)
        for density in (5.0, 500.0)
    )
    covered = []
    for drawn in (sparse, dense):
        specimen = Specimen.empty(GRID)
        draw_round_cells(np.random.default_rng(1), drawn, specimen, np.zeros(GRID.shape, np.float32))
        covered.append(specimen.optical_path.sum(axis=0).max())
    assert covered[1] < 3 * covered[0]


def test_lymphocytes_at_low_magnification_are_dimmer_than_the_cells_they_lie_on() -> None:
    stains = [
        draw_sample_params(np.random.default_rng(seed), low_magnification=True).round_stain for seed in range(200)
    ]
    assert max(stains) > 0.5, "a few are not, for variety"
    assert np.mean(np.array(stains) <= 0.4) > 0.8


def test_dead_cells_are_bright_however_dim_the_round_ones() -> None:
    densities = []
    for stain in (0.03, 1.0):
        specimen = Specimen.empty(GRID)
        drawn = culture(0, debris_density=0.0, dead_density=20.0, round_stain=stain)
        draw_debris(np.random.default_rng(0), drawn, specimen)
        densities.append(specimen.density[Organelle.NUCLEUS].sum())
    assert densities[0] == densities[1] > 0


def test_debris_has_no_label_but_dead_cells_have_dna() -> None:
    debris, dead = Specimen.empty(GRID), Specimen.empty(GRID)
    draw_debris(np.random.default_rng(0), culture(0, debris_density=30.0, dead_density=0.0), debris)
    assert debris.optical_path.any()
    assert not any(density.any() for density in debris.density.values())
    draw_debris(np.random.default_rng(0), culture(0, debris_density=0.0, dead_density=20.0), dead)
    assert dead.density[Organelle.NUCLEUS].any()
    assert not dead.density[Organelle.ACTIN].any()


# --- whole fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELL_TYPES)
@pytest.mark.parametrize("shape", [(61, 90), (130, 40)])
def test_fields_of_every_cell_are_finite_and_their_stains_non_negative(name: str, shape: tuple[int, int]) -> None:
    drawn = replace(draw_sample_params(np.random.default_rng(1)), cells=CELL_TYPES[name])
    specimen = grow(np.random.default_rng(2), drawn, shape, 0.2)
    assert specimen.optical_path.shape[1:] == shape
    assert specimen.optical_path.dtype == np.float32
    assert np.isfinite(specimen.optical_path).all()
    assert specimen.optical_path.sum() > 0, "cells are denser than the medium"
    assert set(specimen.density) == set(Organelle)
    for density in specimen.density.values():
        assert density.shape == specimen.optical_path.shape
        assert np.isfinite(density).all()
        assert density.min() >= 0
        assert density.any()


def test_the_same_seed_grows_the_same_field_and_another_one_another() -> None:
    drawn = culture(3)
    one, two, other = (grow(np.random.default_rng(seed), drawn, (50, 60), 0.2) for seed in (1, 1, 2))
    assert one.optical_path.tobytes() == two.optical_path.tobytes()
    assert one.optical_path.tobytes() != other.optical_path.tobytes()
    for organelle in Organelle:
        assert one.density[organelle].tobytes() == two.density[organelle].tobytes()

"""Ordinary cultures under ordinary microscopes: any adherent cell, any magnification from 10x to 100x, any camera.

Where the settings "challenge" and "low" follow two kinds of data sets, this one is meant to hold what a user may
bring: single cells to closed sheets; spindle, stellate, polygonal, spread and round shapes; thin to thick; few round
cells, crowds as one case in eight; positive and negative phase contrast; noisy cameras, 8-bit exports, scratches,
steep gradients and the black corners of a round field stop. Ranges are priors, chosen by eye on one half of the real
images that docs/simulation.md names, and wide on purpose (domain randomisation).
"""

from dataclasses import dataclass, replace

import numpy as np

from model.labels import Modality
from simulation.camera import Camera, FieldStop, Scratch, draw_camera
from simulation.microscope import Microscope, draw_microscope, sampled
from simulation.sample_params import CellType, SampleParams, draw_sample_params

ORDINARY_CELLS = {
    "spindle": CellType(
        (300, 2200),
        (3, 7),
        (0.1, 0.8),
        (4.5, 8),
        (2.5, 6),
        (1.6, 4.5),
        (2, 3),
        0,
        3,
        (0.4, 1.6),
        (0.1, 0.3),
        True,
        True,
    ),
    "stellate": CellType(
        (400, 2500), (3, 7), (0.1, 0.8), (4.5, 9), (1.5, 5), (1, 2.2), (2, 6), 0, 3, (0.3, 2.2), (0.08, 0.3), True
    ),
    "polygonal": CellType(
        (400, 2500), (3, 7), (0.2, 1.5), (5, 9), (1.5, 5.5), (1, 2), (3, 5), 0.2, 3.5, (0.25, 0.9), (0.2, 0.6), True
    ),
    "spread": CellType((1500, 6000), (2.5, 5), (0.1, 0.6), (6, 11), (2, 5), (1, 1.8), (0, 4), 0.1, 3),
    "epithelial": CellType((150, 900), (4, 10), (0.5, 3), (4.5, 8), (3, 7), (1, 1.5), (0, 1), 0.9, 2.5),
    "loose": CellType((100, 400), (5, 10), (0.5, 2), (3.5, 6), (3.5, 7), (1, 1.5), (0, 3), 0, 2, (0.2, 0.9)),
}
CELL_SHARES = {"spindle": 0.25, "stellate": 0.17, "polygonal": 0.2, "spread": 0.12, "epithelial": 0.16, "loose": 0.1}

CROWDED = 0.12  # share of studies under a crowd of round cells


@dataclass(frozen=True)
class Objective:
    """A class of objectives: share of studies, numerical apertures, camera pixels in the specimen (µm)."""

    share: float
    numerical_aperture: tuple[float, float]
    pixel_um: tuple[float, float]


OBJECTIVES = (
    Objective(0.15, (0.25, 0.45), (0.35, 0.70)),  # 10x
    Objective(0.50, (0.35, 0.75), (0.20, 0.50)),  # 20x
    Objective(0.20, (0.55, 1.30), (0.10, 0.25)),  # 40x
    Objective(0.15, (0.90, 1.43), (0.06, 0.13)),  # 60x to 100x
)


def draw_ordinary_params(rng: np.random.Generator) -> SampleParams:
    """Draw the sample of one study of an ordinary culture."""

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    kind = str(rng.choice(list(CELL_SHARES), p=list(CELL_SHARES.values())))
    cells = ORDINARY_CELLS[kind]
    area = log_uniform(*cells.area_um2)
    cell_radius = float(np.sqrt(area / np.pi))
    crowded = rng.random() < CROWDED
    smallest = log_uniform(2.6, 4.5) if crowded else log_uniform(5, 8)
    base = draw_sample_params(rng)
    return replace(
        base,
        cells=cells,
        area_um2=area,
        confluence=uniform(0.05, 1.0) if rng.random() < 0.8 else 1.0,
        epithelial=bool(rng.random() < cells.epithelial),
        edge_um=log_uniform(1.5, 10),
        ruggedness=log_uniform(0.02, 0.25),
        # half of what the cell allows to what it allows: nuclei grow with cells, within the kind's range
        nucleus_radius_um=min(
            max(cell_radius * uniform(0.35, 0.6), cells.nucleus_radius_um[0]), cells.nucleus_radius_um[1]
        ),
        nucleoplasm=-log_uniform(0.0005, 0.007) if rng.random() < 0.85 else log_uniform(0.0006, 0.006),
        membrane=log_uniform(0.0005, 0.012),
        chromatin=log_uniform(0.0002, 0.003),
        mitochondria=log_uniform(0.003, 0.035),
        fibres=log_uniform(0.002, 0.014) if rng.random() < 0.75 else uniform(0.010, 0.035),
        granularity=log_uniform(0.006, 0.12),
        mitochondria_reach_um=uniform(0.35, 0.9) * cell_radius,
        vesicle_density=log_uniform(0.01, 0.8),
        droplets_per_cell=log_uniform(0.5, 40) if rng.random() < 0.4 else 0.0,
        round_density=log_uniform(0.5, 12) if crowded else log_uniform(0.005, 0.4),
        round_radius_um=(smallest, smallest * uniform(1.05, 1.5)),
        round_stain=log_uniform(0.03, 0.4) if crowded else log_uniform(0.3, 1.5),
        debris_density=log_uniform(0.02, 4),
        dead_density=log_uniform(0.003, 0.15),
        stain_spread=uniform(0.1, 0.7),
    )


def draw_empty_params(rng: np.random.Generator) -> SampleParams:
    """Draw a dish without cells: medium and debris."""
    return replace(draw_ordinary_params(rng), confluence=0.0, round_density=0.0, dead_density=0.0)


def draw_path_factor(rng: np.random.Generator, modality: Modality) -> float:
    """By how much optical paths are weakened: thin cells, or a medium of nearly their index.

    From 0.15 to 1, in bright field from 0.6: in focus it shows little enough.
    """
    return float(np.exp(rng.uniform(np.log(0.6 if modality is Modality.BF else 0.15), 0)))


def draw_ordinary_microscope(rng: np.random.Generator, modality: Modality) -> tuple[Microscope, int]:
    """Draw an instrument, and how many of its pixels a side make one pixel of the camera.

    Many cameras sample more coarsely than the optics resolve: the image is formed on a fraction of the camera's pixel,
    which then collects the light of all of it.
    """
    shares = np.array([objective.share for objective in OBJECTIVES])
    objective = OBJECTIVES[int(rng.choice(len(OBJECTIVES), p=shares))]
    pixel = float(np.exp(rng.uniform(*np.log(objective.pixel_um))))
    low, high = objective.numerical_aperture
    # 0.45 µm is the shortest wavelength that is drawn
    binning = next(b for b in range(1, 9) if sampled(pixel / b, min(low * 1.2, high), 0.45))
    microscope = draw_microscope(rng, modality, pixel / binning, na_range=(low, high))
    if modality is Modality.BF and rng.random() < 0.7:  # stopped down, as 20x assays often are
        microscope = replace(microscope, condenser_na=float(rng.uniform(0.3, 0.7)) * microscope.condenser_na)
    if modality is not Modality.PC:
        return microscope, binning
    # Wide rings of a large radius make narrow halos (about wavelength / width) and cells of the background's grey.
    pupil, sign = microscope.pupil_na, 1 if rng.random() < 1 / 3 else -1
    ring_na = float(np.clip(rng.uniform(0.35, 0.75) * pupil, 0.11, 0.4)) if rng.random() < 0.7 else microscope.ring_na
    width_ratio = float(rng.uniform(0.1, min(0.6, 1.9 * (pupil / ring_na - 1))))
    angle, off_centre = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6) * ring_na * min(width_ratio, 0.2)
    microscope = replace(
        microscope,
        ring_na=ring_na,
        condenser_na=ring_na * (1 + width_ratio / 2),
        ring_width_ratio=width_ratio,
        ring_phase_rad=float(sign * np.pi / 2 * rng.uniform(0.7, 1.2)),
        ring_transmission=float(rng.uniform(0.1, 0.5)),
        ring_decentre_na=(float(off_centre * np.sin(angle)), float(off_centre * np.cos(angle))),
    )
    return microscope, binning


def draw_ordinary_camera(rng: np.random.Generator, modality: Modality) -> Camera:
    """Draw a camera with what ordinary images suffer from: noise, exports, gradients, field stops, scratches."""
    camera = draw_camera(rng)
    bright_field = modality is Modality.BF
    electrons = float(np.exp(rng.uniform(np.log(5_000 if bright_field else 800), np.log(30_000))))
    mean_code = camera.background_electrons * camera.gain + camera.offset
    full_well = electrons * (camera.highest_code - camera.offset) / (mean_code - camera.offset)
    steep = rng.random() < 0.25
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.3) if steep else 0.0
    stop = scratches = None
    if rng.random() < 0.12:
        # the edge of a round field stop cuts one corner, or a side
        bearing, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 2.0)
        inside = radius - rng.uniform(0.35, 0.65)
        stop = FieldStop(
            y=float(0.5 + inside * np.sin(bearing)),
            x=float(0.5 + inside * np.cos(bearing)),
            radius=float(radius),
            softness=float(np.exp(rng.uniform(np.log(0.004), np.log(0.1)))),
            leak=float(rng.uniform(0, 0.15)),
        )
    if rng.random() < 0.2:
        scratches = tuple(_draw_scratch(rng) for _ in range(int(rng.integers(1, 4))))
    exported = rng.random()
    return replace(
        camera,
        full_well=full_well,
        background_electrons=electrons,
        tilt=(camera.tilt[0] + float(tilt * np.sin(angle)), camera.tilt[1] + float(tilt * np.cos(angle))),
        vignetting=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.15 else camera.vignetting,
        field_stop=stop,
        scratches=scratches or (),
        flare=_draw_flare(rng, bright_field),
        export_bits=8 if exported < 0.3 else 16,
        autoscaled=bool(0.1 < exported < 0.5),
    )


def _draw_flare(rng: np.random.Generator, bright_field: bool) -> float:
    if rng.random() < 0.3:
        return 0.0
    return float(
        np.exp(rng.uniform(np.log(0.03), np.log(0.3)) if bright_field else rng.uniform(np.log(0.1), np.log(2)))
    )


def _draw_scratch(rng: np.random.Generator) -> Scratch:
    return Scratch(
        y=float(rng.uniform(0, 1)),
        x=float(rng.uniform(0, 1)),
        direction=float(rng.uniform(0, np.pi)),
        bend=float(rng.normal(0, 0.3)),
        length=float(np.exp(rng.uniform(np.log(0.1), np.log(3)))),
        width_px=float(np.exp(rng.uniform(np.log(0.8), np.log(12)))),
        depth=float(rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(0.01), np.log(0.3)))),
    )

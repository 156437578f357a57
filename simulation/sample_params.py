"""What one study's cells are like: sizes, refractive indices and stains, drawn once per study.

Sizes and indices follow the literature where it speaks: cytoplasm 1.360 ± 0.004 (Curl et al., Cytometry A 65, 2005);
nucleoplasm below cytoplasm (Schürmann et al., J. Biophotonics 9, 2016); nucleoli 1.365–1.390 (Kim & Guck, Biophys.
J. 119, 2020); stress fibres at their focal contacts 1.38–1.40 where cortical cytoplasm has 1.353–1.368 (Bereiter-Hahn
et al., J. Cell Biol. 82, 1979). Ranges without a source (mitochondria, vesicles) are priors, widened on purpose: a
network that has met more than reality holds finds reality familiar (domain randomisation).
"""

from dataclasses import dataclass, replace

import numpy as np

from model.labels import Organelle

MEDIUM_INDEX = (1.335, 1.338)


@dataclass(frozen=True)
class CellType:
    """Ranges (low, high) of a kind of adherent cell; areas µm², lengths µm."""

    area_um2: tuple[float, float]
    height_um: tuple[float, float]
    lamella_um: tuple[float, float]
    nucleus_radius_um: tuple[float, float]
    nucleus_thickness_um: tuple[float, float]
    elongation: tuple[float, float]
    protrusions: tuple[int, int]
    epithelial: float  # probability that neighbours meet without overlap, at full height
    nucleoli: float  # mean number in a nucleus
    tip_length: tuple[float, float] = (0.3, 1.2)  # of a protrusion, against the cell's radius
    tip_width_rad: tuple[float, float] = (0.1, 0.35)
    pointed: bool = False  # protrusions end in tips with concave arcs between them, not in lobes
    bipolar: bool = False  # the first two protrusions lie at the ends of the long axis


CELL_TYPES = {
    "HeLa": CellType((800, 2000), (5, 8), (0.5, 2), (5.5, 8), (4, 8), (1, 1.8), (0, 4), 0.3, 4.5),
    "U2OS": CellType((1500, 4000), (4, 6), (0.3, 1.5), (7, 11), (3, 6), (1, 2), (0, 5), 0.15, 3),
    "fibroblast": CellType((1800, 4500), (3, 5), (0.2, 1), (6, 10), (2, 5), (2, 4), (1, 5), 0, 2.5),
    "MDCK": CellType((150, 400), (6, 10), (1, 3), (4.5, 6), (4, 7), (1, 1.4), (0, 0), 1, 2),
    "MCF-7": CellType((350, 1200), (4, 9), (0.5, 2), (4.7, 8.6), (3, 7), (1, 1.7), (0, 3), 0.6, 3),
    "hepatoma": CellType((300, 900), (6, 11), (0.5, 2), (5.5, 7.5), (4, 8), (1, 1.5), (0, 2), 0.8, 3.5),
}


@dataclass(frozen=True)
class SampleParams:
    """One study's biology. Refractive indices are differences from what surrounds the part: cytoplasm, if not said."""

    cells: CellType
    area_um2: float
    confluence: float  # part of the dish that holds colonies
    epithelial: bool
    edge_um: float  # distance over which the cell body rises from its edge
    ruggedness: float
    nucleus_radius_um: float
    nucleus_roughness: float

    medium: float
    cytoplasm: float  # against the medium
    nucleoplasm: float
    nucleoli: float  # against the nucleoplasm
    chromatin: float
    mitochondria: float
    fibres: float
    vesicles: float
    droplets: float
    granularity: float  # relative fluctuation of the cytoplasm's density
    membrane: float  # nuclear envelope and cell border, extra optical path in µm

    mitochondria_diameter_um: float
    mitochondria_length_um: float
    mitochondria_fraction: float  # of the cytoplasm's volume
    mitochondria_reach_um: float
    microtubules: int
    fibres_per_cell: float
    fibre_diameter_um: float
    cortex: float
    vesicle_density: float  # per µm² near the nucleus
    vesicle_radius_um: tuple[float, float]
    vesicle_reach_um: float
    droplets_per_cell: float

    round_density: float  # cells per 1000 µm²
    round_radius_um: tuple[float, float]
    round_cluster: float
    round_stain: float  # DNA signal of round cells against that of adherent ones
    mitotic_fraction: float
    debris_density: float
    dead_density: float

    stain_spread: float  # σ of the log-normal brightness between cells
    chromatin_contrast: float
    diffuse: dict[Organelle, float]  # part of the signal that is spread through the cytoplasm


def draw_sample_params(rng: np.random.Generator, low_magnification: bool = False) -> SampleParams:
    """Draw the sample of one study.

    ``low_magnification`` favours what 20x time-lapse assays show: small epithelial cells under many round
    lymphocyte-like ones, in three of four studies as a closed sheet of smooth cells with faint nuclei. Lymphocytes
    pump the DNA stain out (Chaudhary et al., Blood 80, 1992), so they are dim beside the cells they lie on.
    """

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    names = ["MCF-7", "MCF-7", "MCF-7", "HeLa", "hepatoma", "MDCK"] if low_magnification else list(CELL_TYPES)
    cells = CELL_TYPES[names[int(rng.integers(len(names)))]]
    crowded = rng.random() < (0.65 if low_magnification else 0.12)
    lymphocytes = rng.random() < (0.75 if low_magnification else 0.5)
    stains_little = crowded or (low_magnification and lymphocytes)
    smallest = log_uniform(2.6, 4.5) if lymphocytes else log_uniform(4.5, 8)
    medium = uniform(*MEDIUM_INDEX)
    area = log_uniform(*cells.area_um2)
    params = SampleParams(
        cells=cells,
        area_um2=area,
        confluence=float(rng.choice([0.3, 0.6, 0.85, 1.0, 1.0])) if rng.random() < 0.9 else 0.1,
        epithelial=bool(rng.random() < cells.epithelial),
        edge_um=log_uniform(2, 13),
        ruggedness=uniform(0.05, 0.3),
        nucleus_radius_um=uniform(*cells.nucleus_radius_um),
        nucleus_roughness=log_uniform(0.02, 0.12),
        medium=medium,
        cytoplasm=uniform(1.350, 1.368) - medium,
        nucleoplasm=-uniform(0.002, 0.010) if rng.random() < 0.9 else uniform(0.001, 0.006),
        nucleoli=uniform(0.012, 0.035),
        chromatin=log_uniform(0.0004, 0.004),
        mitochondria=uniform(0.010, 0.045),
        fibres=uniform(0.010, 0.035),
        vesicles=log_uniform(0.010, 0.060),
        droplets=uniform(0.07, 0.11),
        granularity=log_uniform(0.012, 0.15),
        membrane=log_uniform(0.002, 0.015),
        mitochondria_diameter_um=uniform(0.3, 0.6),
        mitochondria_length_um=log_uniform(1.5, 10),
        mitochondria_fraction=uniform(0.08, 0.18),
        mitochondria_reach_um=uniform(0.35, 0.9) * float(np.sqrt(area / np.pi)),
        microtubules=int(rng.integers(60, 180)),
        fibres_per_cell=log_uniform(6, 40),
        fibre_diameter_um=uniform(0.2, 0.6),
        cortex=log_uniform(0.3, 3),
        vesicle_density=log_uniform(0.01, 1.0),
        vesicle_radius_um=(0.12, log_uniform(0.2, 0.5)),
        vesicle_reach_um=log_uniform(1.5, 8),
        droplets_per_cell=log_uniform(0.5, 40) if rng.random() < 0.6 else 0.0,
        round_density=(log_uniform(0.5, 14) if crowded else log_uniform(0.03, 0.4)),
        round_radius_um=(smallest, smallest * uniform(1.05, 1.5)),
        round_cluster=uniform(0, 1),
        round_stain=log_uniform(0.03, 0.4) if stains_little else log_uniform(0.3, 1.5),
        mitotic_fraction=uniform(0, 0.05),
        debris_density=log_uniform(0.05, 5),
        dead_density=log_uniform(0.01, 0.3),
        stain_spread=uniform(0.1, 0.45),
        chromatin_contrast=uniform(0.08, 0.3),
        diffuse={
            Organelle.NUCLEUS: uniform(0, 0.04),
            Organelle.MITOCHONDRIA: uniform(0.02, 0.25),
            Organelle.TUBULIN: uniform(0.15, 0.45),
            Organelle.ACTIN: uniform(0.10, 0.40),
        },
    )
    if not low_magnification or rng.random() < 0.25:
        return params
    return replace(
        params,
        confluence=float(rng.choice([0.6, 0.85, 1.0, 1.0])),
        epithelial=bool(rng.random() < 0.8),
        ruggedness=uniform(0.03, 0.12),
        granularity=log_uniform(0.006, 0.05),
        nucleoplasm=-log_uniform(0.0006, 0.008),
        membrane=log_uniform(0.0006, 0.008),
        chromatin=log_uniform(0.0002, 0.0015),
        mitochondria=uniform(0.004, 0.018),
        fibres=uniform(0.002, 0.010),
        vesicles=log_uniform(0.010, 0.040),
        vesicle_density=log_uniform(0.003, 0.15),
        droplets_per_cell=log_uniform(0.3, 6) if rng.random() < 0.4 else 0.0,
        round_radius_um=(min(smallest, 4.5), min(smallest, 4.5) * uniform(1.05, 1.4)),
    )

"""A field of cells as the microscope meets it: optical path and fluorophores, slab by slab."""

from dataclasses import dataclass
from typing import Self

from model.labels import Organelle
from simulation.volume import Grid, Volume


@dataclass(frozen=True)
class Specimen:
    """Volumes over one grid.

    ``optical_path`` (K, Y, X) is ∫ (n − n_medium) dz of each slab in µm; ``density`` holds for each organelle
    the fluorophore of each slab (K, Y, X), relative.
    """

    grid: Grid
    optical_path: Volume
    density: dict[Organelle, Volume]

    @classmethod
    def empty(cls, grid: Grid) -> Self:
        """Medium without cells."""
        return cls(grid, grid.empty(), {organelle: grid.empty() for organelle in Organelle})

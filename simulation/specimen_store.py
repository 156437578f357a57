"""Specimens on disk: grown once, imaged as often as a training wants.

A folder of ``specimen_N.safetensors``, half precision, on pixels of PIXEL_UM, each with

    optical_path   (K, Y, X)       ∫ (n − n_medium) dz of each slab, µm
    fluorescence   (A, C, Y, X)    wide-field images of the organelles in the order of `Organelle`, each at its own best
                                   focus, through each of the apertures FLUORESCENCE_NA

and as metadata the heights of the slabs, the nuclei's height, the setting, and each organelle's brightness. Targets
hardly depend on the microscope, so their images are formed here and only blurred later; transmitted light depends on
all of it, so only its cause is stored.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.errors import UserError
from model.files import atomic_write
from model.labels import Modality, Organelle
from simulation.field import grow
from simulation.microscope import Microscope, Setting
from simulation.specimen import Specimen
from simulation.study import brightest_height, draw_study
from simulation.volume import Window
from simulation.widefield import fluorescence

PIXEL_UM = 0.25  # the finest grid that the networks are trained on
STORED_SLABS = 4  # two less than simulate.py images: each costs time in every plane
FLUORESCENCE_NA = (0.4, 1.2)
BRIGHTNESS_PERCENTILES = (2.0, 99.8)  # as targets are normalized


@dataclass(frozen=True)
class StoredSpecimen:
    """One file's metadata; pixels are read by window."""

    path: Path
    setting: Setting
    shape: tuple[int, int]
    heights_um: tuple[float, ...]
    nuclear_height_um: float
    brightness: tuple[float, ...]  # of each organelle: between BRIGHTNESS_PERCENTILES of the whole field

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Optical path (K, y, x) and fluorescence (A, C, y, x) within a window."""
        with safe_open(self.path, framework="numpy") as file:
            path = file.get_slice("optical_path")[:, window[0], window[1]]
            images = file.get_slice("fluorescence")[:, :, window[0], window[1]]
        return path.astype(np.float32), images.astype(np.float32)


class SpecimenStore:
    """A folder that `write_specimen` filled; raises UserError where there is nothing of the kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.specimens = [_describe(path) for path in sorted(folder.glob("specimen_*.safetensors"))]
        if not self.specimens:
            raise UserError(f"{folder}: found no specimen_N.safetensors, expected those of simulate.py --specimens")

    def __len__(self) -> int:
        return len(self.specimens)

    @cached_property
    def typical_brightness(self) -> NDArray[np.float64]:
        """Median over the specimens with cells, for each organelle: what tells a dim structure from an absent one."""
        values = np.array([specimen.brightness for specimen in self.specimens if specimen.setting != "empty"])
        return np.median(values, axis=0) if len(values) else np.ones(len(Organelle))


def write_specimen(path: Path, setting: Setting, size: int, rng: np.random.Generator) -> None:
    """Grow one specimen of ``size`` pixels a side and store it; it follows from the setting and the generator."""
    params = draw_study(rng, Modality.BF, setting).params
    specimen = grow(rng, params, (size, size), PIXEL_UM, STORED_SLABS)
    images = np.stack([[_image(specimen, organelle, na) for organelle in Organelle] for na in FLUORESCENCE_NA])
    sharp = images[-1].reshape(len(Organelle), -1)
    low, high = np.percentile(sharp, BRIGHTNESS_PERCENTILES, axis=1)
    facts = {
        "setting": setting,
        "heights_um": [float(height) for height in specimen.grid.centres_um],
        "nuclear_height_um": brightest_height(specimen, Organelle.NUCLEUS),
        "brightness": (high - low).tolist(),
    }
    arrays = {"optical_path": specimen.optical_path.astype(np.float16), "fluorescence": images.astype(np.float16)}
    with atomic_write(path) as file:
        file.write(save(arrays, metadata={"specimen": json.dumps(facts), "origin": "simulated cells"}))


def _image(specimen: Specimen, organelle: Organelle, numerical_aperture: float) -> NDArray[np.float32]:
    scope = Microscope(Modality.BF, 0.3, 0.1, 0.55, 1.337, PIXEL_UM, fluorescence_na=numerical_aperture)
    heights = [float(height) for height in specimen.grid.centres_um]
    return fluorescence(specimen.density[organelle], heights, brightest_height(specimen, organelle), scope, organelle)


def _describe(path: Path) -> StoredSpecimen:
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["specimen"])
            rows, columns = file.get_slice("optical_path").get_shape()[1:]
            file.get_slice("fluorescence")
        return StoredSpecimen(
            path,
            facts["setting"],
            (rows, columns),
            tuple(facts["heights_um"]),
            facts["nuclear_height_um"],
            tuple(facts["brightness"]),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):  # cut off, or of another program
        raise UserError(f"{path}: found no specimen, expected a whole file of simulate.py --specimens.") from None

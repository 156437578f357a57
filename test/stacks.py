"""A stack as the tests of prediction write it, and what goes with it."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from model.batch import Outcome, predict_cases
from model.batch_options import BatchOptions
from model.discovery import discover
from model.labels import Modality, Organelle
from model.predictor import Predictor
from model.selection import SelectionOptions
from model.settings import InferenceSettings

SETTINGS = InferenceSettings(overlap=0, rotations=2)
STACK = np.random.default_rng(1).integers(0, 4000, (3, 2, 2, 40, 36)).astype(np.uint16)  # TCZYX
ALL = BatchOptions()


def write_stack(path: Path, channels: tuple[str, ...] = ("DAPI", "PC"), pixels: np.ndarray = STACK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "axes": "TCZYX",
        "Channel": {"Name": list(channels)},
        **{"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.5, "TimeIncrement": 30.0},
    }
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=metadata)
    return path


def go(folder: Path, resources: Path, options: BatchOptions = ALL) -> list[Outcome]:
    cases = discover(folder / "in", folder / "out")
    with Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor:
        return list(predict_cases(cases, [predictor], options))


def select(**selection: Any) -> BatchOptions:
    return BatchOptions(selection=SelectionOptions(**selection))


def outputs(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file())


def predicted_stack(resources: Path) -> dict[Organelle, np.ndarray]:
    """What `Predictor.predict` makes of each plane of the channel PC, TZYX."""
    with Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor:
        planes = [
            predictor.predict(STACK[t, 1, z], Modality.PC, pixel_size_um=(0.1, 0.1))
            for t, z in product(range(3), range(2))
        ]
    return {o: np.stack([plane[o] for plane in planes]).reshape(3, 2, 40, 36) for o in Organelle}

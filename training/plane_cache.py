"""From a file to what the network sees: resampled, scaled, and kept in memory while there is room."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import model.preprocessing
from model.images import inspect, read_image
from model.labels import Organelle
from model.normalization import InputNormalization, TargetNormalization, normalize_target
from model.resampling import resample_image
from training.index import Field


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become network values: the choices that a checkpoint records and prediction repeats.

    ``pixel_size_um`` is the (min, max) of the pixel sizes the network may see; an image outside is resampled
    to the nearer end; None takes every image as it is.
    """

    input_normalization: InputNormalization
    target_normalization: TargetNormalization
    pixel_size_um: tuple[float, float] | None

    def input(self, path: Path) -> np.ndarray:
        """Read one transmitted-light plane: (Y, X) float32 on the network's grid."""
        image = read_image(path)
        preprocessing = model.preprocessing.Preprocessing(self.input_normalization, self.pixel_size_um)
        return preprocessing.input(image.pixels, preprocessing.grid(image.info.shape, image.info.pixel_size_um))

    def target(self, path: Path, shape: tuple[int, int], *, unclipped: bool = False) -> np.ndarray:
        """Read one target: (Y, X) float32 in [-1, 1] on the grid ``shape`` of its input.

        ``unclipped`` scales linearly whatever the recipe says: the truth for metrics, which ignore affine changes.
        """
        scaling = TargetNormalization.LINEAR if unclipped else self.target_normalization
        return normalize_target(resample_image(read_image(path).pixels, shape), scaling)


def pixel_size_range(fields: tuple[Field, ...]) -> tuple[float, float] | None:
    """Smallest and largest pixel size (µm, either axis) over one plane of each field; None where none states one."""
    sizes = [inspect(next(iter(f.planes.values()))).pixel_size_um for f in fields]
    stated = [side for size in sizes if size is not None for side in size]
    return (min(stated), max(stated)) if stated else None


class PlaneCache:
    """Prepared planes of many fields behind a least-recently-used cache of bounded size; safe across threads.

    A value that comes from the cache equals the one that was just read, so results do not depend on the size.
    """

    def __init__(self, preprocessing: Preprocessing, capacity_bytes: int) -> None:
        self.preprocessing = preprocessing
        self._capacity = capacity_bytes
        self._held: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    def input(self, field: Field, z: int) -> np.ndarray:
        """One plane (Y, X); float16 or float32, see ``_stored``."""
        path = field.planes[z]
        return self._get(
            path, lambda: self.preprocessing.input(path), self.preprocessing.input_normalization == "linear"
        )

    def target(self, field: Field, organelle: Organelle, shape: tuple[int, int]) -> np.ndarray:
        """One target (Y, X) on the grid ``shape``; float16 or float32, see ``_stored``."""
        path = field.labels[organelle]
        linear = self.preprocessing.target_normalization == "linear"
        return self._get(path, lambda: self.preprocessing.target(path, shape), linear)

    def _get(self, path: Path, make: Callable[[], np.ndarray], linear: bool) -> np.ndarray:
        with self._lock:
            if path in self._held:
                self._held.move_to_end(path)
                return self._held[path]
        # Linearly scaled cameras use a sliver of [-1, 1], where half precision would cost grey levels.
        made = make().astype(np.float32 if linear else np.float16)
        with self._lock:
            if path not in self._held:
                self._held[path] = made
                self._used += made.nbytes
            while self._used > self._capacity and len(self._held) > 1:
                self._used -= self._held.popitem(last=False)[1].nbytes
        return made

"""Preprocessed planes, kept in memory while there is room."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.images import inspect, read_image
from model.labels import Organelle
from model.normalization import InputNormalization, TargetNormalization
from model.preprocessing import MAX_RESCALING, Grid, Preprocessing
from training.index import Field

Plane = NDArray[np.float32] | NDArray[np.float16]
Shape = tuple[int, int]


def read_input(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read one transmitted-light plane as the network sees it: (Y, X) float32 on the network's grid."""
    image = read_image(path)
    return preprocessing.input(image.pixels, preprocessing.grid(image.info.shape, image.info.pixel_size_um))


def read_target(path: Path, shape: Shape, normalization: TargetNormalization) -> NDArray[np.float32]:
    """Read one target: (Y, X) float32 in [-1, 1] on the grid `shape` of its input."""
    return Preprocessing.target(read_image(path).pixels, Grid(shape), normalization)


def pixel_size_range(fields: tuple[Field, ...]) -> tuple[float, float] | None:
    """Smallest and largest pixel size (µm, either axis) over one plane of each field; None where none states one.

    Sizes that differ from the median by more than `MAX_RESCALING` are wrong entries, as they are for prediction.
    """
    sizes = [inspect(next(iter(f.planes.values()))).pixel_size_um for f in fields]
    stated = np.array([side for size in sizes if size is not None for side in size])
    if not len(stated):
        return None
    plausible = stated[np.abs(np.log(stated / np.median(stated))) <= np.log(MAX_RESCALING)]
    return float(plausible.min()), float(plausible.max())


class PlaneCache:
    """Preprocessed planes of many fields behind a least-recently-used cache of bounded size; safe across threads.

    A value that comes from the cache equals the one that was just read, so results do not depend on the size.
    """

    def __init__(self, preprocessing: Preprocessing, normalization: TargetNormalization, capacity_bytes: int) -> None:
        self.preprocessing = preprocessing
        self.target_normalization = normalization
        self._capacity = capacity_bytes
        # A target has a place for each grid that an input of its field has: planes may state different pixel sizes.
        self._held: OrderedDict[tuple[Path, Shape | None], Plane] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    def input(self, field: Field, z: int) -> Plane:
        """One plane (Y, X); float16 or float32, see `_get`."""
        path = field.planes[z]
        linear = self.preprocessing.normalization is InputNormalization.LINEAR
        return self._get((path, None), lambda: read_input(path, self.preprocessing), linear)

    def target(self, field: Field, organelle: Organelle, shape: Shape) -> Plane:
        """One target (Y, X) on the grid `shape`; float16 or float32, see `_get`."""
        path, normalization = field.labels[organelle], self.target_normalization
        linear = normalization is TargetNormalization.LINEAR
        return self._get((path, shape), lambda: read_target(path, shape, normalization), linear)

    def _get(self, key: tuple[Path, Shape | None], make: Callable[[], NDArray[np.float32]], linear: bool) -> Plane:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        # Linearly scaled cameras use a sliver of [-1, 1], where half precision would cost grey levels.
        made: Plane = make() if linear else make().astype(np.float16)
        with self._lock:
            if key not in self._held:
                self._held[key] = made
                self._used += made.nbytes
            while self._used > self._capacity and len(self._held) > 1:
                self._used -= self._held.popitem(last=False)[1].nbytes
        return made

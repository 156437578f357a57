"""Files of many planes: times, channels, focal planes; each plane is read when it is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..labels import Modality
from .limits import refuse

Position = tuple[int, int, int]
"""Indices (t, c, z) of a plane."""


@dataclass(frozen=True)
class Channel:
    """What a file says of one channel.

    Attributes
    ----------
    name : str or None
    modality : Modality or None
        Told by its name or contrast method.
    transmitted : bool or None
        Whether it is transmitted light; None: nothing tells.
    """

    name: str | None = None
    modality: Modality | None = None
    transmitted: bool | None = None


@dataclass(frozen=True)
class StackInfo:
    """What a file holds, read without decoding pixels.

    Attributes
    ----------
    path : Path
    shape : (int, int)
        Rows and columns of every plane.
    times, focal_planes : int
        Lengths of the axes T and Z.
    channels : tuple of Channel
        One each along the axis C.
    stored : frozenset of (int, int, int) or None
        Indices (t, c, z) of the planes that it holds; None: one for each time, channel and focal plane.
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm; None: not stated, or not to be trusted (see `warnings`).
    z_step_um : float or None
        Distance between focal planes in µm.
    time_increment_s : float or None
        Time between time points in s.
    provenance : mapping of str to str
        What this program recorded; empty for files of other programs.
    warnings : tuple of str
        What was ignored or contradictory, one clause each, without the file's name.
    scenes : int
        How many images of other stage positions (or series) the file holds, this one included.
    scene_name : str or None
        What the file calls this one.
    """

    path: Path
    shape: tuple[int, int]
    times: int = 1
    channels: tuple[Channel, ...] = (Channel(),)
    focal_planes: int = 1
    stored: frozenset[tuple[int, int, int]] | None = None
    pixel_size_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    time_increment_s: float | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    scenes: int = 1
    scene_name: str | None = None

    def holds(self, t: int, c: int, z: int) -> bool:
        """Whether it has a plane of these indices."""
        inside = 0 <= t < self.times and 0 <= c < len(self.channels) and 0 <= z < self.focal_planes
        return inside and (self.stored is None or (t, c, z) in self.stored)

    def positions(self, channel: int) -> list[tuple[int, int]]:
        """List (t, z) of each plane of a channel, in this order."""
        if self.stored is None:
            return list(product(range(self.times), range(self.focal_planes)))
        return sorted((t, z) for t, c, z in self.stored if c == channel)


class Stack(ABC):
    """An open file of one or more planes, or one of its scenes."""

    info: StackInfo

    @abstractmethod
    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X) as `grey.to_grey` gives it; UserError where it is damaged."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self:
        """Return the stack itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()


@dataclass(frozen=True)
class OutputChannel:
    """A channel to be written.

    Attributes
    ----------
    name : str
    colour : str
        Hexadecimal RGB, ``"00FF00"``.
    display_range : (int, int)
        Grey values that are shown as black and as the full colour.
    """

    name: str
    colour: str
    display_range: tuple[int, int]


class SceneError(UserError):
    """One of the `scenes` of a file cannot be read; the others may be."""

    def __init__(self, reason: str, scenes: int) -> None:
        super().__init__(reason)
        self.scenes = scenes


@contextmanager
def describing_scene(path: Path, scene: int, scenes: int) -> Iterator[None]:
    """Check that a file has a scene, and tell what is wrong with it apart from what is wrong with the file.

    Raises
    ------
    UserError
        Where there is no such scene, or the only one is wrong.
    SceneError
        Where one of several is wrong.
    """
    check_scene(path, scene, scenes)
    try:
        yield
    except Exception as error:  # a description that lies can raise any
        if scenes == 1:
            raise
        senseless = f"{path}: found a damaged description of scene {scene}, expected one that makes sense."
        raise SceneError(str(error) if isinstance(error, UserError) else senseless, scenes) from error


def check_index(info: StackInfo, t: int, c: int, z: int) -> None:
    """Raise IndexError where a file has no such plane."""
    if not info.holds(t, c, z):
        raise IndexError(f"plane t {t}, c {c}, z {z} of {info.times} x {len(info.channels)} x {info.focal_planes}")


def check_scene(path: Path, scene: int, scenes: int) -> None:
    """Raise UserError where a file has no such scene."""
    if not 0 <= scene < scenes:
        refuse(path, f"no scene {scene}", f"an index of 0 to {scenes - 1}" if scenes > 1 else "0: it holds one scene")


def index_step(indices: Sequence[int]) -> int | None:
    """Distance of indices in ascending order; None where it differs, or there is but one."""
    steps = {after - before for before, after in pairwise(indices)}
    return next(iter(steps)) if len(steps) == 1 else None


def in_grid(
    positions: Mapping[int, Position],
) -> tuple[Mapping[Position, int], tuple[Sequence[int], Sequence[int], Sequence[int]]]:
    """Count planes along T, C and Z without those of which there is none.

    Parameters
    ----------
    positions : mapping of int to (int, int, int)
        (t, c, z) of each plane by its number in the file.

    Returns
    -------
    mapping of (int, int, int) to int, (sequence of int, sequence of int, sequence of int)
        Number in the file by indices from 0, and which t, c and z these count.
    """
    ts, cs, zs = (sorted({position[axis] for position in positions.values()}) for axis in range(3))
    at_t, at_c, at_z = ({stored: index for index, stored in enumerate(kept)} for kept in (ts, cs, zs))
    return {(at_t[t], at_c[c], at_z[z]): number for number, (t, c, z) in positions.items()}, (ts, cs, zs)

"""Choose the planes of a file that are predicted: a channel of transmitted light, times and focal planes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import SelectionError
from .focus import best_plane
from .images.limits import refuse
from .images.stack import Channel, Stack, StackInfo, index_step
from .labels import Modality

TimeAndHeight = tuple[int, int]
"""Indices (t, z) of a plane of a channel."""


@dataclass(frozen=True)
class SelectionOptions:
    """Which planes of a file of several planes are predicted.

    Attributes
    ----------
    channel : str or None
        Name of the channel of transmitted light, or its index from 0; None: the one that its metadata tell.
    t : int or None
        Index of the time point from 0; None: all.
    z : int, "best" or None
        Index of the focal plane from 0; "best": at each time the one in focus; None: all.
    scene : int or None
        Index of the stage position or series from 0; None: all.
    """

    channel: str | None = None
    t: int | None = None
    z: int | Literal["best"] | None = None
    scene: int | None = None


@dataclass(frozen=True)
class SelectedPlanes:
    """The planes of one file that are predicted.

    Attributes
    ----------
    channel : int
        Index along C.
    positions : tuple of (int, int)
        (t, z) of each plane in the file, in the order of the output.
    times, focal_planes : int
        Lengths of the output's axes T and Z.
    warnings : tuple of str
        What is left out.
    """

    channel: int
    positions: tuple[TimeAndHeight, ...]
    times: int
    focal_planes: int
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Which planes, e.g. ``"t 0 to 9, z 3"``."""
        return ", ".join(f"{axis} {_listed_indices(self._indices(axis))}" for axis in "tz")

    @property
    def time_step(self) -> int | None:
        """How many time points of the file lie between two of the output; None where that differs."""
        return index_step(self._indices("t"))

    @property
    def z_step(self) -> int | None:
        """How many focal planes of the file lie between two of the output; None where that differs."""
        return index_step(self._indices("z")) if self.focal_planes > 1 else None

    def _indices(self, axis: str) -> list[int]:
        return sorted({position["tz".index(axis)] for position in self.positions})


def choose_channel(info: StackInfo, wanted: str | None) -> int:
    """Find the channel of transmitted light.

    Parameters
    ----------
    info : StackInfo
    wanted : str or None
        A channel's name (in any case) or its index from 0.

    Returns
    -------
    int
        Index along C; 0 for a file of one channel that is not asked for another.

    Raises
    ------
    UserError
        Lists the channels, where none or several may be meant.
    """
    channels = info.channels
    if wanted is not None:
        named = [c for c, channel in enumerate(channels) if _same_name(channel, wanted)]
        if not named and wanted.isdecimal() and int(wanted) < len(channels):
            named = [int(wanted)]
        if len(named) != 1:
            found = "no such channel" if not named else f"{len(named)} channels of that name"
            raise SelectionError(f"{info.path}: --channel {wanted} finds {found}, expected one of {_listed(channels)}.")
        return named[0]
    if len(channels) == 1:
        return 0
    candidates = [c for c, channel in enumerate(channels) if channel.transmitted]
    if len(candidates) != 1:
        found = "none" if not candidates else f"{len(candidates)} ({', '.join(map(str, candidates))})"
        raise SelectionError(
            f"{info.path}: found {len(channels)} channels, {found} of them known as transmitted light, "
            f"expected --channel with one of {_listed(channels)}."
        )
    return candidates[0]


def select_planes(stack: Stack, channel: int, options: SelectionOptions, modality: Modality | None) -> SelectedPlanes:
    """List the planes to predict; for "best", every focal plane is read.

    Of a channel that lacks planes, as of an acquisition that was stopped, those times (or, if these make more planes,
    those heights) are taken that lack none.

    Raises
    ------
    UserError
        Where the channel has no plane of that time or height.
    """
    info = stack.info
    held = info.positions(channel)
    if options.t is not None:
        held = _of_index(info, channel, held, "t", options.t)
    if options.z == "best":
        focused = [(t, _in_focus(stack, t, channel, heights, modality)) for t, heights in _grouped(held).items()]
        return SelectedPlanes(channel, tuple(focused), len(focused), 1)
    if options.z is not None:
        held = _of_index(info, channel, held, "z", options.z)
    times, heights, warnings = _whole(info, channel, held)
    positions = tuple((t, z) for t in times for z in heights)
    return SelectedPlanes(channel, positions, len(times), len(heights), warnings)


def channel_title(info: StackInfo, channel: int) -> str:
    """Name of a channel, or its index where it has none."""
    return info.channels[channel].name or str(channel)


def _in_focus(stack: Stack, t: int, channel: int, heights: Sequence[int], modality: Modality | None) -> int:
    if len(heights) == 1:
        return heights[0]
    return heights[best_plane((stack.read_plane(t, channel, z) for z in heights), modality)]


def _of_index(
    info: StackInfo, channel: int, held: list[TimeAndHeight], axis: Literal["t", "z"], wanted: int
) -> list[TimeAndHeight]:
    number = "tz".index(axis)
    found = [position for position in held if position[number] == wanted]
    if not found:
        there = _listed_indices(sorted({position[number] for position in held}))
        title = f" of channel {channel_title(info, channel)}" if info.stored else ""
        raise SelectionError(f"{info.path}: --{axis} {wanted} finds no plane{title}, expected an index of {there}.")
    return found


def _grouped(held: Sequence[TimeAndHeight]) -> dict[int, list[int]]:
    """List the heights of each time."""
    heights: dict[int, list[int]] = {}
    for t, z in held:
        heights.setdefault(t, []).append(z)
    return heights


def _whole(
    info: StackInfo, channel: int, held: Sequence[TimeAndHeight]
) -> tuple[Sequence[int], Sequence[int], tuple[str, ...]]:
    """Find times and heights of which every plane is there, as many planes as possible; and warnings."""
    by_time, by_height = _grouped(held), _grouped([(z, t) for t, z in held])
    all_times, all_heights = sorted(by_time), sorted(by_height)
    whole_times = [t for t in all_times if len(by_time[t]) == len(all_heights)]
    whole_heights = [z for z in all_heights if len(by_height[z]) == len(all_times)]
    times, heights = max(
        (whole_times, all_heights), (all_times, whole_heights), key=lambda kept: len(kept[0]) * len(kept[1])
    )
    if not times or not heights:
        found = f"{len(held)} planes of {len(all_times)} times and {len(all_heights)} focal planes"
        refuse(info.path, f"{found} in channel {channel_title(info, channel)}", "a plane for each of them")
    warnings = (
        f"{len(there) - len(kept)} of its {len(there)} {title} lack planes of channel {channel_title(info, channel)} "
        "and are left out"
        for title, there, kept in (("time points", all_times, times), ("focal planes", all_heights, heights))
        if len(kept) < len(there)
    )
    return times, heights, tuple(warnings)


def _listed_indices(indices: Sequence[int]) -> str:
    step = index_step(indices)
    if step == 1:
        return f"{indices[0]} to {indices[-1]}"
    if step is None or len(indices) == 2:
        return ", ".join(map(str, indices))
    return f"{indices[0]} to {indices[-1]} in steps of {step}"


def _same_name(channel: Channel, wanted: str) -> bool:
    return channel.name is not None and channel.name.strip().casefold() == wanted.strip().casefold()


def _listed(channels: Sequence[Channel]) -> str:
    return ", ".join(f"{c} ({channel.name})" if channel.name else str(c) for c, channel in enumerate(channels))

"""Choose the planes of a file that are predicted: a channel of transmitted light, times and focal planes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UserError
from .focus import best_plane
from .images.stack import Channel, Stack, StackInfo
from .labels import Modality


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
    """

    channel: str | None = None
    t: int | None = None
    z: int | Literal["best"] | None = None


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
    """

    channel: int
    positions: tuple[tuple[int, int], ...]
    times: int
    focal_planes: int

    @property
    def title(self) -> str:
        """Which planes, e.g. ``"t 0 to 9, z 3"``."""
        heights = sorted({z for _, z in self.positions})
        return f"{_span('t', sorted({t for t, _ in self.positions}))}, {_span('z', heights)}"


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
            raise UserError(f"{info.path}: --channel {wanted} finds {found}, expected one of {_listed(channels)}.")
        return named[0]
    if len(channels) == 1:
        return 0
    candidates = [c for c, channel in enumerate(channels) if channel.transmitted]
    if len(candidates) != 1:
        found = "none" if not candidates else f"{len(candidates)} ({', '.join(map(str, candidates))})"
        raise UserError(
            f"{info.path}: found {len(channels)} channels, {found} of them known as transmitted light, "
            f"expected --channel with one of {_listed(channels)}."
        )
    return candidates[0]


def select_planes(stack: Stack, channel: int, options: SelectionOptions, modality: Modality | None) -> SelectedPlanes:
    """List the planes to predict; for "best", every focal plane is read.

    Raises
    ------
    UserError
        Where the file has no time or focal plane of that index.
    """
    info = stack.info
    times = _indices(info, "t", options.t, info.times)
    if options.z == "best":
        focused = [(t, _in_focus(stack, t, channel, modality)) for t in times]
        return SelectedPlanes(channel, tuple(focused), len(times), 1)
    heights = _indices(info, "z", options.z, info.focal_planes)
    return SelectedPlanes(channel, tuple((t, z) for t in times for z in heights), len(times), len(heights))


def channel_title(info: StackInfo, channel: int) -> str:
    """Name of a channel, or its index where it has none."""
    return info.channels[channel].name or str(channel)


def _in_focus(stack: Stack, t: int, channel: int, modality: Modality | None) -> int:
    if stack.info.focal_planes == 1:
        return 0
    return best_plane((stack.read_plane(t, channel, z) for z in range(stack.info.focal_planes)), modality)


def _indices(info: StackInfo, axis: str, wanted: int | None, length: int) -> Sequence[int]:
    if wanted is None:
        return range(length)
    if wanted >= length:
        raise UserError(f"{info.path}: --{axis} {wanted} finds no plane, expected an index from 0 to {length - 1}.")
    return [wanted]


def _span(axis: str, indices: Sequence[int]) -> str:
    return f"{axis} {indices[0]}" if len(indices) == 1 else f"{axis} {indices[0]} to {indices[-1]}"


def _same_name(channel: Channel, wanted: str) -> bool:
    return channel.name is not None and channel.name.strip().casefold() == wanted.strip().casefold()


def _listed(channels: Sequence[Channel]) -> str:
    return ", ".join(f"{c} ({channel.name})" if channel.name else str(c) for c, channel in enumerate(channels))

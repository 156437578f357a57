"""Read Nikon's ND2 files frame by frame, with the package nd2."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .channels import describe_channel
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, refuse
from .stack import Channel, StackInfo, check_index, to_uint16
from .units import plausible_pixel_size

_CONTRASTS = {"brightfield": "brightfield", "phaseContrast": "phase", "dic": "dic", "diContrast": "dic"}


def open_nd2(path: Path) -> "Nd2Stack":
    """Open an ND2 file.

    Raises
    ------
    UserError
        Where it cannot be read, the package nd2 is missing, or it holds something else than planes of 8- or 16-bit
        grey values of one position.
    """
    check_is_file(path)
    try:
        import nd2
    except ImportError as error:
        raise UserError(
            f"{path}: found an ND2 file, but the package to read it is missing, "
            'expected it by: pip install "in-silico-labelling[nd2]".'
        ) from error
    try:
        file = nd2.ND2File(path)
    except Exception as error:  # struct, value, index: a file that lies can raise any
        raise UserError(f"{path}: found a damaged or truncated ND2 file, expected {EXPECTED_PLANE}.") from error
    try:
        return Nd2Stack(path, file)
    except UserError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise UserError(f"{path}: found a damaged or truncated ND2 file, expected {EXPECTED_PLANE}.") from error


class Nd2Stack:
    """The planes of an open ND2 file; a frame holds all channels of one time and focal plane."""

    def __init__(self, path: Path, file: Any) -> None:
        self._file = file
        sizes = dict(file.sizes)
        if sizes.get("S", 1) > 1:
            refuse(path, "colour images")
        others = {axis: length for axis, length in sizes.items() if axis not in "TCZYXS" and length > 1}
        if "P" in others:
            refuse(path, f"{others['P']} positions", "one position a file: save them as separate files")
        if others:
            refuse(path, f"axes {', '.join(others)}", "times, channels and focal planes")
        if file.dtype not in (np.uint8, np.uint16):
            refuse(path, f"pixels of type {file.dtype}")
        check_claimed_size(path, sizes["Y"], sizes["X"], file.dtype.itemsize, of="a plane")
        size = file.voxel_size()
        pixel_size_um = plausible_pixel_size((size.y, size.x))
        stacked = "Z" in sizes and size.z > 0
        channels = [_channel(channel) for channel in file.metadata.channels or []]
        self.info = StackInfo(
            path,
            (sizes["Y"], sizes["X"]),
            times=sizes.get("T", 1),
            channels=tuple([*channels, *[Channel()] * sizes.get("C", 1)][: sizes.get("C", 1)]),
            focal_planes=sizes.get("Z", 1),
            pixel_size_um=pixel_size_um,
            z_step_um=float(size.z) if stacked else None,
            time_increment_s=_time_increment(file),
            warnings=() if pixel_size_um else ("its pixel size is missing or not one of a light microscope",),
        )
        self._frames = {
            (index.get("T", 0), index.get("Z", 0)): number for number, index in enumerate(file.loop_indices)
        }

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X)."""
        check_index(self.info, t, c, z)
        try:
            frame = np.asarray(self._file.read_frame(self._frames[t, z]))
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise UserError(
                f"{self.info.path}: found damaged pixel data at t {t}, z {z}, expected {EXPECTED_PLANE}."
            ) from error
        return to_uint16(frame.reshape(len(self.info.channels), *self.info.shape)[c])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the stack itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()


def _channel(channel: Any) -> Channel:
    """Describe a channel. NIS-Elements calls every channel fluorescence that is not set up as something else."""
    flags = channel.microscope.modalityFlags or []
    return describe_channel(
        channel.channel.name,
        contrast_method=next((_CONTRASTS[flag] for flag in flags if flag in _CONTRASTS), None),
        fluorescent=bool(channel.channel.emissionLambdaNm),
    )


def _time_increment(file: Any) -> float | None:
    """Seconds between time points: as measured, else as planned."""
    for loop in file.experiment:
        if loop.type == "TimeLoop":
            average = loop.parameters.periodDiff.avg or loop.parameters.periodMs
            return float(f"{average / 1000:.9g}") if average > 0 else None
    return None

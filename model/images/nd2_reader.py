"""Read Nikon's ND2 files frame by frame, with the package nd2."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .channels import describe_channel
from .grey import to_grey
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, missing_package, refuse
from .stack import Channel, Stack, StackInfo, check_index, describing_scene
from .units import plausible_pixel_size, plausible_z_step

_CONTRASTS = {"brightfield": "brightfield", "phaseContrast": "phase", "diContrast": "dic"}
_AXES = {"TimeLoop": "T", "NETimeLoop": "T", "ZStackLoop": "Z", "XYPosLoop": "P"}


def open_nd2(path: Path, scene: int) -> "Nd2Stack":
    """Open a scene (stage position) of an ND2 file, counted from 0.

    Raises
    ------
    UserError
        Where it cannot be read, the package nd2 is missing, or it holds something else than planes of 8- or 16-bit
        grey values.
    """
    check_is_file(path)
    try:
        import nd2
    except ImportError as error:
        raise missing_package(path, "an ND2 file", "nd2") from error
    try:
        file = nd2.ND2File(path)
    except Exception as error:  # struct, value, index: a file that lies can raise any
        raise UserError(f"{path}: found a damaged or truncated ND2 file, expected {EXPECTED_PLANE}.") from error
    try:
        return Nd2Stack(path, file, scene)
    except UserError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise UserError(f"{path}: found a damaged or truncated ND2 file, expected {EXPECTED_PLANE}.") from error


class Nd2Stack(Stack):
    """The planes of a scene of an open ND2 file; a frame holds all channels of one time and focal plane."""

    def __init__(self, path: Path, file: Any, scene: int) -> None:
        self._file = file
        _check_kind(path, file)
        attributes = file.attributes
        warnings: list[str] = []
        self._frames, times, focal_planes, scenes = _frames(path, file, scene, warnings)
        channels = [_channel(channel) for channel in file.metadata.channels or []]
        if len(channels) != attributes.componentCount:
            warnings.append(f"it describes {len(channels)} channels of {attributes.componentCount}, so none is known")
            channels = [Channel()] * attributes.componentCount
        size = _pixel_size(file)
        if size is None:
            warnings.append("its pixel size is missing or not one of a light microscope")
        self.info = StackInfo(
            path,
            (attributes.heightPx, attributes.widthPx),
            times=times,
            channels=tuple(channels),
            focal_planes=focal_planes,
            pixel_size_um=size,
            z_step_um=_z_step(file),
            time_increment_s=_time_increment(file),
            warnings=tuple(warnings),
            scenes=scenes,
            scene_name=_scene_name(file, scene),
        )

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X)."""
        check_index(self.info, t, c, z)
        try:
            frame = np.asarray(self._file.read_frame(self._frames[t, z]))
            plane = frame.reshape(len(self.info.channels), *self.info.shape)[c]
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise UserError(
                f"{self.info.path}: found damaged pixel data at t {t}, z {z}, expected {EXPECTED_PLANE}."
            ) from error
        if not plane.any() and not frame.any():  # what the package gives for a frame that is not in the file
            refuse(self.info.path, f"no pixels at t {t}, z {z} (the frame is missing, or 0 everywhere)")
        return to_grey(plane)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _check_kind(path: Path, file: Any) -> None:
    """Refuse what are no grey images, before anything is decoded."""
    attributes = file.attributes
    if file.components_per_channel != 1:
        refuse(path, f"colour images ({file.components_per_channel} values a pixel)")
    for loop in file.experiment:
        if loop.type not in _AXES and loop.count > 1:
            refuse(path, f"a {loop.type} of {loop.count}", "times, positions, channels and focal planes")
    if file.dtype not in (np.uint8, np.uint16):
        refuse(path, f"pixels of type {file.dtype}")
    if attributes.compressionType == "lossy":  # the package takes the compressed bytes for pixels
        refuse(path, "lossy compression", "none, or lossless compression")
    check_claimed_size(path, attributes.heightPx, attributes.widthPx, file.dtype.itemsize, of="a plane")


def _frames(path: Path, file: Any, scene: int, warnings: list[str]) -> tuple[dict[tuple[int, int], int], int, int, int]:
    """Find the number of the frame of each (t, z), how many times and focal planes are whole, and how many scenes.

    A recording that was stopped lacks frames.
    """
    counts = dict.fromkeys("TZP", 1)
    for loop in file.experiment:
        if loop.type in _AXES:
            counts[_AXES[loop.type]] *= loop.count
    described, recorded = file.loop_indices, file.attributes.sequenceCount
    numbered = [tuple(at.get(axis, 0) for axis in "PTZ") for at in described[:recorded]]
    held = set(numbered)
    whole_times = [
        [t for t in range(counts["T"]) if all((p, t, z) in held for z in range(counts["Z"]))]
        for p in range(1 + max((p for p, _, _ in numbered), default=0))
    ]
    scenes = max(1, sum(bool(whole) for whole in whole_times))  # of the last one that was begun, no time may be whole
    whole = whole_times[scene] if scene < scenes else []
    frames = {(t, z): number for number, (p, t, z) in enumerate(numbered) if p == scene}
    understood = len(described) == math.prod(counts.values()) and not (recorded > 1 and len(described) == 1)
    with describing_scene(path, scene, scenes):
        if not whole or not understood:
            of = f" of {counts['P']} positions" if counts["P"] > 1 else ""
            found = f"{recorded} frames, described as {counts['T']} times and {counts['Z']} focal planes{of}"
            refuse(path, found, "a frame for each time and focal plane")
    if scenes < counts["P"]:
        warnings.append(f"{counts['P'] - scenes} of its {counts['P']} positions lack planes and are left out")
    if len(whole) < counts["T"]:
        warnings.append(f"{counts['T'] - len(whole)} of its {counts['T']} time points lack planes and are left out")
    if recorded > len(described):
        warnings.append(f"{recorded - len(described)} of its {recorded} frames are not described and are left out")
    return frames, len(whole), counts["Z"], scenes


def _scene_name(file: Any, scene: int) -> str | None:
    points = [point for loop in file.experiment if loop.type == "XYPosLoop" for point in loop.parameters.points]
    return points[scene].name or None if scene < len(points) else None


def _channel(channel: Any) -> Channel:
    """Describe a channel. NIS-Elements calls every channel fluorescence that is not set up as something else."""
    flags = channel.microscope.modalityFlags or []
    return describe_channel(
        channel.channel.name,
        contrast_method=next((_CONTRASTS[flag] for flag in flags if flag in _CONTRASTS), None),
        illumination="transmitted" if "transmitDetector" in flags else None,
        fluorescent=bool(channel.channel.emissionLambdaNm),
    )


def _pixel_size(file: Any) -> tuple[float, float] | None:
    """Pixel size (y, x) in µm; an objective that was not calibrated has a size of 1 that means nothing."""
    channels = file.metadata.channels or []
    if not channels or not all(channels[0].volume.axesCalibrated[:2]):
        return None
    x, y = channels[0].volume.axesCalibration[:2]
    return plausible_pixel_size((y, x))


def _z_step(file: Any) -> float | None:
    steps = [abs(loop.parameters.stepUm) for loop in file.experiment if loop.type == "ZStackLoop"]
    return plausible_z_step(steps[0]) if len(steps) == 1 else None


def _time_increment(file: Any) -> float | None:
    """Seconds between time points: as measured, else as planned; None where they differ."""
    loops = [loop.parameters for loop in file.experiment if loop.type == "TimeLoop"]
    loops += [period for loop in file.experiment if loop.type == "NETimeLoop" for period in loop.parameters.periods]
    if len(loops) != 1:
        return None
    milliseconds = loops[0].periodDiff.avg or loops[0].periodMs
    return float(f"{milliseconds / 1000:.9g}") if milliseconds > 0 else None

"""What the metadata of an OME-Zarr image say of its axes, its sizes and its channels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .channels import describe_channel
from .limits import refuse
from .stack import Channel
from .units import plausible_pixel_size, plausible_z_step, seconds_per_unit, um_per_unit

_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
_AXES_BEFORE_0_3 = "tczyx"  # which had no field for them
_WITHOUT_SIZE = ("translation", "identity")


@dataclass(frozen=True)
class Sizes:
    """Distances between pixels, focal planes and times; None: not stated, or not to be trusted."""

    pixel_size_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    time_increment_s: float | None = None


def check_version(path: Path, metadata: Mapping[str, Any], multiscale: Mapping[str, Any]) -> None:
    """Refuse versions that are not known: the axes of one that is to come stand elsewhere. Raises UserError."""
    version = metadata.get("version", multiscale.get("version"))
    if version is not None and str(version) not in _VERSIONS:
        refuse(path, f"OME-Zarr {version}", f"one of the versions {', '.join(_VERSIONS)}")


def read_axes(path: Path, multiscale: Mapping[str, Any], dimensions: int) -> dict[str, str | None]:
    """Names of the axes in the order of the array, each with its unit.

    Raises
    ------
    UserError
        Where they are not some of t, c, z, then y, x, one for each dimension.
    """
    stated = multiscale.get("axes") or list(_AXES_BEFORE_0_3)
    axes = [{"name": axis} if isinstance(axis, str) else axis for axis in stated]
    names = [str(axis["name"]) for axis in axes]
    others = names[:-2]
    if names[-2:] != ["y", "x"] or len(names) != dimensions or not set(others) <= set("tcz") or _repeats(others):
        found = f"axes {', '.join(names)} of an array of {dimensions} dimensions"
        refuse(path, found, "some of t, c, z, then y, x, one for each dimension")
    return {name: axis.get("unit") or None for name, axis in zip(names, axes, strict=True)}


def read_sizes(
    units: Mapping[str, str | None], multiscale: Mapping[str, Any], dataset: Mapping[str, Any], warnings: list[str]
) -> Sizes:
    """Multiply the scales of the array and of the image, in the units of the axes.

    A scale of 1 without a unit is what programs write that know no size.
    """
    scale = _scale(list(units), multiscale, dataset, warnings)
    if scale is None:
        return Sizes()
    stated = {axis: value for axis, value in scale.items() if value != 1 or units[axis]}
    if any(axis in stated and not units[axis] for axis in "zyx"):
        warnings.append("its sizes have no unit and are taken as µm")
    lengths = {axis: stated[axis] * (um_per_unit(units[axis] or "µm") or math.nan) for axis in "zyx" if axis in stated}
    pixel_size = None
    if {"y", "x"} & stated.keys():
        pixel_size = plausible_pixel_size((lengths.get("y", math.nan), lengths.get("x", math.nan)))
        if pixel_size is None:
            warnings.append("its pixel size is not one of a light microscope and is ignored")
    z_step = plausible_z_step(lengths.get("z"))
    if z_step is None and "z" in lengths:
        warnings.append("its distance of focal planes is not one of a light microscope and is ignored")
    increment = stated.get("t", 0.0) * (seconds_per_unit(units.get("t") or "") or 0.0)
    return Sizes(pixel_size, z_step, float(f"{increment:.9g}") if 0 < increment < math.inf else None)


def read_channels(metadata: Mapping[str, Any], count: int, warnings: list[str]) -> tuple[Channel, ...]:
    """Describe the channels by their labels, unless these are more or fewer than the array has."""
    stated = (metadata.get("omero") or {}).get("channels") or []
    if stated and len(stated) != count:
        warnings.append(f"its metadata name {len(stated)} channels, it has {count}: the names are ignored")
        stated = []
    labels = [channel.get("label") for channel in stated] or [None] * count
    return tuple(describe_channel(None if label is None else str(label)) for label in labels)


def _scale(
    axes: Sequence[str], multiscale: Mapping[str, Any], dataset: Mapping[str, Any], warnings: list[str]
) -> dict[str, float] | None:
    product, stated = [1.0] * len(axes), False
    for owner in (dataset, multiscale):
        for transformation in owner.get("coordinateTransformations") or ():
            kind, values = transformation.get("type"), transformation.get("scale")
            if kind in _WITHOUT_SIZE:
                continue
            if kind != "scale" or not isinstance(values, list) or len(values) != len(axes):
                warnings.append(f"its transformation {str(kind)!r} does not fit its axes, so its sizes are unknown")
                return None
            product = [before * float(value) for before, value in zip(product, values, strict=True)]
            stated = True
    return dict(zip(axes, product, strict=True)) if stated else None


def _repeats(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)

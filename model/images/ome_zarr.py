"""Read OME-Zarr images of the versions 0.1 to 0.5 plane by plane, with the package zarr."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .channels import describe_channel
from .limits import EXPECTED_PLANE, MAX_SIDE_PX, refuse
from .stack import Channel, StackInfo, check_index, to_uint16
from .units import plausible_pixel_size, seconds_per_unit, um_per_unit

PROVENANCE_KEY = "in-silico-labelling/provenance"

_EXPECTED = "an OME-Zarr image"
_MAX_CHUNK_PX = 2**30  # a chunk is decoded as a whole
_AXES_OF_OLD_VERSIONS = "tczyx"


def open_ome_zarr(path: Path) -> "OmeZarrStack":
    """Open the folder of an OME-Zarr image.

    Raises
    ------
    UserError
        Where it cannot be read, the package zarr is missing, or it is something else than one image of planes of 8-
        or 16-bit grey values.
    """
    if not path.is_dir():
        refuse(path, "a file" if path.exists() else "nothing", f"the folder of {_EXPECTED}")
    try:
        import zarr
    except ImportError as error:
        raise UserError(
            f"{path}: found OME-Zarr, but the package to read it is missing, "
            'expected it by: pip install "in-silico-labelling[zarr]".'
        ) from error
    _refuse_links_out(path)
    try:
        group = zarr.open_group(path, mode="r")
        return OmeZarrStack(path, *_only_image(path, group))
    except UserError:
        raise
    except FileNotFoundError:
        refuse(path, "a folder without a Zarr group", _EXPECTED)
    except Exception as error:  # metadata that lie can raise any
        raise UserError(f"{path}: found damaged or incomplete metadata, expected {_EXPECTED}.") from error


class OmeZarrStack:
    """The planes of full resolution of an open image."""

    def __init__(self, path: Path, group: Any, metadata: Mapping[str, Any]) -> None:
        multiscale = metadata["multiscales"][0]
        dataset = multiscale["datasets"][0]
        if ".." in PurePosixPath(dataset["path"]).parts:
            refuse(path, f"an array outside of it ({dataset['path']})", _EXPECTED)
        self._array = group[dataset["path"]]
        axes = _axes(multiscale, self._array.ndim)
        self._axes = "".join(axis["name"] for axis in axes)
        _check_array(path, self._array, self._axes)
        sizes = dict(zip(self._axes, self._array.shape, strict=True))
        scale = _scale(self._axes, multiscale, dataset)
        warnings: list[str] = []
        units = {axis["name"]: axis.get("unit") for axis in axes}
        labels = [channel.get("label") for channel in metadata.get("omero", {}).get("channels", [])]
        named = [describe_channel(None if label is None else str(label)) for label in labels]
        missing = self._array.nchunks - self._array.nchunks_initialized
        if missing:
            warnings.append(f"{missing} of its {self._array.nchunks} chunks are missing and taken as empty")
        z_factor = um_per_unit(units.get("z") or "µm")
        t_factor = seconds_per_unit(units.get("t") or "s")
        self.info = StackInfo(
            path,
            (sizes["y"], sizes["x"]),
            times=sizes.get("t", 1),
            channels=tuple([*named, *[Channel()] * sizes.get("c", 1)][: sizes.get("c", 1)]),
            focal_planes=sizes.get("z", 1),
            pixel_size_um=_pixel_size(scale, units, warnings),
            z_step_um=scale["z"] * z_factor if "z" in scale and z_factor else None,
            time_increment_s=scale["t"] * t_factor if "t" in scale and t_factor and units.get("t") else None,
            provenance={str(key): str(value) for key, value in dict(group.attrs).get(PROVENANCE_KEY, {}).items()},
            warnings=tuple(warnings),
        )

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X)."""
        check_index(self.info, t, c, z)
        position = {"t": t, "c": c, "z": z}
        try:
            plane = np.asarray(self._array[tuple(position.get(axis, slice(None)) for axis in self._axes)])
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise UserError(
                f"{self.info.path}: found damaged pixel data at t {t}, c {c}, z {z}, expected {EXPECTED_PLANE}."
            ) from error
        return to_uint16(plane)

    def close(self) -> None:
        """Do nothing: chunks are files that are opened when they are read."""

    def __enter__(self) -> Self:
        """Return the stack itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing."""


def _refuse_links_out(path: Path) -> None:
    inside = os.path.realpath(path) + os.sep
    for parent, folders, names in os.walk(path):
        for name in (*folders, *names):
            entry = os.path.join(parent, name)
            if os.path.islink(entry) and not os.path.realpath(entry).startswith(inside):
                refuse(Path(entry), f"a link that leads out of {path}", "a file within it")


def _only_image(path: Path, group: Any) -> tuple[Any, Mapping[str, Any]]:
    """Find the group of the only image and its OME metadata; from 0.5 on they stand below the attribute ``ome``."""
    metadata = _ome(group)
    if "plate" in metadata or "well" in metadata:
        kind = "a plate of wells" if "plate" in metadata else "a well of several fields"
        refuse(path, kind, f"{_EXPECTED}, such as one field in it")
    if "image-label" in metadata:
        refuse(path, "labels of segmented objects", _EXPECTED)
    if "multiscales" not in metadata and "bioformats2raw.layout" in {**metadata, **dict(group.attrs)}:
        series = sorted(name for name in group.group_keys() if name.isdecimal())
        if len(series) != 1:
            refuse(path, f"{len(series)} images (series)", f"{_EXPECTED}, such as one of them")
        group = group[series[0]]
        metadata = _ome(group)
    if not metadata.get("multiscales"):
        refuse(path, "a Zarr group without an image (multiscales)", _EXPECTED)
    return group, metadata


def _ome(group: Any) -> Mapping[str, Any]:
    attributes: dict[str, Any] = dict(group.attrs)
    nested: dict[str, Any] = attributes.get("ome", attributes)
    return nested


def _axes(multiscale: Mapping[str, Any], dimensions: int) -> list[Mapping[str, Any]]:
    axes = multiscale.get("axes") or list(_AXES_OF_OLD_VERSIONS[-dimensions:])
    return [{"name": axis} if isinstance(axis, str) else axis for axis in axes]


def _check_array(path: Path, array: Any, axes: str) -> None:
    """Refuse what is no stack of grey planes, before anything is decoded."""
    if len(axes) != array.ndim or len(set(axes)) < len(axes) or axes[-2:] != "yx" or set(axes) - set("tczyx"):
        refuse(
            path,
            f"axes {axes or 'without a name'} of an array of {array.ndim} dimensions",
            "some of t, c, z, then y, x",
        )
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        refuse(path, f"pixels of type {array.dtype}")
    height, width = array.shape[-2:]
    if min(array.shape) < 1 or max(height, width) > MAX_SIDE_PX:
        refuse(path, f"planes of {width} x {height} px", f"at most {MAX_SIDE_PX} px a side")
    if int(np.prod(array.chunks, dtype=np.float64)) > _MAX_CHUNK_PX:
        refuse(path, f"chunks of {' x '.join(map(str, array.chunks))}", "chunks that fit into memory")


def _scale(axes: str, multiscale: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, float]:
    """Multiply the scales of dataset and image; empty where there is none, or none that makes sense."""
    stated = [_scale_of(each) for each in (dataset, multiscale)]
    scales = [scale for scale in stated if scale is not None and len(scale) == len(axes)]
    if not scales:
        return {}
    product = [float(np.prod(values)) for values in zip(*scales, strict=True)]
    return {axis: value for axis, value in zip(axes, product, strict=True) if np.isfinite(value) and value > 0}


def _scale_of(owner: Mapping[str, Any]) -> Sequence[float] | None:
    for transformation in owner.get("coordinateTransformations", ()):
        if transformation.get("type") == "scale":
            return [float(value) for value in transformation["scale"]]
    return None


def _pixel_size(
    scale: Mapping[str, float], units: Mapping[str, str | None], warnings: list[str]
) -> tuple[float, float] | None:
    """Pixel size (y, x) in µm; a scale of 1 without a unit means that nothing is known."""
    if not {"y", "x"} <= scale.keys() or (scale["y"] == scale["x"] == 1 and not units.get("y")):
        return None
    if not (units.get("y") and units.get("x")):
        warnings.append("its pixel size has no unit and is taken as µm")
    factors = [um_per_unit(units.get(axis) or "µm") for axis in "yx"]
    size = None
    if factors[0] is not None and factors[1] is not None:
        size = plausible_pixel_size((scale["y"] * factors[0], scale["x"] * factors[1]))
    if size is None:
        warnings.append("its pixel size is not one of a light microscope and is ignored")
    return size

"""Read OME-Zarr images of the versions 0.1 to 0.5 plane by plane, with the package zarr."""

import os
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .grey import conversion_warnings, is_convertible, to_grey
from .limits import EXPECTED_PLANE, MAX_SIDE_PX, check_expansion, missing_package, refuse
from .ome_zarr_metadata import check_version, read_axes, read_channels, read_sizes
from .stack import Stack, StackInfo, check_index

PROVENANCE_KEY = "in-silico-labelling/provenance"

_EXPECTED = "an OME-Zarr image"
_MAX_CHUNK_PX = 2**30  # a chunk is decoded as a whole
_MAX_PARTS = 10**6  # planes, and chunks, each of which is a file


def open_ome_zarr(path: Path) -> "OmeZarrStack":
    """Open the folder of an OME-Zarr image.

    Raises
    ------
    UserError
        Where it cannot be read, the package zarr is missing, or it is something else than one image of planes of grey
        values.
    """
    _check_is_folder(path)
    try:
        import zarr
    except ImportError as error:
        raise missing_package(path, "OME-Zarr", "'zarr==3.1.*'") from error
    from .ome_zarr_blosc import check_blosc_chunks

    check_blosc_chunks()
    _check_entries(path)
    try:
        # Consolidated metadata are a copy that nothing keeps up to date.
        zarr_format = 3 if (path / "zarr.json").exists() else 2
        group = zarr.open_group(path, mode="r", zarr_format=zarr_format, use_consolidated=False)
        return OmeZarrStack(path, *_only_image(path, group))
    except UserError:
        raise
    except FileNotFoundError:
        refuse(path, "a folder without a Zarr group", _EXPECTED)
    except Exception as error:  # metadata that lie can raise any
        raise UserError(f"{path}: found damaged or incomplete metadata, expected {_EXPECTED}.") from error


class OmeZarrStack(Stack):
    """The planes of full resolution of an open image."""

    def __init__(self, path: Path, group: Any, metadata: Mapping[str, Any]) -> None:
        multiscale = metadata["multiscales"][0]
        check_version(path, metadata, multiscale)
        self._array = _largest_array(path, group, multiscale)
        units = read_axes(path, multiscale, self._array.ndim)
        self._axes = "".join(units)
        _check_array(path, self._array, self._axes)
        lengths = dict(zip(self._axes, self._array.shape, strict=True))
        warnings = [*_chunk_warnings(path, self._array), *conversion_warnings(self._array.dtype)]
        if len(metadata["multiscales"]) > 1:
            warnings.append(f"it holds {len(metadata['multiscales'])} images, of which the first is read")
        sizes = read_sizes(units, multiscale, multiscale["datasets"][0], warnings)
        self.info = StackInfo(
            path,
            (lengths["y"], lengths["x"]),
            times=lengths.get("t", 1),
            channels=read_channels(metadata, lengths.get("c", 1), warnings),
            focal_planes=lengths.get("z", 1),
            pixel_size_um=sizes.pixel_size_um,
            z_step_um=sizes.z_step_um,
            time_increment_s=sizes.time_increment_s,
            provenance={str(key): str(value) for key, value in dict(group.attrs).get(PROVENANCE_KEY, {}).items()},
            warnings=tuple(warnings),
        )

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X)."""
        check_index(self.info, t, c, z)
        position, path = {"t": t, "c": c, "z": z}, self.info.path
        try:
            plane = np.asarray(self._array[tuple(position.get(axis, slice(None)) for axis in self._axes)])
        except MemoryError as error:
            raise UserError(f"{path}: there is not enough memory for its chunks.") from error
        except Exception as error:  # decoders raise whatever they like on damaged data
            if isinstance(error, OSError) and error.strerror:  # which decoders' errors lack
                raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
            raise UserError(
                f"{path}: found damaged pixel data at t {t}, c {c}, z {z}, expected {EXPECTED_PLANE}."
            ) from error
        return to_grey(plane)

    def close(self) -> None:
        """Do nothing: chunks are files that are opened when they are read."""


def _check_is_folder(path: Path) -> None:
    if path.is_dir():
        return
    if path.is_file() and zipfile.is_zipfile(path):
        refuse(path, "a zipped OME-Zarr image", "its folder, unzipped")
    refuse(path, "a file" if path.exists() else "nothing", f"the folder of {_EXPECTED}")


def _check_entries(path: Path) -> None:
    """Refuse links that lead elsewhere, and what is neither file nor folder: a pipe would be waited for."""
    inside = os.path.realpath(path) + os.sep
    for parent, folders, names in os.walk(path):
        for name in (*folders, *names):
            entry = os.path.join(parent, name)
            if os.path.islink(entry) and not os.path.realpath(entry).startswith(inside):
                refuse(Path(entry), f"a link that leads out of {path}", "a file within it")
        for name in names:
            if not os.path.isfile(os.path.join(parent, name)):
                refuse(Path(parent, name), "something that is no file", "only files and folders in an OME-Zarr image")


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
        return _only_image(path, group[series[0]])
    if not metadata.get("multiscales"):
        refuse(path, "a Zarr group without an image (multiscales)", _EXPECTED)
    return group, metadata


def _ome(group: Any) -> Mapping[str, Any]:
    attributes: dict[str, Any] = dict(group.attrs)
    nested: dict[str, Any] = attributes.get("ome", attributes)
    return nested


def _largest_array(path: Path, group: Any, multiscale: Mapping[str, Any]) -> Any:
    """Get the array of full resolution, which the standard puts first."""
    names = [str(dataset["path"]) for dataset in multiscale["datasets"]]
    for name in names:
        if ".." in Path(name).parts:
            refuse(path, f"an array outside of it ({name})", _EXPECTED)
    first, *smaller = (group.get(name) for name in names)
    if not hasattr(first, "shape"):
        refuse(path, f"no array {names[0]!r}, which its metadata name", _EXPECTED)
    for name, array in zip(names[1:], smaller, strict=True):
        if array is not None and prod(array.shape) > prod(first.shape):
            refuse(path, f"a larger array {name!r} behind {names[0]!r}", "the array of full resolution first")
    return first


def _check_array(path: Path, array: Any, axes: str) -> None:
    """Refuse what is no stack of grey planes, before anything is decoded."""
    named = getattr(array.metadata, "dimension_names", None)  # of Zarr 3
    if named and any(name not in (None, axis) for name, axis in zip(named, axes, strict=True)):
        refuse(path, f"dimensions {', '.join(map(str, named))} of an array with axes {', '.join(axes)}", "the same")
    if not is_convertible(array.dtype):
        refuse(path, f"pixels of type {array.dtype}")
    height, width = array.shape[-2:]
    if min(array.shape) < 1 or max(height, width) > MAX_SIDE_PX:
        refuse(path, f"planes of {width} x {height} px", f"at most {MAX_SIDE_PX} px a side")
    if prod(_stored_chunk(array)) > _MAX_CHUNK_PX:
        refuse(path, f"chunks of {' x '.join(map(str, _stored_chunk(array)))}", "chunks that fit into memory")
    parts = max(prod(array.shape[:-2]), array.nchunks)
    if parts > _MAX_PARTS:
        refuse(path, f"{parts} planes or chunks", f"at most {_MAX_PARTS}")


def _stored_chunk(array: Any) -> tuple[int, ...]:
    """Shape of what one file holds: a chunk, or from Zarr 3 on a shard of several."""
    shape: tuple[int, ...] = array.shards or array.chunks
    return shape


def _chunk_warnings(path: Path, array: Any) -> tuple[str, ...]:
    """Warn of missing chunks, which the standard takes as empty and an interrupted copy lacks as well."""
    shape = _stored_chunk(array)
    count = prod(-(-length // side) for length, side in zip(array.shape, shape, strict=True))
    stored = array.nchunks_initialized // prod(side // part for side, part in zip(shape, array.chunks, strict=True))
    if not stored:
        refuse(path, "no pixels (all chunks are missing)", _EXPECTED)
    height, width = (max(sides) for sides in zip(array.shape[-2:], shape[-2:], strict=True))
    claimed = prod(shape[:-2]) * height * width * array.dtype.itemsize
    check_expansion(path, claimed, array.nbytes_stored(), of=f"planes and chunks of {claimed} bytes")
    if stored == count:
        return ()
    return (f"{count - stored} of its {count} chunks are missing and taken as {int(array.fill_value or 0)}",)

"""Find the images of an OME-Zarr folder that holds several: the fields of a plate's wells, or the series of a file.

Reads the JSON of the groups alone, without the package zarr.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .limits import refuse

GROUP_FILES = frozenset({".zgroup", ".zattrs", "zarr.json"})
"""What tells a Zarr group from other folders, whatever it is called."""

_LEVELS = 2  # a plate holds wells, a well holds fields


def is_zarr_group(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in GROUP_FILES)


def images_within(path: Path, levels: int = _LEVELS) -> list[str]:
    """List the images of a Zarr group.

    Parameters
    ----------
    path : Path
    levels : int
        How many groups may hold others.

    Returns
    -------
    list of str
        Paths relative to the group; ``""`` alone where it is itself an image, or its metadata cannot be read; empty
        where these are no metadata of OME-Zarr.

    Raises
    ------
    UserError
        Where it names a group outside of it.
    """
    try:
        members = _members(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return [""]  # what is wrong is said when it is opened
    if members is None or not levels:
        return [""]
    for member in members:
        if os.path.normpath(member) != member or member.split(os.sep)[0] in ("", os.curdir, os.pardir):
            refuse(path, f"the name {member!r} of a group", "a group within it")
    return [
        os.path.join(member, image) if image else member
        for member in members
        for image in images_within(path / member, levels - 1) or [""]
    ]


def _members(path: Path) -> list[str] | None:
    """Paths of the groups that its metadata name: a plate's wells, a well's fields, a file's series; None: an image."""
    attributes = _attributes(path)
    metadata = attributes.get("ome", attributes)
    if "plate" in metadata:
        return [str(well["path"]) for well in metadata["plate"]["wells"]]
    if "well" in metadata:
        return [str(image["path"]) for image in metadata["well"]["images"]]
    if "multiscales" in metadata:
        return None
    if "bioformats2raw.layout" not in {**metadata, **attributes}:
        return []
    series = sorted((entry.name for entry in path.iterdir() if entry.name.isdecimal() and entry.is_dir()), key=int)
    return series if len(series) > 1 else None


def _attributes(path: Path) -> Mapping[str, Any]:
    whole = path / "zarr.json"
    if whole.is_file():
        attributes: Mapping[str, Any] = json.loads(whole.read_text(encoding="utf-8"))["attributes"]
    else:
        attributes = json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    return attributes

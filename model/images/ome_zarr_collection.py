"""Find the images of an OME-Zarr folder that holds several: the fields of a plate's wells, or the series of a file.

Reads the JSON of the groups alone, without the package zarr.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        Paths relative to the group; ``""`` alone where it is itself an image, or its metadata make no sense, which is
        said when it is opened; empty where it has no metadata of OME-Zarr.
    """
    try:
        members = _members(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return [""]
    if members is None or not levels or not all(_is_within(member) for member in members):
        return [""]
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
        return _paths(metadata["plate"]["wells"])
    if "well" in metadata:
        return _paths(metadata["well"]["images"])
    if "multiscales" in metadata:
        return None
    if "bioformats2raw.layout" not in {**metadata, **attributes}:
        return []
    series = sorted((entry.name for entry in path.iterdir() if entry.name.isdecimal() and entry.is_dir()), key=int)
    return series if len(series) > 1 else None


def _paths(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Path of each group, once."""
    return list(dict.fromkeys(str(group["path"]).rstrip("/") for group in groups))


def _attributes(path: Path) -> Mapping[str, Any]:
    """Attributes of a group; empty where it has none."""
    file = path / "zarr.json"
    if file.is_file():
        attributes = json.loads(file.read_text(encoding="utf-8")).get("attributes", {})
    else:
        file = path / ".zattrs"
        attributes = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return attributes if isinstance(attributes, dict) else {}


def _is_within(member: str) -> bool:
    """Whether a name means a group below: no way out, nothing that no file system takes."""
    sound = os.path.normpath(member) == member and "\0" not in member and member.isprintable()
    return sound and member.split(os.sep)[0] not in ("", os.curdir, os.pardir)

"""Tell apart the images of a TIFF that differ in size: by its OME-XML each is a scene of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .ome_xml import companion_name, directories_of_images, looks_like_ome, parse_ome
from .tiff_directories import unmarked_shapes


def split_by_size(path: Path, pages: Sequence[tuple[int, Any]]) -> list[frozenset[int]]:
    """List the directories of each OME Image of a file whose Images have several sizes.

    Parameters
    ----------
    path : Path
    pages : sequence of (int, tifffile.TiffPage)
        All directories of the chain, each with its number; the first one's description is the file's.

    Returns
    -------
    list of frozenset of int
        Empty where all have one size, where the smaller ones are copies, or where the OME-XML does not tell.
    """
    shapes = unmarked_shapes(pages)
    description = str(pages[0][1].description) if pages else ""
    if len(set(shapes.values())) < 2 or not looks_like_ome(description):
        return []
    try:
        root = parse_ome(description, path)
    except ValueError:
        return []
    if companion_name(root):
        return []
    return directories_of_images(root, path, shapes)

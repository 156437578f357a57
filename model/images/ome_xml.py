"""Read what an OME-XML says about the planes of one file: pixel size, channels, positions; and our own provenance.

Read attribute by attribute with the standard library's parser: one invalid value costs no other. A data set of many
files repeats one XML in each of them, so the Image that means *this* file is found by its TiffData (UUID, file name,
directory), else by its size in pixels.
"""

import html
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .limits import refuse
from .ome_image import OmeImage, OmeMetadata, PlaneLocation, channel_of, children
from .stack import Channel, Position, describing_scene

PROVENANCE_NAMESPACE = "in-silico-labelling/provenance"

_ROOT = re.compile(r"<(\w+:)?OME[\s>/]")
_TOLERANCE = 0.1
"""Relative, of the pixel size of a smaller copy, whose sides are rounded to whole pixels."""
_XML_ENTITIES = {"amp", "lt", "gt", "quot", "apos"}


@dataclass(frozen=True)
class OmeStackMetadata:
    """What an OME-XML says about the planes of one file.

    Attributes
    ----------
    positions : mapping of int to (int, int, int)
        (t, c, z) of each plane by its number in the file, in this order.
    channels : mapping of int to Channel
        Of each c of the positions.
    pixel_size_um : (float, float) or None
    states_size : bool
        As in `OmeMetadata`.
    z_step_um, time_increment_s : float or None
    warnings : tuple of str
    scenes : int
        How many Images have planes in the file.
    scene_name : str or None
    """

    positions: Mapping[int, Position]
    channels: Mapping[int, Channel]
    pixel_size_um: tuple[float, float] | None
    states_size: bool
    z_step_um: float | None
    time_increment_s: float | None
    warnings: tuple[str, ...]
    scenes: int
    scene_name: str | None


def looks_like_ome(description: str) -> bool:
    """Whether a TIFF's ImageDescription means to be OME-XML, be it sound or broken."""
    return _ROOT.search(description) is not None


def parse_ome(description: str, path: Path) -> ElementTree.Element:
    """Parse the OME element of a description of the file `path`, whatever text stands around it.

    Raises
    ------
    UserError
        Where it defines entities, which OME never needs and which expand a few lines to gigabytes.
    ValueError
        Where it is not well-formed; the reason in one line.
    """
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", description, re.IGNORECASE):
        refuse(path, "XML with DOCTYPE or ENTITY declarations", "plain OME-XML")
    start = _ROOT.search(description)
    if start is None:
        raise ValueError("no OME element")
    text = description[start.start() :]
    end = text.rfind(f"</{start[1] or ''}OME>")
    text = text if end < 0 else text[: end + len(f"</{start[1] or ''}OME>")]
    try:
        return ElementTree.fromstring(_well_formed(text))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise ValueError(str(error).splitlines()[0][:200]) from error


def companion_name(root: ElementTree.Element) -> str | None:
    """Name of the file that holds the metadata instead (``BinaryOnly``); None where this XML holds them itself."""
    for element in children(root, "BinaryOnly"):
        return element.get("MetadataFile")
    return None


def read_provenance(root: ElementTree.Element) -> dict[str, str]:
    """Read what `write_plane` recorded as a MapAnnotation, in its order; empty where there is none."""
    for annotations in children(root, "StructuredAnnotations"):
        for annotation in children(annotations, "MapAnnotation"):
            if annotation.get("Namespace") == PROVENANCE_NAMESPACE:
                entries = (entry for value in children(annotation, "Value") for entry in children(value, "M"))
                return {entry.get("K", ""): entry.text or "" for entry in entries}
    return {}


def read_plane_metadata(root: ElementTree.Element, where: PlaneLocation, file_uuid: str | None) -> OmeMetadata:
    """Read what the XML says about the plane at `where`; `file_uuid` is the file's own, where it states one."""
    images = _images(root)
    if not images:
        lost = "its OME-XML describes no image, so pixel size and channel are unknown"
        return OmeMetadata(states_size=True, warnings=(lost,))
    file_uuid = _known_uuid(images, file_uuid)
    meant = _images_meant(images, where, file_uuid)
    if len({(image.size_attributes, repr(image.channels)) for image in meant}) != 1:
        found = f"its OME-XML describes {len(images)} images and does not say which of them this plane is"
        return OmeMetadata(states_size=True, warnings=(f"{found}, so pixel size and channel are unknown",))
    return meant[0].describe(where, file_uuid)


def read_stack_metadata(
    root: ElementTree.Element,
    path: Path,
    directories: Sequence[int],
    chain: int,
    shape: tuple[int, int],
    file_uuid: str | None,
    scene: int,
) -> OmeStackMetadata:
    """Read what the XML says about the planes of the file `path` that are of one scene.

    Parameters
    ----------
    root : Element
    path : Path
    directories : sequence of int
        Numbers of the planes' directories in the file's chain.
    chain : int
        How many directories the chain has.
    shape : (int, int)
        Rows and columns of each plane.
    file_uuid : str or None
        The file's own, where it states one.
    scene : int
        Which of the Images that have planes in the file, from 0.

    Returns
    -------
    OmeStackMetadata

    Raises
    ------
    UserError
        Where the XML does not describe each plane of the file once.
    """
    images = _images(root)
    file_uuid = _known_uuid(images, file_uuid)
    found = [(image, image.positions(path.name, max(directories) + 1, file_uuid)) for image in images]
    found = [(image, positions) for image, positions in found if not positions.keys().isdisjoint(directories)]
    images_of = Counter(number for _, positions in found for number in positions)
    described = sum(number in images_of for number in directories)
    if described < len(directories):
        refuse(
            path,
            f"{len(directories)} planes, of which its OME-XML describes {described}",
            "OME-XML that says which time, channel and focal plane each of them is",
        )
    if any(images_of[number] > 1 for number in directories):
        refuse(path, f"OME-XML that describes a plane as part of several of its {len(found)} images", "one for each")
    with describing_scene(path, scene, len(found)):
        image, positions = found[scene]
        positions = {number: positions[at] for number, at in enumerate(directories) if at in positions}
        if len(set(positions.values())) < len(positions):
            expected = "another time, channel or focal plane for each"
            refuse(path, "OME-XML that describes two planes as the same", expected)
    warnings: list[str] = []
    size, states_size = image.pixel_size(shape, warnings)
    attributes = dict(enumerate(image.channels[: image.sizes["C"]]))
    channels = {c: channel_of(attributes.get(c, {}), warnings) for c in sorted({c for _, c, _ in positions.values()})}
    lost = [i for i in images if i.promised(path.name, file_uuid) and not i.positions(path.name, chain, file_uuid)]
    if lost:
        planes = sum(image.promised(path.name, file_uuid) for image in lost)
        warnings.append(f"its OME-XML describes {len(lost)} images of {planes} planes more than it holds")
    missing = image.promised(path.name, file_uuid) - len(positions)
    if missing > 0:
        warnings.append(f"its OME-XML describes {missing} planes more than it holds")
    steps = image.z_step_um, image.time_increment_s
    return OmeStackMetadata(positions, channels, size, states_size, *steps, tuple(warnings), len(found), image.name)


def directories_of_images(
    root: ElementTree.Element, path: Path, shapes: Mapping[int, tuple[int, int]]
) -> list[frozenset[int]]:
    """List the directories of each Image that has some in the file `path`, if they are of several sizes.

    Parameters
    ----------
    root : Element
    path : Path
    shapes : mapping of int to (int, int)
        Rows and columns of each directory that may hold a plane, by its number in the file's chain.

    Returns
    -------
    list of frozenset of int
        In the order of the Images; empty where they contradict the directories, or all are smaller copies of one.
    """
    images = _images(root)
    file_uuid = _known_uuid(images, (root.get("UUID") or "").strip().lower() or None)
    found = [(image, image.positions(path.name, max(shapes) + 1, file_uuid).keys() & shapes.keys()) for image in images]
    found = [(image, numbers) for image, numbers in found if numbers]
    fits = all(shapes[number] == image.shape for image, numbers in found for number in numbers)
    if not fits or sorted(number for _, numbers in found for number in numbers) != sorted(shapes):
        return []
    of_shape = {shape: [i for i, numbers in found if shapes[min(numbers)] == shape] for shape in set(shapes.values())}
    full = of_shape.pop(max(of_shape, key=math.prod))
    if all(_are_copies(small, full) for small in of_shape.values()):
        return []
    return [frozenset(numbers) for _, numbers in found]


def check_levels(
    root: ElementTree.Element,
    path: Path,
    shape: tuple[int, int],
    levels: Sequence[tuple[int, tuple[int, int]]],
    file_uuid: str | None,
) -> tuple[str, ...]:
    """Check what the XML says of directories that are taken for smaller copies of the image by their size alone.

    Parameters
    ----------
    root : Element
    path : Path
    shape : (int, int)
        Rows and columns of the image.
    levels : sequence of (int, (int, int))
        Number in the file's chain, rows and columns of each such directory.
    file_uuid : str or None
        The file's own, where it states one.

    Returns
    -------
    tuple of str
        A warning, where they are Images of their own, each with as many planes as one of full size and pixels that
        are larger by the same factor: some writers list a pyramid's levels so.

    Raises
    ------
    UserError
        Where they are other Images.
    """
    images = _images(root)
    file_uuid = _known_uuid(images, file_uuid)
    full = [image for image in images if image.shape == shape]
    warnings = []
    for size in dict.fromkeys(size for _, size in levels):
        numbers = {number for number, other in levels if other == size}
        own = [image for image in images if image.shape == size and image.tiff_data]
        small = [i for i in own if not numbers.isdisjoint(i.positions(path.name, max(numbers) + 1, file_uuid))]
        if not small:
            continue
        if not _are_copies(small, full):
            found = " and ".join(f"{x} x {y} px" for y, x in (shape, size))
            refuse(path, f"images (positions or scenes) of {found}", "images of one size")
        warnings.append(f"its image of {size[1]} x {size[0]} px is taken as a smaller copy of the one of full size")
    return tuple(warnings)


def _are_copies(small: Sequence[OmeImage], full: Sequence[OmeImage]) -> bool:
    return len(small) == len(full) and all(any(_is_copy(image, of) for of in full) for image in small)


def _is_copy(small: OmeImage, full: OmeImage) -> bool:
    """Whether an Image may be a smaller copy: as many planes, and pixels that are larger by the same factor."""
    sizes = [image.pixel_size((image.shape[0] or 0, image.shape[1] or 0), [])[0] for image in (small, full)]
    if small.sizes != full.sizes:
        return False
    if sizes[0] is None or sizes[1] is None or not small.shape[1] or not full.shape[1]:
        return True
    factor = full.shape[1] / small.shape[1]
    return abs(sizes[0][1] / sizes[1][1] / factor - 1) < _TOLERANCE


def _images(root: ElementTree.Element) -> list[OmeImage]:
    """Images that have pixels in some file; one may hold metadata alone."""
    pixels = [(image, pixels) for image in children(root, "Image") for pixels in children(image, "Pixels")]
    return [OmeImage.read(*found) for found in pixels if not list(children(found[1], "MetadataOnly"))]


def _known_uuid(images: Sequence[OmeImage], file_uuid: str | None) -> str | None:
    """Return the UUID by which the XML names the file; None where only its name can tell, as of a renamed copy.

    Where the XML names no more than one file, that is this one, whatever it is called by now.
    """
    named = [data for image in images for data in image.tiff_data if data.uuid is not None]
    uuids = {data.uuid for data in named}
    if file_uuid in uuids:
        return file_uuid
    only_one = len(uuids) == 1 and len({data.file_name for data in named}) == 1
    return next(iter(uuids)) if only_one else None


def _images_meant(images: Sequence[OmeImage], where: PlaneLocation, file_uuid: str | None) -> Sequence[OmeImage]:
    """Find the Images that may be this plane's: by TiffData, among them by size; else by size; else the only one."""
    named = [image for image in images if image.data_of(where, file_uuid)]
    fitting = [image for image in named or images if image.agrees(where.shape)]
    if len(images) == 1 or (named and not fitting):
        return named or images
    return fitting or images


def _well_formed(text: str) -> str:
    """Mend what would cost the whole document: characters that XML forbids, HTML's entities, bare ampersands."""

    def entity(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("#") or name in _XML_ENTITIES:
            return match[0]
        known = html.unescape(match[0])
        return known if known != match[0] else f"&amp;{name};"

    text = re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)
    text = re.sub(r"&(?!#\d+;|#x[0-9a-fA-F]+;|\w+;)", "&amp;", text)
    return re.sub(r"&(#?\w+);", entity, text)

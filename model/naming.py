"""The challenge's file names, parsed and written in one place for all four commands.

    image_<N>_<BF|PC|DIC>_z<Z>.ome.tiff                      an unlabelled plane of field N at stage height Z
    image_<N>_<Nucleus|Mitochondria|Tubulin|Actin>.ome.tiff  the fluorescent target of field N

Variants that can only mean the same are accepted: leading zeros, upper or lower case, and a plane without ``_z<Z>``,
which is plane 0. Only base names are looked at, never the folders above them: a study in a folder ``my_BF_data``
says nothing about the modality of its files.
"""

import re
from dataclasses import dataclass

from .labels import Modality, Organelle

# Longest first, so that ".ome.tiff" goes as a whole.
# OME's own names for BigTIFF are .btf, .tf8 and .tf2.
_TIFF_SUFFIXES = (".tiff", ".tif", ".btf", ".tf8", ".tf2")
IMAGE_SUFFIXES = (*(f".ome{suffix}" for suffix in _TIFF_SUFFIXES), *_TIFF_SUFFIXES, ".mha")
STACK_SUFFIXES = (".ome.zarr", ".zarr", ".nd2", ".czi", ".lif", ".stk")
"""Of files of one or more planes that prediction reads; an OME-Zarr image is a folder."""
UNREAD_SUFFIXES = (".lsm", ".oib", ".oif", ".oir", ".vsi", ".ims", ".dv")
"""Of microscope files that are not read, but named with what to do."""
OTHER_IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jp2",
    ".bmp",
    ".gif",
    ".webp",
    ".mhd",
    ".nrrd",
    ".ics",
    ".mrc",
    ".h5",
    ".npy",
)
"""Of image files that are passed over, but counted: they may be what was meant to be predicted."""

_FLAGS = re.IGNORECASE | re.ASCII
_INPUT = re.compile(rf"image_([0-9]+)_({'|'.join(Modality)})(?:_z([0-9]+))?", _FLAGS)
_TARGET = re.compile(rf"image_([0-9]+)_({'|'.join(organelle.label for organelle in Organelle)})", _FLAGS)
_ORGANELLE_OF_LABEL = {organelle.label.lower(): organelle for organelle in Organelle}
_LIKE_CHALLENGE = re.compile(r"image(_|[- ]?[0-9])", _FLAGS)
_MODALITY_TOKEN = re.compile(rf"(?<=_)({'|'.join(Modality)})(?=_)")


@dataclass(frozen=True)
class InputName:
    """Name of one transmitted-light plane: field number, contrast, index of the z plane."""

    image: int
    modality: Modality
    z: int

    @property
    def filename(self) -> str:
        """E.g. ``image_1_BF_z0.ome.tiff``."""
        return f"image_{self.image}_{self.modality}_z{self.z}.ome.tiff"


@dataclass(frozen=True)
class TargetName:
    """Name of one fluorescent target, which all z planes of its field share."""

    image: int
    organelle: Organelle

    @property
    def filename(self) -> str:
        """E.g. ``image_1_Nucleus.ome.tiff``."""
        return f"image_{self.image}_{self.organelle.label}.ome.tiff"


def parse(filename: str) -> InputName | TargetName | None:
    """Read a file name of the challenge.

    Parameters
    ----------
    filename : str
        With any of `IMAGE_SUFFIXES` (predictions have ``.tiff``); folders before it are ignored.

    Returns
    -------
    InputName, TargetName or None
        None for all other names; see `near_miss`. Two names of one folder may mean the same
        (``image_1_BF_z0``, ``image_01_bf``).
    """
    if not is_image(filename):
        return None
    name = stem(filename)
    if match := _INPUT.fullmatch(name):
        return InputName(int(match[1]), Modality(match[2].upper()), int(match[3] or 0))
    if match := _TARGET.fullmatch(name):
        return TargetName(int(match[1]), _ORGANELLE_OF_LABEL[match[2].lower()])
    return None


def near_miss(filename: str) -> bool:
    """Whether an image's name looks like one of the challenge but is none.

    Commands that need the challenge's names say which files they ignore for this reason.

    Parameters
    ----------
    filename : str
        Folders before it are ignored.

    Returns
    -------
    bool
        True for e.g. ``image_1.tiff``, ``image_1_Nuclei.ome.tiff``, ``image-1_BF_z0.tif`` and ``image_1_BF_z0.czi``.
    """
    return is_input(filename) and _LIKE_CHALLENGE.match(stem(filename)) is not None and parse(filename) is None


def modality_token(filename: str) -> Modality | None:
    """Find the modality in a base name.

    Parameters
    ----------
    filename : str
        Folders before the base name are ignored.

    Returns
    -------
    Modality or None
        Of ``_BF_``, ``_PC_`` or ``_DIC_`` anywhere in the name, or of a name that `parse` accepts; None where there
        is none, or two that differ.
    """
    found = set(_MODALITY_TOKEN.findall(_base(filename)))
    if not found and isinstance(name := parse(filename), InputName):
        return name.modality
    return Modality(found.pop()) if len(found) == 1 else None


def is_image(filename: str) -> bool:
    """Whether the base name ends in one of IMAGE_SUFFIXES, in upper or lower case, and is not hidden."""
    name = _base(filename)
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def is_input(filename: str) -> bool:
    """Whether the base name is that of a file to predict, or of one that must be exported first."""
    name = _base(filename)
    return is_image(name) or (not name.startswith(".") and name.lower().endswith(STACK_SUFFIXES + UNREAD_SUFFIXES))


def stem(filename: str) -> str:
    """Return the base name without its image suffix: ``a/image_1_BF_z0.ome.tiff`` -> ``image_1_BF_z0``."""
    name = _base(filename)
    for suffix in IMAGE_SUFFIXES + STACK_SUFFIXES + UNREAD_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def prediction_filename(filename: str) -> str:
    """Name of every organelle's prediction for an input of this name: ``<uuid>.tif`` -> ``<uuid>.tiff``."""
    return stem(filename) + ".tiff"


def _base(filename: str) -> str:
    return filename[max(filename.rfind("/"), filename.rfind("\\")) + 1 :]

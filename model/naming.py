"""The challenge's file-name grammar, parsed and written in one place for all four commands.

    image_<N>_<BF|PC|DIC>_z<Z>.ome.tiff                      an unlabelled plane of field N at stage height Z
    image_<N>_<Nucleus|Mitochondria|Tubulin|Actin>.ome.tiff  the fluorescent target of field N

Only base names are looked at, never the folders above them: a study in a folder ``my_BF_data`` says nothing
about the modality of its files.
"""

import re
from dataclasses import dataclass

from .labels import Modality, Organelle

# Longest first, so that ".ome.tiff" goes as a whole.
IMAGE_SUFFIXES = (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".mha")

# No leading zeros: a name and what it parses to are one to one.
_NUMBER = r"(0|[1-9][0-9]*)"
_INPUT = re.compile(rf"image_{_NUMBER}_({'|'.join(Modality)})_z{_NUMBER}")
_TARGET = re.compile(rf"image_{_NUMBER}_({'|'.join(organelle.label for organelle in Organelle)})")
_ORGANELLE_OF_LABEL = {organelle.label: organelle for organelle in Organelle}
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
    """Read a challenge name with any of IMAGE_SUFFIXES (predictions have ``.tiff``); else None."""
    if not is_image(filename):
        return None
    name = stem(filename)
    if match := _INPUT.fullmatch(name):
        return InputName(int(match[1]), Modality(match[2]), int(match[3]))
    if match := _TARGET.fullmatch(name):
        return TargetName(int(match[1]), _ORGANELLE_OF_LABEL[match[2]])
    return None


def modality_token(filename: str) -> Modality | None:
    """Find ``_BF_``, ``_PC_`` or ``_DIC_`` in the base name; None where there is none, or two that differ."""
    found = set(_MODALITY_TOKEN.findall(_base(filename)))
    return Modality(found.pop()) if len(found) == 1 else None


def is_image(filename: str) -> bool:
    """Whether the base name ends in one of IMAGE_SUFFIXES, in upper or lower case, and is not hidden."""
    name = _base(filename)
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def stem(filename: str) -> str:
    """Return the base name without its image suffix: ``a/image_1_BF_z0.ome.tiff`` -> ``image_1_BF_z0``."""
    name = _base(filename)
    for suffix in IMAGE_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def prediction_filename(filename: str) -> str:
    """Name of every organelle's prediction for an input of this name: ``<uuid>.tif`` -> ``<uuid>.tiff``."""
    return stem(filename) + ".tiff"


def _base(filename: str) -> str:
    return re.split(r"[/\\]", filename)[-1]

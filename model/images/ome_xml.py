"""What an OME-XML says about one plane: pixel size, channel name, modality. Parsed by ome-types."""

import logging
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserError
from ..labels import Modality

if TYPE_CHECKING:
    import ome_types

log = logging.getLogger(__name__)

# A light microscope's pixel lies well inside; what lies outside is a wrong unit, or print resolution.
PLAUSIBLE_PIXEL_SIZE_UM = (0.01, 10.0)

PROVENANCE_NAMESPACE = "in-silico-labelling/provenance"

# Units that a pixel's size is written in; "pixel" and "reference frame" are none.
_UM_PER_UNIT: Mapping[str, float] = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6,
    "Å": 1e-4, "in": 25_400.0, "thou": 25.4,
}  # fmt: skip
_MODALITY_OF_CONTRAST = {"Brightfield": Modality.BF, "Phase": Modality.PC, "DIC": Modality.DIC}


@dataclass(frozen=True)
class OmeMetadata:
    """One plane's share of an OME-XML; pixel_size_um is (y, x) in µm; None is what it does not say."""

    pixel_size_um: tuple[float, float] | None = None
    channel: str | None = None
    modality: Modality | None = None


def looks_like_ome(description: str) -> bool:
    """Whether a TIFF's ImageDescription means to be OME-XML, be it sound or broken."""
    return re.search(r"<(\w+:)?OME[\s>/]", description[:4096]) is not None


def read_ome_metadata(xml: str, source: str) -> OmeMetadata:
    """Read OME-XML; broken XML gives empty metadata and a logged warning, for the pixels may be fine.

    source: the file's name for messages. Raises UserError where the XML defines entities, which OME never
    needs and which a few lines can blow up to gigabytes.
    """
    ome = _parse(xml, source)
    if ome is None:
        return OmeMetadata()
    if not ome.images:
        log.warning("%s: its OME-XML describes no image, so pixel size and channel are unknown.", source)
        return OmeMetadata()
    pixels = ome.images[0].pixels
    if pixels.size_z * pixels.size_t * max(pixels.size_c, len(pixels.channels)) > 1:
        log.warning("%s: its OME-XML describes more planes than the one it holds.", source)
    # Which of several channels this plane is cannot be known, so none is named.
    channel = pixels.channels[0] if len(pixels.channels) == 1 else None
    name = channel.name if channel else None
    contrast = channel.contrast_method.value if channel and channel.contrast_method else None
    y, x = pixels.physical_size_y, pixels.physical_size_x
    size = None
    if y is not None and x is not None:
        y_factor = _UM_PER_UNIT.get(pixels.physical_size_y_unit.value)
        x_factor = _UM_PER_UNIT.get(pixels.physical_size_x_unit.value)
        if y_factor is not None and x_factor is not None:
            size = plausible_pixel_size((float(y) * y_factor, float(x) * x_factor))
        if size is None:
            log.warning(
                "%s: its pixel size of %g %s x %g %s is none of a light microscope and is taken as unknown.",
                source, y, pixels.physical_size_y_unit.value, x, pixels.physical_size_x_unit.value,
            )  # fmt: skip
    return OmeMetadata(size, name or None, _modality(name, contrast))


def read_map_annotation(xml: str, source: str) -> dict[str, str]:
    """Read the provenance that write_plane left as a MapAnnotation; empty where there is none."""
    ome = _parse(xml, source)
    if ome is None or ome.structured_annotations is None:
        return {}
    for annotation in ome.structured_annotations.map_annotations:
        if annotation.namespace == PROVENANCE_NAMESPACE and annotation.value is not None:
            return {str(entry.k): entry.value for entry in annotation.value.ms}
    return {}


def plausible_pixel_size(size_um: tuple[float, float]) -> tuple[float, float] | None:
    """Return (y, x) in µm to 9 digits, rid of the dust of changed units; None where no microscope has it."""
    low, high = PLAUSIBLE_PIXEL_SIZE_UM
    if not all(math.isfinite(um) and low <= um <= high for um in size_um):
        return None
    return float(f"{size_um[0]:.9g}"), float(f"{size_um[1]:.9g}")


def _modality(name: str | None, contrast_method: str | None) -> Modality | None:
    token = (name or "").strip().upper()
    if token in Modality.__members__:
        return Modality(token)
    return _MODALITY_OF_CONTRAST.get(contrast_method or "")


def _parse(xml: str, source: str) -> "ome_types.OME | None":
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise UserError(f"{source}: found XML with DOCTYPE or ENTITY declarations, expected plain OME-XML.")
    from ome_types import from_xml  # nearly a second: only who reads OME-XML waits for it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same faults come as exceptions, and are told below
            return from_xml(_tidy(xml))
    except Exception as error:  # whatever the XML did to the parser, the pixels do not depend on it
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        log.warning("%s: its OME-XML is broken (%s), so pixel size and channel are unknown.", source, reason)
        return None


def _tidy(xml: str) -> str:
    """Mend what is often wrong in the wild and would cost all other metadata of the file."""
    # Older schemas differ in nothing that is read here.
    xml = re.sub(r"/Schemas/OME/20\d\d-\d\d", "/Schemas/OME/2016-06", xml, flags=re.IGNORECASE)
    # µm with the Greek letter, spelled out, or encoded twice.
    xml = re.sub(r'(PhysicalSize[XYZ]Unit=)"(?:μm|um|µ|Âµm|microns?)"', r'\1"µm"', xml)
    # A size of zero means "unknown" to some writers.
    return re.sub(r'\sPhysicalSize[XYZ]="(?:0*\.?0*|-[^"]*|nan)"', "", xml, flags=re.IGNORECASE)

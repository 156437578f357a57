"""The labels of the field: imaging modalities and organelles."""

from collections.abc import Mapping
from enum import StrEnum


class Modality(StrEnum):
    """Transmitted-light contrast of an input image, spelled as in the challenge's file names."""

    BF = "BF"
    PC = "PC"
    DIC = "DIC"


class Organelle(StrEnum):
    """Fluorescent target, spelled as in the platform's output sockets."""

    MITOCHONDRIA = "mitochondria"
    NUCLEUS = "nucleus"
    TUBULIN = "tubulin"
    ACTIN = "actin"

    @property
    def label(self) -> str:
        """The word of the challenge's file names and OME channels, e.g. ``Mitochondria``."""
        return self.value.capitalize()


ORGANELLE_COLOURS: Mapping[Organelle, str] = {
    Organelle.MITOCHONDRIA: "F22BA8",
    Organelle.NUCLEUS: "2F86FF",
    Organelle.TUBULIN: "1FD79C",
    Organelle.ACTIN: "FFA41F",
}
"""Colour of each organelle for additive display, RRGGBB: magenta, blue, green, orange.

Any two differ by a CIEDE2000 distance of 15 or more, also for viewers without one kind of cone.
"""

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
    Organelle.MITOCHONDRIA: "FF40FF",
    Organelle.NUCLEUS: "2090FF",
    Organelle.TUBULIN: "30E060",
    Organelle.ACTIN: "FF9020",
}
"""Hexadecimal RGB of each organelle wherever it is shown; told apart also by colour-blind eyes, also when added up."""

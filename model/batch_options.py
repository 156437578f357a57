"""How the images of a batch are treated."""

from dataclasses import dataclass, field

from .labels import Modality
from .outputs import OutputOptions
from .selection import SelectionOptions


@dataclass(frozen=True)
class BatchOptions:
    """How to treat images.

    Attributes
    ----------
    modality : Modality or None
        Of images that do not say theirs.
    override_modality : bool
        Whether `modality` also holds for images that say another one.
    strict : bool
        Whether an unknown modality is an error.
    force : bool
        Whether to predict what is already predicted.
    selection : SelectionOptions
        Which planes of files of several planes.
    outputs : OutputOptions
        Which files are written.
    """

    modality: Modality | None = None
    override_modality: bool = False
    strict: bool = False
    force: bool = False
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    outputs: OutputOptions = field(default_factory=OutputOptions)

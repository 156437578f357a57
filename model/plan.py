"""The plan of a prediction, decided before pixels are processed: checkpoints, heads, grid, warnings, provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .labels import Modality, Organelle
from .preprocessing import Grid


@dataclass(frozen=True)
class Step:
    """One checkpoint's part of a plan.

    Attributes
    ----------
    checkpoint : str
        Its name in the routing.
    heads : mapping of Organelle to Organelle
        Which head predicts which organelle; one pass through the network serves them all.
    grids : tuple of Grid
        Those on which its network sees the image, one a scale; its prediction is on the first.
    turns : tuple of int
        Quarter turns of the image that are averaged.
    """

    checkpoint: str
    heads: Mapping[Organelle, Organelle]
    grids: tuple[Grid, ...]
    turns: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All that is decided about an image before its pixels are touched.

    Attributes
    ----------
    modality : Modality or None
    shape : (int, int)
        Rows and columns of the image and of its predictions.
    steps : tuple of Step
    warnings : tuple of str
        What the user should know about the prediction, one clause each.
    provenance : mapping of Organelle to (mapping of str to str)
        What each prediction is made by, as plain text for the output's metadata.
    """

    modality: Modality | None
    shape: tuple[int, int]
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]
    provenance: Mapping[Organelle, Mapping[str, str]]

    def with_provenance(self, **entries: str) -> "Plan":
        """Return the same plan with further entries in the provenance of every organelle."""
        return replace(self, provenance={organelle: {**made, **entries} for organelle, made in self.provenance.items()})


@dataclass(frozen=True)
class NetworkOutputs:
    """What the networks of a plan predict, on their own grids.

    Attributes
    ----------
    mean : mapping of Organelle to Tensor
        (Y, X) float32 in [-1, 1], the mean over rotations, scales and the networks of an ensemble.
    std : mapping of Organelle to Tensor
        (Y, X) float32, their standard deviation; empty for one of them, and for an image that shows nothing.
    """

    mean: Mapping[Organelle, Tensor]
    std: Mapping[Organelle, Tensor]


@dataclass(frozen=True)
class NetworkInputs:
    """An image as the networks of a plan get it.

    Attributes
    ----------
    plan : Plan
    inputs : mapping of str to sequence of Tensor
        By checkpoint, (1, Y, X) float32 on each of its grids; empty where the image shows nothing to predict from.
    warnings : tuple of str
        What the pixels themselves give to be warned of, one clause each.
    """

    plan: Plan
    inputs: Mapping[str, Sequence[Tensor]]
    warnings: tuple[str, ...] = ()

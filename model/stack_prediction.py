"""Predict an array of planes for an interactive program: plane by plane, from a layer's array, into memory."""

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .commands import one_sentence
from .errors import UserError
from .images.grey import conversion_warnings, is_convertible, to_grey
from .labels import Modality, Organelle
from .predictor import Predictor
from .preprocessing import PixelSize
from .settings import InferenceSettings


@dataclass(frozen=True)
class StackRequest:
    """What to predict, and how.

    Attributes
    ----------
    name : str
        Of the stack, as its user knows it.
    pixels : array-like, shape (..., Y, X)
        Transmitted light, of any kind that `to_grey` takes; each plane (Y, X) is read when its turn comes.
    modality : Modality or None
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm.
    settings : InferenceSettings
    """

    name: str
    pixels: Any
    modality: Modality | None
    pixel_size_um: PixelSize | None
    settings: InferenceSettings

    @property
    def n_planes(self) -> int:
        """Number of planes over all leading axes."""
        return int(np.prod(self.pixels.shape[:-2], dtype=int))


@dataclass(frozen=True)
class StackPrediction:
    """The four organelles of a stack.

    Attributes
    ----------
    pixels : mapping of Organelle to ndarray of uint16, shape (..., Y, X)
        The intensity is relative, not quantitative.
    provenance : mapping of Organelle to (mapping of str to str)
        What each is made by.
    warnings : tuple of str
        One clause each.
    """

    pixels: Mapping[Organelle, NDArray[np.uint16]]
    provenance: Mapping[Organelle, Mapping[str, str]]
    warnings: tuple[str, ...]


def check_pixels(name: str, pixels: Any) -> None:
    """Raise UserError, one sentence, where an array does not hold planes of grey values."""
    if not is_convertible(pixels.dtype):
        raise UserError(f"{name}: its pixels are {pixels.dtype}, expected whole or floating-point numbers.")


def predict_stack(request: StackRequest) -> Generator[int, None, StackPrediction | str]:
    """Predict plane by plane, each as `Predictor.predict` does.

    Parameters
    ----------
    request : StackRequest

    Yields
    ------
    int
        How many planes are done, after each: a caller that stops here stops between two planes.

    Returns
    -------
    StackPrediction or str
        The sentence that says what went wrong, where something did: the threads of napari show what is raised with
        its traceback, or not at all.
    """
    try:
        check_pixels(request.name, request.pixels)
        with Predictor.open(settings=request.settings) as predictor:
            *leading, height, width = request.pixels.shape
            plan = predictor.plan(request.modality, (height, width), request.pixel_size_um)
            predicted = {organelle: np.empty(request.pixels.shape, dtype=np.uint16) for organelle in Organelle}
            warnings: Counter[str] = Counter()
            for done, index in enumerate(np.ndindex(*leading), start=1):
                inputs = predictor.preprocess(to_grey(np.asarray(request.pixels[index])), plan)
                for organelle, plane in predictor.postprocess(predictor.forward(inputs), plan).items():
                    predicted[organelle][index] = plane
                warnings.update(inputs.warnings)
                yield done
            of_planes = (
                f"{warning} ({count} of {request.n_planes} planes)" if leading else warning
                for warning, count in warnings.items()
            )
            all_warnings = (*conversion_warnings(request.pixels.dtype), *plan.warnings, *of_planes)
            return StackPrediction(predicted, plan.provenance, all_warnings)
    except Exception as error:
        return one_sentence(error)

"""Predict fluorescent organelles from images of unlabelled cells: the public API.

    from in_silico_labelling import Modality, Organelle, Predictor, read_image    # in the checkout: from model import …

    image = read_image("cells_BF_07.ome.tiff")
    with Predictor.open() as predictor:
        predictions = predictor.predict(image.pixels, image.info.modality, pixel_size_um=image.info.pixel_size_um)
    nucleus = predictions[Organelle.NUCLEUS]    # uint16, (Y, X), the input's shape

Names are imported when they are first used, so that a command answers signals before torch is there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .errors import UserError as UserError
    from .images import Image as Image
    from .images import ImageInfo as ImageInfo
    from .images import inspect as inspect
    from .images import read_image as read_image
    from .images import write_plane as write_plane
    from .labels import Modality as Modality
    from .labels import Organelle as Organelle
    from .precision import Precision as Precision
    from .predictor import Predictor as Predictor
    from .settings import PRESETS as PRESETS
    from .settings import InferenceSettings as InferenceSettings

_MODULES = {
    "UserError": "errors",
    "Image": "images",
    "ImageInfo": "images",
    "inspect": "images",
    "read_image": "images",
    "write_plane": "images",
    "Modality": "labels",
    "Organelle": "labels",
    "Precision": "precision",
    "Predictor": "predictor",
    "PRESETS": "settings",
    "InferenceSettings": "settings",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

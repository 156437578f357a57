"""A folder of pictures with a page to look at them in a browser, from the disk and without a network."""

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from os.path import relpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ..commands import printable
from ..display import INPUT_PERCENTILES, INPUT_SHARE, ORGANELLE_PERCENTILES, ORGANELLE_SHARE
from ..files import LEFT_BEHIND_S, atomic_write, prepare_folder, write_text
from ..labels import ORGANELLE_COLOURS, Organelle
from ..resampling import resample

LAYER_BYTES, THUMBNAIL_BYTES = 55_000, 20_000
"""Most bytes of a picture: five layers and a thumbnail stay below 300 kB an image."""

_LARGEST_PX, _THUMBNAIL_PX = 1024, 256
_QUALITIES = (88, 75, 60)  # of JPEG; below, fewer pixels look better
_SHRINK = 0.8
_PICTURES = "pictures"


@dataclass(frozen=True)
class PreviewImage:
    """One image of the page.

    Attributes
    ----------
    title : str
        What it is called, unlike any other.
    input : ndarray of uint16, shape (Y, X)
        The plane of transmitted light.
    organelles : mapping of Organelle to ndarray of uint16, shape (Y, X)
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm.
    metadata : mapping of str to str
        Shown as a table; ``trained on`` is also said above all images.
    warnings : sequence of str
    outputs : mapping of str to Path
        The written files, by what they are called.
    disagreement : mapping of Organelle to float
        See `disagreement`; empty where it is unknown.
    """

    title: str
    input: NDArray[np.uint16]
    organelles: Mapping[Organelle, NDArray[np.uint16]]
    pixel_size_um: tuple[float, float] | None
    metadata: Mapping[str, str]
    warnings: Sequence[str]
    outputs: Mapping[str, Path]
    disagreement: Mapping[Organelle, float]


class PreviewWriter:
    """Writes the pictures of one image after the other, and the page at the end."""

    def __init__(self, folder: Path) -> None:
        """Make the folder; UserError where that cannot be done. The page of an earlier run stays whole until `close`.

        Pictures bear the name of their run, since another one may be at work in the same folder.
        """
        self.folder = folder
        self._run = secrets.token_hex(4)
        self._entries: list[dict[str, Any]] = []
        prepare_folder(folder / _PICTURES)

    def add(self, image: PreviewImage) -> None:
        """Write the pictures of an image; UserError where the disk does not allow it."""
        number = len(self._entries) + 1
        shape, layers = _picture_shape(image.input.shape), []
        grey = {"Input": ("FFFFFF", image.input)}
        grey |= {o.label: (ORGANELLE_COLOURS[o], image.organelles[o]) for o in Organelle if o in image.organelles}
        small: list[tuple[str, NDArray[np.float32]]] = []
        for name, (colour, pixels) in grey.items():
            shown = _shown(pixels, ORGANELLE_PERCENTILES if small else INPUT_PERCENTILES)
            picture = f"{_PICTURES}/{self._run}_{number}_{name.lower()}.jpg"
            self._write(picture, _jpeg(shown, shape, LAYER_BYTES))
            share = ORGANELLE_SHARE if small else INPUT_SHARE
            layers.append({"name": name, "colour": colour, "picture": picture, "share": share})
            small.append((colour, resample(shown, _picture_shape(shown.shape, _THUMBNAIL_PX))))
        thumbnail = f"{_PICTURES}/{self._run}_{number}_thumbnail.jpg"
        self._write(thumbnail, _jpeg(_composite(small), small[0][1].shape, THUMBNAIL_BYTES))
        size = image.pixel_size_um
        self._entries.append(
            {
                "number": number,
                "title": printable(image.title),
                # The page shows square pixels: the height follows the pixel's proportions.
                "shape": [image.input.shape[0] * (size[0] / size[1] if size else 1), image.input.shape[1]],
                "pixel_size_um": size[1] if size else None,
                "layers": layers,
                "thumbnail": thumbnail,
                "metadata": [[printable(key), printable(value)] for key, value in image.metadata.items()],
                "warnings": [printable(warning) for warning in image.warnings],
                "files": [[printable(name), self._link(path)] for name, path in image.outputs.items()],
                "disagreement": [[organelle.label, value] for organelle, value in image.disagreement.items()],
            }
        )

    def close(self) -> Path:
        """Write the page, remove the pictures of the former one, and return the path of the page."""
        page, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.html", "page.js"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # "<" never stands in the JSON, so no title can end the script element that holds it.
        data = json.dumps(self._entries, ensure_ascii=False).replace("<", "\\u003c")
        page = page.replace("__SCRIPT_HASH__", f"sha256-{digest}").replace("__SCRIPT__", script)
        path = self.folder / "index.html"
        former = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        write_text(path, page.replace("__DATA__", data))
        self._remove_pictures(former)
        return path

    def _remove_pictures(self, former: str) -> None:
        """Remove the pictures that the former page shows, and those that a run without a page has left behind."""
        for picture in (self.folder / _PICTURES).iterdir():
            if not re.fullmatch(r"([0-9a-f]{8}_)?\d+_\w+\.jpg", picture.name) or picture.name.startswith(self._run):
                continue
            with suppress(OSError):  # another run may remove it, too
                if picture.name in former or time.time() - picture.stat().st_mtime > LEFT_BEHIND_S:
                    picture.unlink()

    def _write(self, name: str, data: bytes) -> None:
        with atomic_write(self.folder / name) as file:
            file.write(data)

    def _link(self, path: Path) -> str:
        relative = relpath(path, self.folder)
        return quote(relative.encode(errors="surrogateescape"))


def _picture_shape(shape: tuple[int, ...], largest: int = _LARGEST_PX) -> tuple[int, int]:
    factor = min(1.0, largest / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _shown(pixels: NDArray[np.uint16], percentiles: tuple[float, float]) -> NDArray[np.float32]:
    """Bring a plane (Y, X) to [0, 1] by its percentiles."""
    low, high = np.percentile(pixels, percentiles).astype(np.float32)
    return np.asarray(np.clip((pixels - low) / max(high - low, np.float32(1)), 0, 1), np.float32)


def _composite(layers: Sequence[tuple[str, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """Add up coloured layers (Y, X), the first being the input: (Y, X, 3) in [0, 1]."""
    total = np.zeros((*layers[0][1].shape, 3), np.float32)
    for index, (colour, grey) in enumerate(layers):
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)], np.float32)
        total += grey[..., None] * rgb * np.float32(ORGANELLE_SHARE if index else INPUT_SHARE)
    return np.clip(total, 0, 1)


def _jpeg(shown: NDArray[np.float32], shape: tuple[int, ...], most_bytes: int) -> bytes:
    """Encode a picture in [0, 1], resampled to `shape`, with as many pixels as fit into the bytes."""
    rows, columns = shape[0], shape[1]
    while True:
        resized = shown if shown.ndim == 3 else resample(shown, (rows, columns))
        codes = np.ascontiguousarray(np.rint(np.clip(resized, 0, 1) * 255).astype(np.uint8))
        for quality in _QUALITIES:
            data = bytes(imagecodecs.jpeg8_encode(codes, level=quality))
            if len(data) <= most_bytes:
                return data
        if shown.ndim == 3:
            shown = shown[::2, ::2]
        rows, columns = max(1, int(rows * _SHRINK)), max(1, int(columns * _SHRINK))

"""Take pixels of other kinds as grey values of 16 bits: prediction needs no more, since intensity is relative."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue, as Fiji and Pillow take it (ITU-R BT.601)
_MAX = 65535
_ROWS = 1024  # at a time: float64 takes eight bytes a pixel


def is_convertible(dtype: DTypeLike) -> bool:
    """Whether pixels are whole or floating-point numbers."""
    return np.dtype(dtype).kind in "uif"


def conversion_warnings(dtype: DTypeLike, samples: int = 1) -> tuple[str, ...]:
    """Say what `to_grey` does to planes of this type and number of values a pixel; nothing for grey 8 or 16 bits."""
    kind = np.dtype(dtype).newbyteorder("=")
    warnings = [] if samples == 1 else ["its colours are taken as grey (luminance)"]
    if kind not in (np.uint8, np.uint16):
        not_finite = ", and 0 where they are not finite" if kind.kind == "f" else ""
        warnings.append(
            f"its {kind} pixels are taken as 16 bits, scaled plane by plane where they do not fit{not_finite}"
        )
    return tuple(warnings)


def to_grey(pixels: NDArray[Any]) -> NDArray[np.uint16]:
    """Convert one plane.

    Parameters
    ----------
    pixels : ndarray, shape (Y, X), or (Y, X, 3) and (Y, X, 4) for RGB and RGBA of 8 or 16 bits
        Whole or floating-point numbers, in any byte order.

    Returns
    -------
    ndarray of uint16, shape (Y, X)
        uint16 as it is and uint8 stretched (x257) to the same range; of colours the luminance. Other kinds as they
        are where all values are whole numbers from 0 to 65535, else scaled so that 0 (or the lowest value below it)
        becomes 0 and the highest 65535. What is not finite becomes 0.
    """
    if pixels.ndim == 3:
        full = 257 if pixels.dtype.itemsize == 1 else 1
        return _by_rows(pixels, lambda rows: rows[..., :3] @ np.multiply(_LUMINANCE, full))
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 1:
        return pixels.astype(np.uint16) * np.uint16(257)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        return np.ascontiguousarray(pixels, dtype=np.uint16)
    finite = pixels if np.isfinite(pixels).all() else np.nan_to_num(pixels, nan=0, posinf=0, neginf=0)
    low, high = min(0.0, float(finite.min())), float(finite.max())
    if low == 0 and high <= _MAX and bool(np.all(finite == np.rint(finite))):
        return finite.astype(np.uint16)
    return _by_rows(finite, lambda rows: (rows - low) / (high - low or 1.0) * _MAX)


def _by_rows(pixels: NDArray[Any], convert: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.uint16]:
    grey = np.empty(pixels.shape[:2], np.uint16)
    for start in range(0, len(pixels), _ROWS):
        grey[start : start + _ROWS] = np.rint(convert(pixels[start : start + _ROWS].astype(np.float64)))
    return grey

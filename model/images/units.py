"""Units of length in their spellings, and the range of pixel sizes of a light microscope."""

import html
import math
import re
from collections.abc import Mapping

# A light microscope's pixel lies well inside; what lies outside is a wrong unit, or print resolution.
PLAUSIBLE_PIXEL_SIZE_UM = (0.01, 10.0)
_PLAUSIBLE_Z_STEP_UM = (0.001, 1000.0)

_UM_PER_SYMBOL: Mapping[str, float] = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6,
    "å": 1e-4, "in": 25_400.0, "inch": 25_400.0, '"': 25_400.0, "thou": 25.4, "mil": 25.4,
}  # fmt: skip
_UM_PER_WORD: Mapping[str, float] = {
    "micron": 1.0, "angstrom": 1e-4, "ångström": 1e-4, "inche": 25_400.0,
    **{
        prefix + metre: factor
        for prefix, factor in {
            "": 1e6, "deci": 1e5, "centi": 1e4, "milli": 1e3, "micro": 1.0, "nano": 1e-3, "pico": 1e-6,
        }.items()
        for metre in ("meter", "metre")
    },
}  # fmt: skip
_SECONDS_PER_UNIT: Mapping[str, float] = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "millisecond": 1e-3, "µs": 1e-6, "ns": 1e-9,
    "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "d": 86_400.0, "day": 86_400.0,
}  # fmt: skip


def um_per_unit(unit: str) -> float | None:
    r"""Micrometres in one `unit`; None for what is no length, as "pixel".

    Symbols and words in any case, singular or plural, with the micro sign or the Greek letter, also where it is
    escaped (``&#956;m``, ``\\u00B5m``) or was encoded twice (``Âµm``).
    """
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), html.unescape(unit))
    text = text.strip().replace("\N{GREEK SMALL LETTER MU}", "µ").replace("Âµ", "µ").replace("Î¼", "µ")
    text = text.casefold().replace("\N{GREEK SMALL LETTER MU}", "µ")  # which is what the micro sign folds to
    if text in _UM_PER_SYMBOL:
        return _UM_PER_SYMBOL[text]
    return _UM_PER_WORD.get(text, _UM_PER_WORD.get(text.removesuffix("s")))


def seconds_per_unit(unit: str) -> float | None:
    """Seconds in one `unit`, by OME's symbols and in words; None for what is no time."""
    return _SECONDS_PER_UNIT.get(unit.strip().casefold().replace("\N{GREEK SMALL LETTER MU}", "µ"))


def plausible_pixel_size(size_um: tuple[float, float]) -> tuple[float, float] | None:
    """Return (y, x) in µm to 9 digits, free of the rounding of changed units; None where no microscope has it."""
    low, high = PLAUSIBLE_PIXEL_SIZE_UM
    if not all(math.isfinite(um) and low <= um <= high for um in size_um):
        return None
    return float(f"{size_um[0]:.9g}"), float(f"{size_um[1]:.9g}")


def plausible_z_step(step_um: float | None) -> float | None:
    """Return a distance of focal planes in µm, rounded as sizes are; None where it is unknown or senseless."""
    low, high = _PLAUSIBLE_Z_STEP_UM
    return float(f"{step_um:.9g}") if step_um is not None and low <= step_um <= high else None

"""Tell transmitted light from fluorescence by what files of real instruments say of a channel.

A channel's name tells first: programs fill in the other fields by default, people and instruments give names.
"""

import re
from collections.abc import Sequence

from ..labels import Modality
from .stack import Channel

_SPELLINGS = {
    Modality.BF: "bf|bright ?field|hellfeld",
    Modality.PC: "pc|phase( ?contrast)?|ph ?[123l]|phaco|phasenkontrast",
    Modality.DIC: "dic|nomarski|(differential )?interference( contrast)?",
}
_TRANSMITTED = (
    "tl|td|dia|trans(mitted)?|transmission|transmitted ?light|diascopic|(t|trans) ?pmt|esid|oblique|hoffman|"
    "rottermann|varel|polari[sz]ed|dark ?field|label ?free|unlabell?ed|white ?light"
)
_FLUORESCENT = (
    r"dapi|hoechst( ?\d+)?|h ?33?342|draq ?\d|syto.*|sytox.*|e?[gyrcb]fp|.*gfp.*|m ?cherry|m ?scarlet|(td ?)?tomato|"
    r"venus|mkate.*|fitc|tritc|texas ?red|rhodamine.*|cy ?[2357]|alexa.*|af ?\d+|atto ?\d+|bodipy.*|sir ?.*|"
    r"mito ?tracker.*|phalloidin.*|fluo.*|epi|"
    r"(ex|em|laser)? ?[345678]\d\d( ?nm)?|nucle(us|i)|mito(chondria)?|actin|tubulin|tom ?20|"
    r"(g ?[0-2]|s|m|g ?2 m) phase"  # of the cell cycle
)
_FLUORESCENT_AS_WRITTEN = r"(?<![^\W_])(pH3|DiA|td[A-Z]\w+)(?![^\W_])"  # in any other case: a phase ring, diascopic
_AMBIGUOUS = "pc|phase|ph ?[123l]|td|dia|trans|interference|polari[sz]ed"
"""Words that also occur in the names of cells, stains and targets (PC-3, mitotic phase, tdEos, trans-Golgi)."""
_CONTRASTS = {"brightfield": Modality.BF, "phase": Modality.PC, "dic": Modality.DIC}
_OTHER_TRANSMITTED_CONTRASTS = {"hoffmanmodulation", "obliqueillumination", "polarizedlight", "darkfield"}
_TRANSMITTED_ILLUMINATIONS = {"transmitted", "oblique"}
_FLUORESCENT_MODES = {
    "laserscanningconfocalmicroscopy", "spinningdiskconfocal", "slitscanconfocal", "multiphotonmicroscopy",
    "structuredillumination", "singlemoleculeimaging", "totalinternalreflection", "fluorescencelifetime",
    "palm", "storm", "sted", "tirf", "fsm", "spim",
}  # fmt: skip


def describe_channel(
    name: str | None,
    *,
    contrast_method: str | None = None,
    illumination: str | None = None,
    acquisition_mode: str | None = None,
    fluorescent: bool = False,
) -> Channel:
    """Say of one channel whether it is transmitted light, and its modality.

    Parameters
    ----------
    name : str or None
    contrast_method, illumination, acquisition_mode : str or None
        As in OME's ``ContrastMethod``, ``IlluminationType`` and ``AcquisitionMode``, in any case.
    fluorescent : bool
        Whether the file states a fluorophore or an emission wavelength.

    Returns
    -------
    Channel
        The first of name, contrast method, illumination, fluorophore and acquisition mode that tells it decides. A
        name that is ambiguous decides only where nothing else says fluorescence.
    """
    contrast, light, mode = (_plain(text) for text in (contrast_method, illumination, acquisition_mode))
    told = _by_name(name or "")
    says_fluorescence = fluorescent or contrast == "fluorescence" or light == "epifluorescence"
    if told and told[0] and says_fluorescence and _is_ambiguous(name or ""):
        told = None
    if told is None and contrast in _CONTRASTS:
        told = True, _CONTRASTS[contrast]
    elif told is None and contrast in _OTHER_TRANSMITTED_CONTRASTS:
        told = True, None
    elif told is None and contrast == "fluorescence":
        told = False, None
    elif told is None and light in _TRANSMITTED_ILLUMINATIONS:
        told = True, None
    elif told is None and (light == "epifluorescence" or fluorescent or mode in _FLUORESCENT_MODES):
        told = False, None
    elif told is None and mode == "brightfield":
        told = True, Modality.BF
    transmitted, modality = told or (None, None)
    if transmitted and modality is None:
        modality = _CONTRASTS.get(contrast)
    return Channel((name or "").strip() or None, modality, transmitted)


def spelled_modality(name: str) -> Modality | None:
    """Modality that a channel's name spells in any of its usual ways; None where it spells none, or two."""
    words = _words(name)
    found = [modality for modality, spellings in _SPELLINGS.items() if _spells(words, spellings)]
    return found[0] if len(found) == 1 else None


def _by_name(name: str) -> tuple[bool, Modality | None] | None:
    words, modality = _words(name), spelled_modality(name)
    transmitted = modality is not None or _spells(words, _TRANSMITTED)
    fluorescent = _spells(words, _FLUORESCENT) or re.search(_FLUORESCENT_AS_WRITTEN, name) is not None
    if transmitted == fluorescent:  # neither, or both
        return None
    return transmitted, modality


def _is_ambiguous(name: str) -> bool:
    """Whether a name says transmitted light by ambiguous words alone, and has others."""
    words = _words(name)
    telling = _runs(words, "|".join((*_SPELLINGS.values(), _TRANSMITTED)))
    return " ".join(words) not in telling and all(re.fullmatch(_AMBIGUOUS, run) for run in telling)


def _spells(words: Sequence[str], spellings: str) -> bool:
    return bool(_runs(words, spellings))


def _runs(words: Sequence[str], spellings: str) -> list[str]:
    """Find the words, or neighbouring words, of a name that are one of the spellings."""
    runs = (" ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1))
    return [run for run in runs if re.fullmatch(spellings, run)]


def _words(name: str) -> list[str]:
    """Words of a name in lower case: ``"TL-BrightField_1"`` and ``"tl bright field 1"`` give the same."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[^\W_]+", spaced.casefold())


def _plain(text: str | None) -> str:
    return (text or "").strip().casefold()

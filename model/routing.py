"""Which checkpoint predicts which organelle of which modality: data in ``routing.json``, not code.

    {"format": 1,
     "checkpoints": {"pix2pix-bf": {"file": "pix2pix_bf.safetensors", "sha256": "<of the file>"}, ...},
     "routes": {"BF": {"mitochondria": ["pix2pix-bf/mitochondria", "unetplusplus/mitochondria"], ...}, "PC": {...},
                "DIC": {..., "actin": "unetplusplus/actin"}, "unknown": {...}},
     "low_magnification": {"from_um": 0.2, "routes": {"BF": {...}, "PC": {...}, "DIC": {...}, "unknown": {...}}}}

As in the paper (section 3.1) each modality has its pix2pix, and actin on DIC, which has no label at all, the unified
UNet++. A list is an ensemble, whose predictions are averaged: of its first networks, as many as there are rotations.
"unknown" is for images of unknown modality; without it they are refused.
"low_magnification" may be left out: it has the routes of images with pixels of at least `from_um`, or of unknown size.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import file_sha256, write_text
from .labels import Modality, Organelle

ROUTING_FILE = "routing.json"
MODEL_VOLUME = Path("/opt/ml/model")
FORMAT = 1
_UNKNOWN = "unknown"
_LOW = "low_magnification"


@dataclass(frozen=True)
class Route:
    """What predicts an organelle: a checkpoint, by its name in the routing, and one of its heads."""

    checkpoint: str
    head: Organelle


@dataclass(frozen=True)
class CheckpointFile:
    """Where a checkpoint lies and the SHA-256 (hex) its file must have."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "CheckpointFile":
        """State a file with the hash that it has now."""
        return cls(path, file_sha256(path))


Ensemble = tuple[Route, ...]
"""One route or several, of different checkpoints: their predictions are averaged."""

Routes = Mapping[Modality | None, Mapping[Organelle, Ensemble]]
"""The key None holds the routes of an unknown modality, where there are any."""


@dataclass(frozen=True)
class LowMagnification:
    """Routes of images whose pixels are `from_um` µm or more on both axes, or of unknown size.

    Without its pixel size an image is predicted as it is, and what networks take as it is has coarse pixels.
    """

    from_um: float
    routes: Routes


@dataclass(frozen=True)
class Routing:
    """A validated ``routing.json``: every route names a known checkpoint, every modality has all organelles."""

    checkpoints: Mapping[str, CheckpointFile]
    routes: Routes
    low_magnification: LowMagnification | None = None

    def choose(
        self, modality: Modality | None, pixel_size_um: tuple[float, float] | None
    ) -> Mapping[Organelle, Ensemble]:
        """Return the routes of an image by its modality and pixel size (y, x) in µm."""
        low = self.low_magnification
        if low is None or (pixel_size_um is not None and min(pixel_size_um) < low.from_um):
            return self.routes[modality]
        return low.routes[modality]

    @property
    def ensembles(self) -> list[tuple[Modality | None, Organelle, Ensemble]]:
        """All ensembles, of each magnification."""
        tables = [self.routes, *([self.low_magnification.routes] if self.low_magnification else [])]
        return [(m, o, ensemble) for table in tables for m, ways in table.items() for o, ensemble in ways.items()]

    @property
    def routed(self) -> set[str]:
        """Names of the checkpoints that anything is routed to."""
        return {route.checkpoint for _, _, ensemble in self.ensembles for route in ensemble}

    @classmethod
    def read(cls, folder: Path) -> "Routing":
        """Read ``folder/routing.json``. Raises UserError naming the file, what was found and expected."""
        path = folder / ROUTING_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path} is missing, expected it beside its checkpoints.") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
        except ValueError as error:  # not JSON, or not UTF-8
            raise UserError(f"{path} is not valid JSON: {error}.") from None
        root = _mapping(document, path, "the file")
        if root.get("format") != FORMAT:
            raise UserError(f"{path} has format {root.get('format')!r}, expected {FORMAT}.")
        _exact_keys(root, {"format", "checkpoints", "routes", *({_LOW} & set(root))}, path, "the file")
        checkpoints = {
            name: _checkpoint_file(entry, path, name)
            for name, entry in _mapping(root["checkpoints"], path, "checkpoints").items()
        }
        table = _mapping(root["routes"], path, "routes")
        keys = {*Modality, *({_UNKNOWN} & set(table))}
        routes = _routes(table, keys, path, "routes", checkpoints)
        low = _low_magnification(root[_LOW], keys, path, checkpoints) if _LOW in root else None
        routing = cls(checkpoints, routes, low)
        unused = set(checkpoints) - routing.routed
        if unused:
            raise UserError(f"{path} lists checkpoints that no route uses: {', '.join(sorted(unused))}.")
        return routing

    def write(self, folder: Path) -> None:
        """Write ``folder/routing.json``; the checkpoints lie there already."""
        files = {name: {"file": file.path.name, "sha256": file.sha256} for name, file in self.checkpoints.items()}
        document: dict[str, object] = {"format": FORMAT, "checkpoints": files, "routes": _table(self.routes)}
        if low := self.low_magnification:
            document[_LOW] = {"from_um": low.from_um, "routes": _table(low.routes)}
        write_text(folder / ROUTING_FILE, json.dumps(document, indent=2) + "\n")


def _table(routes: Routes) -> dict[str, dict[str, str | list[str]]]:
    return {
        str(modality or _UNKNOWN): {str(o): _entry(ensemble) for o, ensemble in by_organelle.items()}
        for modality, by_organelle in routes.items()
    }


def _entry(ensemble: Ensemble) -> str | list[str]:
    names = [f"{route.checkpoint}/{route.head}" for route in ensemble]
    return names if len(names) > 1 else names[0]


def routes_to(checkpoint: str) -> Routes:
    """Send every organelle, of each modality and of an unknown one, to its head of one checkpoint."""
    return {key: {organelle: (Route(checkpoint, organelle),) for organelle in Organelle} for key in (*Modality, None)}


def resources_folder(default: Path, model_volume: Path = MODEL_VOLUME) -> Path:
    """Choose the folder to predict from: the platform's model volume where it is not empty, else `default`.

    Raises UserError where the volume cannot be listed or holds files but no routing: whoever put weights there must
    not get the predictions of others. Hidden files and what file systems and archivers leave are nothing.
    """
    wanted = f"expected an empty folder, or {ROUTING_FILE} beside its checkpoints"
    try:
        found = sorted(path.name for path in model_volume.iterdir() if not _is_clutter(path.name))
    except FileNotFoundError:
        return default
    except OSError as error:
        raise UserError(f"{model_volume}: it cannot be listed ({error.strerror}), {wanted}.") from None
    if not found:
        return default
    if ROUTING_FILE in found:
        return model_volume
    deeper = sorted(path.relative_to(model_volume) for path in model_volume.rglob(ROUTING_FILE))
    content = str(deeper[0]) if deeper else ", ".join(found[:3]) + (" …" if len(found) > 3 else "")
    raise UserError(f"{model_volume}: found {content}, {wanted}.")


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name in {"lost+found", "__MACOSX", "Thumbs.db", "desktop.ini"}


def shipped_resources() -> Path:
    """Find the shipped checkpoints: in the installed package, or in the checkout beside `model`."""
    package = Path(__file__).resolve().parent
    installed = package / "resources"
    return installed if installed.is_dir() else package.parent / "resources"


def _checkpoint_file(entry: Any, path: Path, name: str) -> CheckpointFile:
    where = f"checkpoints.{name}"
    fields = _mapping(entry, path, where)
    _exact_keys(fields, {"file", "sha256"}, path, where)
    file, sha256 = fields["file"], fields["sha256"]
    if not name or "/" in name:
        raise UserError(f"{path} names a checkpoint {name!r}, expected a name without '/'.")
    # A plain name, so that a routing can never point out of its own folder.
    if not isinstance(file, str) or file in {"", ".", ".."} or re.search(r"[/\\\0]", file):
        raise UserError(f"{path} has {where}.file = {file!r}, expected the plain name of a file beside it.")
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UserError(f"{path} has {where}.sha256 = {sha256!r}, expected 64 lower-case hexadecimal digits.")
    checkpoint = path.parent / file
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint} is missing, though {path} lists it as {name!r}.")
    return CheckpointFile(checkpoint, sha256)


def _low_magnification(
    entry: Any, keys: set[str], path: Path, checkpoints: Mapping[str, CheckpointFile]
) -> LowMagnification:
    fields = _mapping(entry, path, _LOW)
    _exact_keys(fields, {"from_um", "routes"}, path, _LOW)
    from_um = fields["from_um"]
    if not isinstance(from_um, int | float) or isinstance(from_um, bool) or not 0 < from_um < math.inf:
        raise UserError(f"{path} has {_LOW}.from_um = {from_um!r}, expected a pixel size in µm above 0.")
    return LowMagnification(float(from_um), _routes(fields["routes"], keys, path, f"{_LOW}.routes", checkpoints))


def _routes(entry: Any, keys: set[str], path: Path, where: str, checkpoints: Mapping[str, CheckpointFile]) -> Routes:
    by_modality = _mapping(entry, path, where)
    _exact_keys(by_modality, keys, path, where)
    routes: dict[Modality | None, Mapping[Organelle, Ensemble]] = {}
    for key, ways in by_modality.items():
        by_organelle = _mapping(ways, path, f"{where}.{key}")
        _exact_keys(by_organelle, set(Organelle), path, f"{where}.{key}")
        routes[None if key == _UNKNOWN else Modality(key)] = {
            organelle: _ensemble(by_organelle[organelle], path, f"{where}.{key}.{organelle}", checkpoints)
            for organelle in Organelle
        }
    return routes


def _ensemble(entry: Any, path: Path, where: str, checkpoints: Mapping[str, CheckpointFile]) -> Ensemble:
    routes = tuple(_route(one, path, where, checkpoints) for one in (entry if isinstance(entry, list) else [entry]))
    if not routes or len({route.checkpoint for route in routes}) < len(routes):
        raise UserError(f"{path} has {where} = {entry!r}, expected each checkpoint of an ensemble once.")
    return routes


def _route(entry: Any, path: Path, where: str, checkpoints: Mapping[str, CheckpointFile]) -> Route:
    name, slash, head = entry.partition("/") if isinstance(entry, str) else ("", "", "")
    if not slash or head not in set(Organelle):
        raise UserError(f"{path} has {where} = {entry!r}, expected 'checkpoint/organelle'.")
    if name not in checkpoints:
        raise UserError(
            f"{path} routes {where} to the checkpoint {name!r}, expected one of {', '.join(checkpoints) or 'none'}."
        )
    return Route(name, Organelle(head))


def _mapping(value: Any, path: Path, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path} has a {type(value).__name__} as {where}, expected a JSON object.")
    return value


def _exact_keys(fields: Mapping[str, Any], expected: set[str], path: Path, where: str) -> None:
    """Misspelt keys are reported, never ignored: a route that is not read would be a silent fallback."""
    if set(fields) != expected:
        found, wanted = (", ".join(sorted(keys)) or "nothing" for keys in (set(fields), expected))
        raise UserError(f"{path} has {found} in {where}, expected {wanted}.")

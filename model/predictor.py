"""Array in, four arrays out: the one place where routing, scale, tiles, rotations and networks meet.

    with Predictor.open(Path("resources")) as predictor:
        organelles = predictor.predict(image, Modality.BF, pixel_size_um=(0.108, 0.108))

Shape suffixes: B tiles, C organelles, Y rows, X columns.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import __version__
from .checkpoint import CheckpointMetadata, load, read_metadata
from .errors import UserError
from .files import file_sha256
from .labels import Modality, Organelle
from .networks.build import NETWORKS, Network
from .networks.dynamic_convolution import modality_code
from .normalization import InputNormalization, normalize_input, to_uint16
from .precision import Precision
from .resampling import grid_shape, resample, resample_image
from .routing import Route, Routing
from .settings import LARGEST_WHOLE, PRESETS, InferenceSettings
from .tiling import TilePlan, predict_tiled
from .tta import predict_with_tta

TILE_BATCH = 4
TILE_BATCH_PX = TILE_BATCH * 512**2
"""A batch holds at most so many pixels: larger windows in fewer tiles cost no more memory, and no more time."""
MAX_RESCALING = 6.0
"""A pixel size further than this factor from all that was learned is taken for a wrong entry, not followed:
a placeholder of 10 µm would blow a 2048 px image up to 60,000 px, one of 1 nm would shrink it to nothing.
The finest pixels of the challenge (0.06 µm) are 4 to 5 times finer than the shipped checkpoints' grid."""

INTENSITY = "relative, not quantitative"

PixelSize = tuple[float, float]


@dataclass(frozen=True)
class Rescaling:
    """The pixel size (y, x) in µm at which a network is shown an image; None: as the image is.

    `warning` says in words why an image is taken as it is although nobody knows whether it should be.
    """

    to_um: PixelSize | None = None
    warning: str | None = None

    @classmethod
    def decide(cls, pixel_size_um: PixelSize | None, learned_um: tuple[float, float] | None) -> "Rescaling":
        """Bring each axis to the nearest size in `learned_um` = (smallest, largest), where that is sane."""
        if learned_um is None:
            return cls()
        low, high = learned_um
        if pixel_size_um is None:
            return cls(warning=f"no pixel size, taken as it is (learned: {low:g} to {high:g} µm)")
        y, x = (min(max(size, low), high) for size in pixel_size_um)
        if (y, x) == pixel_size_um:
            return cls()
        factors = (pixel_size_um[0] / y, pixel_size_um[1] / x)
        if max(factors) > MAX_RESCALING or min(factors) < 1 / MAX_RESCALING:
            found = " x ".join(f"{size:g}" for size in pixel_size_um)
            return cls(warning=f"implausible pixel size {found} µm, taken as it is (learned: {low:g} to {high:g} µm)")
        return cls(to_um=(y, x))


@dataclass(frozen=True)
class NetworkInputs:
    """An image as each checkpoint that is asked wants to see it: (1, Y, X) float32 on its grid."""

    shape: tuple[int, int]
    modality: Modality | None
    inputs: Mapping[str, Tensor]


class Predictor:
    """Predicts all four organelles of single planes; owns its networks, each loaded when first needed.

    `predict` is `preprocess`, `forward` and `postprocess`, which a batch has three threads for; only
    `forward` must stay in one. Deterministic: the same image on the same machine gives the same bytes.
    """

    def __init__(self, routing: Routing, device: torch.device, settings: InferenceSettings, rescale: bool) -> None:
        self._routing = routing
        self.device = device
        self.settings = settings
        self.precision = settings.precision or Precision.fastest(device)
        self.rescale = rescale
        self.checkpoints: Mapping[str, CheckpointMetadata] = _verified_metadata(routing)
        self._networks: dict[str, Network] = {}
        self._closed = False

    @classmethod
    def open(
        cls,
        resources: Path,
        *,
        device: str = "auto",
        settings: InferenceSettings = PRESETS["paper"],
        rescale: bool = True,
    ) -> "Predictor":
        """Read routing and checkpoints' metadata from a folder and verify every file's hash.

        `device` is "auto" (CUDA where there is one, else the CPU) or a name that torch knows. `rescale`
        brings images outside the pixel sizes a checkpoint learned to the nearest one it did.

        Raises UserError for resources that cannot be used as they are, or a device that is not there.
        """
        return cls(Routing.read(resources), _find_device(device), settings, rescale)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load_networks(self) -> None:
        """Load every network now, so that no image waits for one; UserError where a checkpoint is damaged."""
        for name in self.checkpoints:
            self._network(name)

    def close(self) -> None:
        """Let go of the networks and their memory; `predict` raises ValueError from here on."""
        self._networks.clear()
        self._closed = True

    def predict(
        self, image: NDArray[np.uint16], modality: Modality | None, *, pixel_size_um: PixelSize | None = None
    ) -> dict[Organelle, NDArray[np.uint16]]:
        """Predict every organelle of one plane (Y, X) of uint16, each uint16 (Y, X), rounded and clipped.

        `modality` None takes the routes of an unknown modality. `pixel_size_um` is (y, x) in µm; without it
        the image is taken as it is. The intensity of a prediction is relative, not quantitative.

        Raises ValueError for another kind of array or a pixel size that is not positive, UserError where a
        checkpoint cannot be loaded.
        """
        prepared = self.preprocess(image, modality, pixel_size_um)
        return self.postprocess(prepared.shape, self.forward(prepared))

    def preprocess(
        self, image: NDArray[np.uint16], modality: Modality | None, pixel_size_um: PixelSize | None
    ) -> NetworkInputs:
        """Bring an image to the grid and the grey values of each network it is for; raises as `predict`."""
        _check_image(image)
        _check_pixel_size(pixel_size_um)
        shape = (image.shape[0], image.shape[1])
        scaled: dict[tuple[InputNormalization, tuple[int, int]], Tensor] = {}
        inputs: dict[str, Tensor] = {}
        for name in self._heads_by_checkpoint(modality):
            metadata = self.checkpoints[name]
            key = metadata.input_normalization, self._grid(shape, pixel_size_um, metadata)
            if key not in scaled:
                scaled[key] = torch.from_numpy(normalize_input(resample_image(image, key[1]), key[0]))[None]
            inputs[name] = scaled[key]
        return NetworkInputs(shape, modality, inputs)

    def forward(self, prepared: NetworkInputs) -> dict[Organelle, Tensor]:
        """Predict each organelle (Y, X) float32 in [-1, 1] on its network's grid, on the CPU."""
        if self._closed:
            raise ValueError("this predictor is closed")
        outputs: dict[Organelle, Tensor] = {}
        # TF32 off and no benchmarking: what a GPU computes must be near the CPU's and the same each time.
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            self.precision.on(self.device),
        ):
            for name, heads in self._heads_by_checkpoint(prepared.modality).items():
                asked = sorted(set(heads.values()), key=list(Organelle).index)
                image_1YX = prepared.inputs[name].to(self.device)
                output_CYX = self._run_network(name, asked, prepared.modality, image_1YX).cpu()
                outputs |= {organelle: output_CYX[asked.index(head)] for organelle, head in heads.items()}
        return outputs

    @staticmethod
    def postprocess(shape: tuple[int, int], outputs: Mapping[Organelle, Tensor]) -> dict[Organelle, NDArray[np.uint16]]:
        """Bring what the networks say back to the image's grid, shape (Y, X), and to 16 bit."""
        return {organelle: to_uint16(resample(outputs[organelle].numpy(), shape)) for organelle in Organelle}

    def scale_warning(self, modality: Modality | None, pixel_size_um: PixelSize | None) -> str | None:
        """In words, why such an image is predicted as it is though its scale may be wrong; else None."""
        if not self.rescale:
            return None
        learned = (self.checkpoints[name].pixel_size_um for name in self._heads_by_checkpoint(modality))
        warnings = (Rescaling.decide(pixel_size_um, sizes).warning for sizes in learned)
        return next((warning for warning in warnings if warning), None)

    def provenance(self, modality: Modality | None, pixel_size_um: PixelSize | None) -> dict[Organelle, dict[str, str]]:
        """For each organelle what its prediction is made by, as plain text for the output's metadata."""
        on_gpu = self.device.type == "cuda"
        device = torch.cuda.get_device_name(self.device) if on_gpu else str(self.device)
        origin: dict[Organelle, dict[str, str]] = {}
        for organelle, route in self.routes_for(modality).items():
            metadata = self.checkpoints[route.checkpoint]
            origin[organelle] = {
                "version": __version__,
                "modality": str(modality or "unknown"),
                "checkpoint": route.checkpoint,
                "checkpoint_sha256": self._routing.checkpoints[route.checkpoint].sha256,
                "head": str(route.head),
                "recipe": metadata.recipe,
                "trained_on": metadata.trained_on,
                "window": str(self._window(metadata)),
                "overlap": f"{self.settings.overlap:g}",
                "rotations": str(self.settings.rotations),
                "precision": str(self.precision),
                "rescaling": self._rescaling_in_words(pixel_size_um, metadata),
                "device": device,
                "intensity": INTENSITY,
            }
        return origin

    def routes_for(self, modality: Modality | None) -> Mapping[Organelle, Route]:
        if modality not in self._routing.routes:
            raise ValueError(f"modality must be BF, PC, DIC or None, got {modality!r}")
        return self._routing.routes[modality]

    def _heads_by_checkpoint(self, modality: Modality | None) -> dict[str, dict[Organelle, Organelle]]:
        """Checkpoint -> organelle -> head, so that one pass through a network serves all it is asked for."""
        groups: dict[str, dict[Organelle, Organelle]] = {}
        for organelle, route in self.routes_for(modality).items():
            groups.setdefault(route.checkpoint, {})[organelle] = route.head
        return groups

    def _grid(
        self, shape: tuple[int, int], pixel_size_um: PixelSize | None, metadata: CheckpointMetadata
    ) -> tuple[int, int]:
        """The shape (Y, X) at which this checkpoint's network is shown the image."""
        learned = metadata.pixel_size_um if self.rescale else None
        if learned is None or pixel_size_um is None or Rescaling.decide(pixel_size_um, learned).to_um is None:
            return shape
        return grid_shape(shape, pixel_size_um, learned)

    def _rescaling_in_words(self, pixel_size_um: PixelSize | None, metadata: CheckpointMetadata) -> str:
        if not self.rescale:
            return "switched off"
        decision = Rescaling.decide(pixel_size_um, metadata.pixel_size_um)
        if decision.to_um is None or pixel_size_um is None:
            return decision.warning or "none needed"
        before, after = (f"{y:g} x {x:g} µm" for y, x in (pixel_size_um, decision.to_um))
        return f"predicted at {after} a pixel, resampled back to {before}"

    def _window(self, metadata: CheckpointMetadata) -> int:
        return max(LARGEST_WHOLE, metadata.window) if self.settings.whole_image else metadata.window

    def _run_network(self, name: str, heads: list[Organelle], modality: Modality | None, image_1YX: Tensor) -> Tensor:
        """The asked heads of one network over all rotations: (1, Y, X) to float32 (C, Y, X), C as `heads`."""
        network, metadata = self._network(name), self.checkpoints[name]
        stride = NETWORKS[metadata.architecture.network].stride
        code_13: Tensor | None = None
        if metadata.architecture.dynamic and modality is not None:
            code_13 = modality_code(modality).to(self.device)

        def predict_batch(tiles_B1YX: Tensor) -> Tensor:
            code_B3 = None if code_13 is None else code_13.expand(len(tiles_B1YX), -1)
            output_BCYX: Tensor = network(tiles_B1YX, heads, code_B3)
            return output_BCYX

        def predict_turned(turned_1YX: Tensor) -> Tensor:
            _, height, width = turned_1YX.shape
            # A window larger than the image would only see more of the padding.
            window = min(self._window(metadata), _round_up(max(height, width, 2 * stride), stride))
            plan = TilePlan.make((height, width), window, self.settings.overlap)
            batch = max(1, min(TILE_BATCH, TILE_BATCH_PX // window**2))
            return predict_tiled(predict_batch, turned_1YX, plan, batch)

        return predict_with_tta(predict_turned, image_1YX, self.settings.rotations)

    def _network(self, name: str) -> Network:
        if name not in self._networks:
            self._networks[name], _ = load(self._routing.checkpoints[name].path, device=str(self.device))
        return self._networks[name]


def _verified_metadata(routing: Routing) -> dict[str, CheckpointMetadata]:
    """Read what each checkpoint says of itself, and check that the routing asks only for what it has."""
    checkpoints: dict[str, CheckpointMetadata] = {}
    for name, file in routing.checkpoints.items():
        found = file_sha256(file.path)
        if found != file.sha256:
            raise UserError(
                f"{file.path} has SHA-256 {found[:12]}…, but routing.json expects {file.sha256[:12]}…: "
                "the file is not the one that was routed."
            )
        metadata = checkpoints[name] = read_metadata(file.path)
        stride = NETWORKS[metadata.architecture.network].stride
        if metadata.window % stride or metadata.window < 2 * stride:
            raise UserError(
                f"{file.path} states a window of {metadata.window} px, "
                f"expected a multiple of {stride} from {2 * stride} on."
            )
    for modality, ways in routing.routes.items():
        for organelle, route in ways.items():
            path, metadata = routing.checkpoints[route.checkpoint].path, checkpoints[route.checkpoint]
            where = f"routing.json sends {organelle} of {modality or 'unknown modality'} there"
            if route.head not in metadata.architecture.organelles:
                heads = ", ".join(metadata.architecture.organelles)
                raise UserError(f"{path} has heads for {heads}, expected {route.head} too, as {where}.")
            if metadata.architecture.dynamic and modality not in metadata.modalities:
                known = ", ".join(metadata.modalities)
                raise UserError(f"{path} is dynamic and knows only the modality codes of {known}, but {where}.")
    return checkpoints


def _find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        # torch says "not compiled", "no driver", "invalid ordinal" or an unknown word in as many ways.
        raise UserError(f"The device {name!r} is not there, expected auto, cpu, cuda or cuda:<number>.") from None
    return device


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _check_image(image: NDArray[np.uint16]) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be a numpy array, got {type(image).__name__}")
    if image.ndim != 2 or image.size == 0 or image.dtype != np.uint16:
        raise ValueError(f"image must be one plane (Y, X) of uint16, got {image.dtype} of shape {image.shape}")


def _check_pixel_size(pixel_size_um: PixelSize | None) -> None:
    sizes = (1.0, 1.0) if pixel_size_um is None else pixel_size_um
    if len(sizes) != 2 or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise ValueError(f"pixel_size_um must be (y, x) in µm, both positive, got {pixel_size_um}")

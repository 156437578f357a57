"""Predict the four organelles of one plane: routing, preprocessing, tiles, rotations and networks.

    with Predictor.open() as predictor:
        organelles = predictor.predict(image, Modality.BF, pixel_size_um=(0.108, 0.108))

Shape suffixes: B tiles, C organelles, Y rows, X columns.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import __version__
from .checkpoint import CheckpointMetadata, load
from .contrast import missing_contrast
from .determinism import deterministic_cudnn
from .devices import find_device, model_name
from .input_statistics import measure_input
from .labels import Modality, Organelle
from .margins import find_margins
from .networks.build import NETWORKS, Network
from .networks.dynamic_convolution import modality_code
from .normalization import to_uint16
from .plan import NetworkInputs, NetworkOutputs, Plan, Step
from .precision import Precision
from .preprocessing import Grid, PixelSize, Preprocessing
from .resampling import resample
from .routing import Ensemble, Routing, shipped_resources
from .saturation import saturation_warning
from .settings import LARGEST_WHOLE, PRESETS, InferenceSettings
from .tiling import TilePlan, predict_tiled
from .tta import average_predictions, predict_with_tta, quarter_turns
from .verification import read_verified_metadata

TILE_BATCH = 4
TILE_BATCH_PX = TILE_BATCH * 512**2
"""Most pixels in a batch: larger tiles come in smaller batches, so that memory stays the same."""
INTENSITY = "relative, not quantitative"
Heads = dict[str, dict[Organelle, Organelle]]
"""For each checkpoint the organelles that it predicts, and the head of each."""
BLANK = -1.0  # what is predicted where there is nothing to predict from: black


class Predictor:
    """Predicts all four organelles of single planes; each network is loaded when it is first needed.

    `predict` is `plan`, `preprocess`, `forward` and `postprocess`; all but `forward` may run in other threads.
    Deterministic: the same image on the same machine gives the same bytes.
    """

    def __init__(self, routing: Routing, device: torch.device, settings: InferenceSettings, rescale: bool) -> None:
        self._routing = routing
        self.device = device
        self.settings = settings
        self.precision = settings.precision or Precision.fastest(device)
        self.rescale = rescale
        self.checkpoints: Mapping[str, CheckpointMetadata] = read_verified_metadata(routing)
        self._networks: dict[str, Network] = {}
        self._closed = False

    @classmethod
    def open(
        cls,
        resources: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        settings: InferenceSettings = PRESETS["paper"],
        rescale: bool = True,
    ) -> "Predictor":
        """Read routing and checkpoints' metadata from a folder and verify every file's hash.

        Parameters
        ----------
        resources : str or Path, optional
            Folder with ``routing.json`` and its checkpoints; without it the shipped ones.
        device : str or torch.device
            "auto" (a GPU where there is one, else the CPU), or one that torch knows.
        settings : InferenceSettings
            Overlap of tiles, rotations, precision; see `PRESETS`.
        rescale : bool
            Whether an image outside the pixel sizes that a checkpoint learned is resampled to the nearest one.

        Raises
        ------
        UserError
            For resources that cannot be used as they are, or a device that is not there.
        """
        return cls(
            Routing.read(shipped_resources() if resources is None else Path(resources)),
            find_device(str(device)),
            settings,
            rescale,
        )

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

    @property
    def predicts_unknown_modality(self) -> bool:
        """Whether the routing has a network for images of which nothing tells the modality."""
        return None in self._routing.routes

    def close(self) -> None:
        """Free the networks; `predict` raises ValueError from here on."""
        self._networks.clear()
        self._closed = True

    def predict(
        self, image: NDArray[np.uint16], modality: Modality | None, *, pixel_size_um: PixelSize | None = None
    ) -> dict[Organelle, NDArray[np.uint16]]:
        """Predict every organelle of one plane.

        Parameters
        ----------
        image : ndarray of uint16, shape (Y, X)
            Transmitted-light plane.
        modality : Modality or None
            None takes the routes of an unknown modality.
        pixel_size_um : (float, float), optional
            Pixel size (y, x) in µm; without it the image is taken as it is.

        Returns
        -------
        dict of Organelle to ndarray of uint16, shape (Y, X)
            The intensity is relative, not quantitative.

        Raises
        ------
        ValueError
            For another kind of array, or a pixel size that is not positive.
        UserError
            Where a checkpoint cannot be loaded.
        """
        _check_image(image)
        plan = self.plan(modality, (image.shape[0], image.shape[1]), pixel_size_um)
        return self.postprocess(self.forward(self.preprocess(image, plan)), plan)

    def plan(self, modality: Modality | None, shape: tuple[int, int], pixel_size_um: PixelSize | None) -> Plan:
        """Decide which checkpoints and heads predict an image, and on which grid.

        Parameters
        ----------
        modality : Modality or None
        shape : (int, int)
            Rows and columns.
        pixel_size_um : (float, float) or None
            Pixel size (y, x) in µm.

        Returns
        -------
        Plan

        Raises
        ------
        ValueError
            For a modality that the routing does not have, or a pixel size that is not positive.
        """
        _check_pixel_size(pixel_size_um)
        if modality not in self._routing.routes:
            known = ", ".join(map(str, self._routing.routes))
            raise ValueError(f"modality must be one of {known}, got {modality!r}")
        rotations = self.settings.rotations
        routed = self._routing.choose(modality, pixel_size_um)
        # Time follows from the rotations, not from how many networks there are.
        ensembles = {organelle: ensemble[:rotations] for organelle, ensemble in routed.items()}
        heads, turns = _share_work(ensembles, rotations)
        grids = {name: self._preprocessing(name).grid(shape, pixel_size_um) for name in heads}
        steps = [
            Step(name, heads[name], tuple(map(grids[name].scaled, self.settings.scales)), turns[name]) for name in heads
        ]
        provenance = {o: self._provenance(modality, ensemble, grids) for o, ensemble in ensembles.items()}
        return Plan(modality, shape, tuple(steps), self._warnings(heads, grids), provenance)

    def preprocess(self, pixels: NDArray[np.uint16], plan: Plan) -> NetworkInputs:
        """Resample and normalize a plane (Y, X) of uint16 for each network of the plan.

        A plane without any contrast gets a warning instead of inputs: a network would invent structures.
        """
        _check_image(pixels)
        margins = find_margins(pixels)
        if nothing := missing_contrast(pixels, margins):
            warning = f"{nothing}, so its predictions are left blank"
            return NetworkInputs(plan.with_provenance(contrast=warning), {}, (warning,))
        made: dict[tuple[Preprocessing, tuple[int, int]], Tensor] = {}
        measured: dict[tuple[Preprocessing, tuple[int, int]], NDArray[np.float64] | None] = {}
        inputs: dict[str, list[Tensor]] = {}
        warnings = [saturation_warning(pixels)]
        for step in plan.steps:
            preprocessing = self._preprocessing(step.checkpoint)
            for grid in step.grids:
                key = preprocessing, grid.shape
                if key not in made:  # checkpoints that were trained alike share their inputs
                    made[key] = torch.from_numpy(preprocessing.input(pixels, grid, margins))[None]
                inputs.setdefault(step.checkpoint, []).append(made[key])
            if statistics := self.checkpoints[step.checkpoint].input_statistics:
                key = preprocessing, step.grids[0].shape
                if key not in measured:
                    measured[key] = measure_input(made[key][0].numpy())
                features = measured[key]
                warnings.append(None if features is None else statistics.warning(features))
        return NetworkInputs(plan, inputs, tuple(dict.fromkeys(filter(None, warnings))))

    def forward(self, inputs: NetworkInputs) -> NetworkOutputs:
        """Predict each organelle on its network's grid; the results are on the CPU."""
        if self._closed:
            raise ValueError("this predictor is closed")
        if not inputs.inputs:
            return NetworkOutputs({organelle: torch.full((1, 1), BLANK) for organelle in Organelle}, {})
        predictions: dict[Organelle, list[tuple[Tensor, Tensor | None]]] = defaultdict(list)
        with torch.inference_mode(), deterministic_cudnn(), self.precision.on(self.device):
            for step in inputs.plan.steps:
                heads = sorted(set(step.heads.values()), key=list(Organelle).index)
                mean_CYX, std_CYX = average_predictions(
                    self._run_network(step, heads, inputs.plan.modality, image_1YX.to(self.device))
                    for image_1YX in inputs.inputs[step.checkpoint]
                )
                for organelle, head in step.heads.items():
                    channel = slice(heads.index(head), heads.index(head) + 1)
                    std_1YX = None if std_CYX is None else std_CYX[channel]
                    predictions[organelle].append((mean_CYX[channel], std_1YX))
        averaged = {organelle: average_predictions(ensemble) for organelle, ensemble in predictions.items()}
        return NetworkOutputs(
            {organelle: mean_1YX[0] for organelle, (mean_1YX, _) in averaged.items()},
            {organelle: std_1YX[0] for organelle, (_, std_1YX) in averaged.items() if std_1YX is not None},
        )

    @staticmethod
    def postprocess(outputs: NetworkOutputs, plan: Plan) -> dict[Organelle, NDArray[np.uint16]]:
        """Bring what the networks predicted back to the image's grid, and to 16 bit: uint16 (Y, X) an organelle."""
        return {organelle: to_uint16(resample(outputs.mean[organelle].numpy(), plan.shape)) for organelle in Organelle}

    def _preprocessing(self, checkpoint: str) -> Preprocessing:
        """As the checkpoint learned it; on the image's own grid where rescaling is switched off."""
        preprocessing = self.checkpoints[checkpoint].preprocessing
        return preprocessing if self.rescale else replace(preprocessing, pixel_size_um=None)

    def _warnings(self, heads: Heads, grids: Mapping[str, Grid]) -> tuple[str, ...]:
        warnings = dict.fromkeys(grid.warning for grid in grids.values() if grid.warning)
        for name in heads:
            labelled = self.checkpoints[name].all_labels
            if never := [str(organelle) for organelle, head in heads[name].items() if head not in labelled]:
                warnings[f"{name} never had a label of {' and '.join(never)}, so what it predicts means nothing"] = None
        return tuple(warnings)

    def _provenance(self, modality: Modality | None, ensemble: Ensemble, grids: Mapping[str, Grid]) -> dict[str, str]:
        names = [route.checkpoint for route in ensemble]
        learned = [self.checkpoints[name] for name in names]
        return {
            "version": __version__,
            "modality": str(modality or "unknown"),
            "checkpoint": _listed(names),
            "checkpoint_sha256": _listed(self._routing.checkpoints[name].sha256 for name in names),
            "head": _listed(str(route.head) for route in ensemble),
            "recipe": _listed(metadata.recipe for metadata in learned),
            "trained_on": _listed(metadata.trained_on for metadata in learned),
            "window": _listed(str(self._window(metadata)) for metadata in learned),
            "overlap": f"{self.settings.overlap:g}",
            "rotations": str(self.settings.rotations),
            "scales": ", ".join(f"{scale:g}" for scale in self.settings.scales),
            "precision": str(self.precision),
            "rescaling": _listed(grids[name].rescaling for name in names) if self.rescale else "switched off",
            "device": model_name(self.device),
            "intensity": INTENSITY,
        }

    def _window(self, metadata: CheckpointMetadata) -> int:
        return max(LARGEST_WHOLE, metadata.window) if self.settings.whole_image else metadata.window

    def _run_network(
        self, step: Step, heads: list[Organelle], modality: Modality | None, image_1YX: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Predict with some heads of one network: (1, Y, X) to mean and deviation over its turns, (C, Y, X)."""
        network, metadata = self._network(step.checkpoint), self.checkpoints[step.checkpoint]
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

        mean_CYX, std_CYX = predict_with_tta(predict_turned, image_1YX, step.turns)
        return mean_CYX.cpu(), None if std_CYX is None else std_CYX.cpu()

    def _network(self, name: str) -> Network:
        if name not in self._networks:
            self._networks[name], _ = load(self._routing.checkpoints[name].path, device=str(self.device))
        return self._networks[name]


def _share_work(ensembles: Mapping[Organelle, Ensemble], rotations: int) -> tuple[Heads, dict[str, tuple[int, ...]]]:
    """Which heads each network predicts with, and in which quarter turns: an ensemble shares the rotations."""
    heads: Heads = defaultdict(dict)
    turns: dict[str, tuple[int, ...]] = {}
    for organelle, ensemble in ensembles.items():
        for member, route in enumerate(ensemble):
            heads[route.checkpoint][organelle] = route.head
            # One pass serves all heads of a network, so the smallest ensemble that it is in decides.
            wanted = quarter_turns(rotations, member, len(ensemble))
            turns[route.checkpoint] = max(turns.get(route.checkpoint, ()), wanted, key=len)
    return heads, turns


def _listed(values: Iterable[str]) -> str:
    """Facts of an ensemble's networks, those that are the same once."""
    return ", ".join(dict.fromkeys(values))


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

"""Batches: crops of inputs and targets, from fields on disk or from stored specimens, prepared ahead by threads."""

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.labels import Modality, Organelle
from model.normalization import BLANK_TARGET, normalize_input
from simulation.renderer import PlaneStream, RenderedPlane, SpecimenRenderer
from training.appearance import AppearanceConfig, change_appearance
from training.augmentation import Augmentation
from training.config import TrainingConfig
from training.index import Index
from training.plane_cache import PlaneCache, pixel_size_range
from training.sampling import BalancedSampler, PlainSampler, Sampler, sample_rng

PLANE_TO_CROP = 1.5
"""Side of a rendered plane over that of the crop that is cut from it."""


@dataclass(frozen=True)
class Batch:
    """Crops of inputs and targets: a batch, or a part of one.

    Attributes
    ----------
    x_B1YX : Tensor of float32
        Normalized inputs.
    y_BCYX : Tensor of float32
        Normalized targets; C runs over `organelles`. An unlabelled one is zeros and is never read.
    labelled_BC : Tensor of bool
        Which targets are labelled.
    organelles : tuple of Organelle
        Those that some sample of the batch has.
    modalities : tuple of Modality
        Of each sample.
    share : float
        Labelled pairs of this part over those of the whole batch. All losses are means over labelled pairs, so the
        batch's loss is the sum of its parts' losses, each times its share.
    """

    x_B1YX: Tensor  # noqa: N815
    y_BCYX: Tensor  # noqa: N815
    labelled_BC: Tensor  # noqa: N815
    organelles: tuple[Organelle, ...]
    modalities: tuple[Modality, ...]
    share: float = 1.0

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        x, y, labelled = (t.to(device) for t in (self.x_B1YX, self.y_BCYX, self.labelled_BC))
        return replace(self, x_B1YX=x, y_BCYX=y, labelled_BC=labelled)


class BatchSource(Protocol):
    """What a run learns from. Batch number n is a pure function of the seed and n, and so is each of its parts.

    Attributes
    ----------
    batch_size : int
        Samples in a batch, all parts together.
    steps_per_epoch : int
        Batches that see each field, or specimen, about once.
    labels : dict of Modality to tuple of Organelle
        What is labelled at least once.
    pixel_size_um : tuple of float or None
        Smallest and largest pixel size in µm that the network sees; None where it is unknown.
    """

    batch_size: int
    steps_per_epoch: int
    labels: dict[Modality, tuple[Organelle, ...]]
    pixel_size_um: tuple[float, float] | None

    def make(self, number: int, part: int) -> Batch:
        """Build one part of a batch."""

    def notes(self) -> dict[str, str]:
        """Facts for the checkpoint's notes."""

    def digest(self) -> str:
        """Hash of what there is to learn from, wherever it lies."""


class FieldBatches:
    """Crops of the fields of an index, equally many from each labelled organelle's list (paper, section 2.2).

    Parameters
    ----------
    index : Index
        Checked fields.
    cache : PlaneCache
        Reads and keeps their planes.
    config : TrainingConfig
    parts : int
        Of each batch: micro-batches times processes.
    """

    def __init__(self, index: Index, cache: PlaneCache, config: TrainingConfig, parts: int = 1) -> None:
        self._index, self._cache, self._config = index, cache, config
        sampler = BalancedSampler if config.sampling == "balanced" else PlainSampler
        self._sampler: Sampler = sampler(index.fields, config.batch_per_organelle, config.seed, parts)
        self.batch_size = self._sampler.batch_size
        self.steps_per_epoch = math.ceil(len(index.fields) / self.batch_size)
        self.labels = index.labelled()
        self.pixel_size_um = config.pixel_size_um or pixel_size_range(index.fields)
        blank = config.partial_labels == "blank"
        self._always = {o for labelled in self.labels.values() for o in labelled} if blank else set()

    def make(self, number: int, part: int = 0) -> Batch:
        """Build a part of batch `number`; organelles that no sample of it has are left out."""
        parts = self._sampler.draw(number)
        pairs = [sum(len(pick.field.labels.keys() | self._always) for pick in picks) for picks in parts]
        picks, crop = parts[part], self._config.crop
        labelled = {o for pick in picks for o in pick.field.labels} | self._always
        organelles = tuple(o for o in Organelle if o in labelled)
        batch = _BatchBuilder(tuple(pick.field.modality for pick in picks), organelles, crop)
        for b, pick in enumerate(picks):
            rng = sample_rng(self._config.seed, number, pick.sample)
            image = self._cache.input(pick.field, pick.z)
            shape = (image.shape[0], image.shape[1])
            augmentation = Augmentation.draw(rng, shape, crop)
            batch.put_input(b, augmentation.apply(image, crop), self._config.appearance, rng)
            for organelle in pick.field.labels:
                target = self._cache.target(pick.field, organelle, shape)
                batch.put_target(b, organelle, augmentation.apply(target, crop))
            for organelle in self._always - pick.field.labels.keys():
                batch.put_target(
                    b, organelle, np.full((crop, crop), BLANK_TARGET[self._config.target_normalization], np.float32)
                )
        return batch.build(pairs[part] / sum(pairs))

    def notes(self) -> dict[str, str]:
        """Numbers of fields and input planes."""
        return {"training_fields": str(len(self._index.fields)), "training_inputs": str(self._index.inputs())}

    def digest(self) -> str:
        """Hash of fields, planes and labels."""
        return self._index.digest()


class SpecimenBatches:
    """Crops of planes that are rendered for the run from stored specimens: every one is labelled completely.

    Parameters
    ----------
    renderer : SpecimenRenderer
        Of the modalities to learn from.
    config : TrainingConfig
        With pixel sizes, flatfield inputs and percentile targets, which the renderer makes.
    parts : int
        Of each batch: micro-batches times processes.
    """

    def __init__(self, renderer: SpecimenRenderer, config: TrainingConfig, parts: int = 1) -> None:
        assert config.pixel_size_um is not None  # see RunConfig.validate
        self._renderer, self._config, self._parts = renderer, config, parts
        self._part_size = config.batch_per_organelle * len(Organelle)
        self.batch_size = parts * self._part_size
        self.steps_per_epoch = math.ceil(len(renderer.store) / self.batch_size)
        self.labels = {modality: tuple(Organelle) for modality in renderer.modalities}
        self.pixel_size_um: tuple[float, float] | None = config.pixel_size_um
        side = math.ceil(PLANE_TO_CROP * config.crop)
        held = config.accumulate * self._part_size  # what one process asks for
        self._planes = PlaneStream(renderer, config.seed, held, side, config.pixel_size_um)

    def make(self, number: int, part: int = 0) -> Batch:
        """Build a part of batch `number`: one crop of each of its planes."""
        samples = range(part * self._part_size, (part + 1) * self._part_size)
        planes = [self._planes.plane(number, sample) for sample in samples]
        batch = _BatchBuilder(tuple(plane.modality for plane in planes), tuple(Organelle), self._config.crop)
        for b, (sample, plane) in enumerate(zip(samples, planes, strict=True)):
            self._put(batch, b, plane, sample_rng(self._config.seed, number, sample))
        return batch.build(1 / self._parts)

    def _put(self, batch: "_BatchBuilder", b: int, plane: RenderedPlane, rng: np.random.Generator) -> None:
        crop = self._config.crop
        image = normalize_input(plane.pixels, self._config.input_normalization)
        augmentation = Augmentation.draw(rng, (image.shape[0], image.shape[1]), crop)
        batch.put_input(b, augmentation.apply(image, crop), self._config.appearance, rng)
        for organelle, target in zip(Organelle, plane.targets, strict=True):
            batch.put_target(b, organelle, augmentation.apply(target, crop))

    def notes(self) -> dict[str, str]:
        """Number of specimens."""
        return {"training_specimens": str(len(self._renderer.store))}

    def digest(self) -> str:
        """Hash of the specimens' descriptions."""
        facts = [(s.path.name, s.setting, s.shape, s.brightness) for s in self._renderer.store.specimens]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class _BatchBuilder:
    """Arrays to fill sample by sample."""

    def __init__(self, modalities: tuple[Modality, ...], organelles: tuple[Organelle, ...], crop: int) -> None:
        self._modalities, self._organelles = modalities, organelles
        self._x_B1YX = np.empty((len(modalities), 1, crop, crop), np.float32)
        self._y_BCYX = np.zeros((len(modalities), len(organelles), crop, crop), np.float32)
        self._labelled_BC = np.zeros((len(modalities), len(organelles)), bool)

    def put_input(
        self, b: int, x_YX: NDArray[np.float32], appearance: AppearanceConfig, rng: np.random.Generator
    ) -> None:
        self._x_B1YX[b, 0] = change_appearance(x_YX, self._modalities[b], appearance, rng)

    def put_target(self, b: int, organelle: Organelle, y_YX: NDArray[np.float32]) -> None:
        c = self._organelles.index(organelle)
        self._y_BCYX[b, c] = y_YX
        self._labelled_BC[b, c] = True

    def build(self, share: float) -> Batch:
        tensors = (torch.from_numpy(array) for array in (self._x_B1YX, self._y_BCYX, self._labelled_BC))
        x_B1YX, y_BCYX, labelled_BC = tensors
        return Batch(x_B1YX, y_BCYX, labelled_BC, self._organelles, self._modalities, share)


class Loader:
    """An endless iterator over the batches of a source, prepared ahead by threads and delivered in order.

    Each item is a list of those parts of a batch that this process learns from.

    Parameters
    ----------
    source : BatchSource
    start : int
        Number of the first batch.
    workers : int
        Threads.
    parts : sequence of int

    Attributes
    ----------
    next : int
        Number of the batch that comes next.
    waited : float
        Seconds that the caller has waited for batches: where they grow, loading is slower than computing.
    """

    def __init__(self, source: BatchSource, *, start: int = 0, workers: int = 1, parts: Sequence[int] = (0,)) -> None:
        self._source, self._parts = source, parts
        self.next = start
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
        self._ahead: deque[Future[Batch]] = deque()
        self._depth = workers + len(parts)
        self.waited = 0.0

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> list[Batch]:
        while len(self._ahead) < self._depth:
            ahead, i = divmod(len(self._ahead), len(self._parts))
            self._ahead.append(self._pool.submit(self._source.make, self.next + ahead, self._parts[i]))
        began = time.monotonic()
        batch = [self._ahead.popleft().result() for _ in self._parts]
        self.waited += time.monotonic() - began
        self.next += 1
        return batch

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

"""Balanced batches: equally many samples from each labelled organelle's list in every batch (paper section 2.2).

Batch number n is a pure function of (seed, n): no random state runs along, so the stream can be read ahead by
threads, and a resumed run goes on with the very batch that comes next.
"""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from model.errors import UserError
from model.labels import Modality, Organelle
from training.augmentation import Augmentation
from training.index import Field
from training.plane_cache import PlaneCache


@dataclass(frozen=True)
class Pick:
    """One sample to be: which field, which plane, and the organelle from whose list it was drawn."""

    field: Field
    z: int
    drawn_for: Organelle


@dataclass(frozen=True)
class Batch:
    """Inputs x_B1YX and targets y_BCYX in float32, labelled_BC in bool; C runs over ``organelles``.

    Only organelles that some sample of the batch has are listed. An unlabelled target is zeros and is never read.
    """

    x_B1YX: Tensor  # noqa: N815
    y_BCYX: Tensor  # noqa: N815
    labelled_BC: Tensor  # noqa: N815
    organelles: tuple[Organelle, ...]
    modalities: tuple[Modality, ...]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        x, y, labelled = (t.to(device) for t in (self.x_B1YX, self.y_BCYX, self.labelled_BC))
        return Batch(x, y, labelled, self.organelles, self.modalities)


class BalancedSampler:
    """Draws ``per_organelle`` fields from the list of each labelled organelle, for every batch.

    Fields are uniform over the list and do not repeat within a batch's draw from it, as long as the list is
    long enough; the plane is uniform over the field's planes.
    """

    def __init__(self, fields: Sequence[Field], per_organelle: int, seed: int) -> None:
        self.lists = {o: [f for f in fields if o in f.labels] for o in Organelle}
        self.lists = {o: listed for o, listed in self.lists.items() if listed}
        if not self.lists:
            raise UserError("the training part of the data holds no labelled field, expected at least one")
        self.per_organelle = per_organelle
        self.seed = seed

    @property
    def batch_size(self) -> int:
        return self.per_organelle * len(self.lists)

    def draw(self, number: int) -> tuple[list[Pick], np.random.Generator]:
        """The samples of batch ``number``, and the generator to draw their augmentation from."""
        rng = np.random.default_rng([self.seed, number])
        picks = []
        for organelle, listed in self.lists.items():
            chosen = rng.choice(len(listed), self.per_organelle, replace=len(listed) < self.per_organelle)
            for i in chosen:
                planes = list(listed[i].planes)
                picks.append(Pick(listed[i], planes[int(rng.integers(len(planes)))], organelle))
        return picks, rng


class Loader:
    """An endless iterator over batches, prepared ahead by threads and delivered in order.

    ``waited`` is how many seconds the caller has stood still for batches: the sign that loading, not computing,
    sets the pace. ``blur`` is the largest standard deviation in pixels of the Gaussian that softens an input.
    """

    def __init__(
        self,
        cache: PlaneCache,
        sampler: BalancedSampler,
        crop: int,
        *,
        blur: float = 0.0,
        start: int = 0,
        workers: int = 1,
    ) -> None:
        self._cache, self._sampler, self._crop, self._blur = cache, sampler, crop, blur
        self._next = start
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
        self._ahead: deque[Future[Batch]] = deque()
        self._depth = workers + 1
        self.waited = 0.0

    def state(self) -> dict[str, int]:
        """All there is to know to go on: the seed, and the number of the next batch."""
        return {"seed": self._sampler.seed, "next_batch": self._next}

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> Batch:
        while len(self._ahead) < self._depth:
            self._ahead.append(self._pool.submit(self.make, self._next + len(self._ahead)))
        began = time.monotonic()
        batch = self._ahead.popleft().result()
        self.waited += time.monotonic() - began
        self._next += 1
        return batch

    def make(self, number: int) -> Batch:
        """Build batch ``number``."""
        picks, rng = self._sampler.draw(number)
        organelles = tuple(o for o in Organelle if any(o in p.field.labels for p in picks))
        size = (len(picks), len(organelles), self._crop, self._crop)
        x = np.empty((size[0], 1, *size[2:]), np.float32)
        y = np.zeros(size, np.float32)
        labelled = np.zeros(size[:2], bool)
        for b, pick in enumerate(picks):
            image = self._cache.input(pick.field, pick.z)
            augmentation = Augmentation.draw(rng, (image.shape[0], image.shape[1]), self._crop)
            x[b, 0] = augmentation.apply(image, self._crop)
            if self._blur:
                x[b, 0] = ndimage.gaussian_filter(x[b, 0], rng.uniform(0, self._blur), mode="nearest")
            for c, organelle in enumerate(organelles):
                if organelle in pick.field.labels:
                    target = self._cache.target(pick.field, organelle, (image.shape[0], image.shape[1]))
                    y[b, c] = augmentation.apply(target, self._crop)
                    labelled[b, c] = True
        modalities = tuple(p.field.modality for p in picks)
        tensors = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(labelled)
        return Batch(*tensors, organelles, modalities)

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

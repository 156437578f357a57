"""Scores on held-out fields: the challenge's PCC and SSIM, on whole planes of the network's grid."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from evaluation.metrics import pcc, ssim
from model.labels import Modality, Organelle
from training.batches import Batch
from training.index import Field
from training.plane_cache import Preprocessing


def choose_planes(fields: Sequence[Field], count: int, seed: int) -> list[tuple[Field, int]]:
    """Choose ``count`` different planes, seeded, in turn for each labelled organelle of each modality.

    Taking turns keeps rare labels in a small choice. All planes are taken where there are fewer.
    """
    rng = np.random.default_rng([seed, 0xCA11])
    queues: list[list[tuple[Field, int]]] = []
    for organelle in Organelle:
        for modality in Modality:
            group = [f for f in fields if f.modality is modality and organelle in f.labels]
            shuffled = [group[i] for i in rng.permutation(len(group))]
            stacks = [list(rng.permutation(list(f.planes))) for f in shuffled]
            # One plane of every field first, then a second of every field, and so on.
            deepest = max((len(stack) for stack in stacks), default=0)
            queues.append(
                [
                    (f, int(stack[depth]))
                    for depth in range(deepest)
                    for f, stack in zip(shuffled, stacks, strict=True)
                    if depth < len(stack)
                ]
            )
    queues = [queue[::-1] for queue in queues if queue]
    chosen: dict[tuple[str, int], tuple[Field, int]] = {}
    for queue in cycle(queues) if queues else ():
        if len(chosen) >= count or not any(queues):
            break
        while queue:
            entry, z = queue.pop()
            if (entry.name, z) not in chosen:
                chosen[entry.name, z] = (entry, z)
                break
    return list(chosen.values())


def validate(
    planes: Sequence[tuple[Field, int]],
    preprocessing: Preprocessing,
    predict: Callable[[Batch], Tensor],
    *,
    stride: int,
) -> dict[str, float]:
    """Score ``predict`` on each plane, centre-cropped to multiples of ``stride`` pixels.

    Returns means by name: ``pcc/BF/nucleus``, ``ssim/BF/nucleus`` over the planes of a modality, ``pcc/nucleus``
    over all planes, and ``pcc/mean``, ``ssim/mean`` over the modality-organelle means (so each counts the same,
    however many planes it has). No random number is drawn. The truth is not clipped as the target may be.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    with torch.no_grad():
        for entry, z in planes:
            image = preprocessing.input(entry.planes[z])
            shape = (image.shape[0], image.shape[1])
            organelles = tuple(entry.labels)
            stack = [preprocessing.target(entry.labels[o], shape, unclipped=True) for o in organelles]
            x, *truths = (_centre(plane, stride) for plane in (image, *stack))
            if min(x.shape) == 0:
                continue  # smaller than the network's stride: it can be learned from, padded, but not scored
            y_BCYX = torch.from_numpy(np.stack(truths))[None]
            labelled_BC = torch.ones(1, len(organelles), dtype=torch.bool)
            batch = Batch(torch.from_numpy(x)[None, None], y_BCYX, labelled_BC, organelles, (entry.modality,))
            for organelle, predicted, truth in zip(organelles, predict(batch)[0].cpu().numpy(), truths, strict=True):
                for name, metric in (("pcc", pcc), ("ssim", ssim)):
                    value = metric(predicted, truth)
                    scores[f"{name}/{entry.modality}/{organelle}"].append(value)
                    scores[f"{name}/{organelle}"].append(value)
    means = {name: float(np.mean(values)) for name, values in sorted(scores.items())}
    for name in ("pcc", "ssim"):
        groups = [value for key, value in means.items() if key.startswith(f"{name}/") and key.count("/") == 2]
        if groups:
            means[f"{name}/mean"] = float(np.mean(groups))
    return means


def _centre(image: np.ndarray, stride: int) -> np.ndarray:
    (top, height), (left, width) = (
        ((size % stride) // 2, size - size % stride) for size in (image.shape[0], image.shape[1])
    )
    return np.ascontiguousarray(image[top : top + height, left : left + width], dtype=np.float32)

"""Scores on held-out fields: the challenge's PCC and SSIM, on whole planes of the network's grid."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from evaluation.metrics import pcc, ssim
from model.images import inspect
from model.labels import Modality, Organelle
from model.networks.layers import smallest_side
from model.normalization import TargetNormalization
from model.preprocessing import Preprocessing
from training.batches import Batch
from training.index import Field, Skipped
from training.plane_cache import read_input, read_target


def choose_planes(fields: Sequence[Field], count: int, seed: int) -> list[tuple[Field, int]]:
    """Choose planes to score, seeded, in turn for each labelled organelle of each modality.

    Taking turns keeps rare labels in a small choice.

    Parameters
    ----------
    fields : sequence of Field
    count : int
        How many different planes; all are taken where there are fewer.
    seed : int

    Returns
    -------
    list of (Field, int)
        Fields with the z of a plane.
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


def large_enough(
    fields: Sequence[Field], preprocessing: Preprocessing, stride: int
) -> tuple[tuple[Field, ...], tuple[Skipped, ...]]:
    """Leave out planes that are too small to be scored; they can be learned from, where they are padded.

    Parameters
    ----------
    fields : sequence of Field
    preprocessing : Preprocessing
        Tells how large a plane is on the network's grid.
    stride : int
        Of the network, which needs `smallest_side` pixels a side.

    Returns
    -------
    kept : tuple of Field
        With the planes that remain.
    skipped : tuple of Skipped
        One for each plane that is left out.
    """
    kept, skipped, least = [], [], smallest_side(stride)
    for entry in fields:
        planes = {}
        for z, path in entry.planes.items():
            info = inspect(path)
            shape = preprocessing.grid(info.shape, info.pixel_size_um).shape
            if min(shape) >= least:
                planes[z] = path
            else:
                reason = f"is {shape} pixels on the network's grid, expected at least {least} a side to be scored"
                skipped.append(Skipped(str(path), reason))
        if planes:
            kept.append(replace(entry, planes=planes))
    return tuple(kept), tuple(skipped)


def validate(
    planes: Sequence[tuple[Field, int]],
    preprocessing: Preprocessing,
    predict: Callable[[Batch], Tensor],
    *,
    stride: int,
) -> dict[str, float]:
    """Score predictions on whole planes, centre-cropped to multiples of the network's stride.

    No random number is drawn. The truth is normalized linearly whatever the target is, since metrics ignore affine
    changes, but not clipping.

    Parameters
    ----------
    planes : sequence of (Field, int)
        Fields, `large_enough`, with the z of a plane.
    preprocessing : Preprocessing
    predict : callable
        Maps a batch of one sample to predictions (1, C, Y, X), C over the batch's organelles.
    stride : int
        Of the network, in pixels.

    Returns
    -------
    dict of str to float
        Means by name: ``pcc/BF/nucleus``, ``ssim/BF/nucleus`` over the planes of a modality, ``pcc/nucleus`` over all
        planes, and ``pcc/mean``, ``ssim/mean`` over the means of modality and organelle, so that each counts the same,
        however many planes it has.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    with torch.no_grad():
        for entry, z in planes:
            image = read_input(entry.planes[z], preprocessing)
            shape = (image.shape[0], image.shape[1])
            organelles = tuple(entry.labels)
            stack = [read_target(entry.labels[o], shape, TargetNormalization.LINEAR) for o in organelles]
            x, *truths = (_centre(plane, stride) for plane in (image, *stack))
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

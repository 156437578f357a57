"""Quantization for storage: every row of a tensor as int8 with a float32 scale.

A row is what the first axis counts: an output channel of a convolution. Rounding moves a weight by at most 1/254 of
its row's largest, which no prediction's correlation with the truth shows in the third decimal (docs/training.md).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # name of the scales: the tensor's and this
_LARGEST = 127


def quantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of two and more axes as int8 and their scales, the others (biases) as float32."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stored[name] = tensor.float()
        if tensor.ndim > 1:
            largest = tensor.float().abs().amax(dim=tuple(range(1, tensor.ndim)), keepdim=True)
            scale = largest.clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
            stored[name], stored[name + SCALE] = (tensor / scale).round().to(torch.int8), scale
    return stored


def dequantize(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float32 tensors of what `quantize` made, and of tensors in any floating type that were never quantised.

    Raises ValueError where an int8 tensor has no scale for each of its rows.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.removesuffix(SCALE) in stored and name.endswith(SCALE):
            continue
        if tensor.dtype == torch.int8:
            scale = stored.get(name + SCALE)
            if scale is None or scale.shape != (len(tensor), *[1] * (tensor.ndim - 1)):
                raise ValueError(f"{name} in 8 bits without a scale for each of its {len(tensor)} rows")
            tensor = tensor.float() * scale
        tensors[name] = tensor.float()
    return tensors

"""The device to compute on, found in one way for prediction and training."""

import torch

from .errors import UserError


def find_device(name: str) -> torch.device:
    """Find a device by name; "auto" is a GPU where there is one. Raises UserError where it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        # torch says "not compiled", "no driver", "invalid ordinal" or an unknown word in as many ways.
        raise UserError(f"The device {name!r} is not there, expected auto, cpu, cuda or cuda:<number>.") from None
    return device

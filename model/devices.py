"""The device to compute on, found in one way for prediction and training."""

import torch

from .errors import UserError


def find_device(name: str) -> torch.device:
    """Find a device that computes.

    Parameters
    ----------
    name : str
        cpu, cuda, mps, or one of several GPUs, such as cuda:1; auto: cuda, else mps (Apple), else cpu.

    Returns
    -------
    torch.device

    Raises
    ------
    UserError
        Where there is no such device, or it does not compute.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        # torch says "not compiled", "no driver", "invalid ordinal" or an unknown word in as many ways.
        raise UserError(f"The device {name!r} is not there, expected auto, cpu, cuda, cuda:<number> or mps.") from None
    return device

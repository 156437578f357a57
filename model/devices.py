"""The devices to compute on, found in one way for prediction and training."""

import torch

from .errors import UserError


def find_devices(names: str) -> list[torch.device]:
    """Find devices that compute.

    Parameters
    ----------
    names : str
        Names as of `find_device`, separated by commas; the same may be there twice. auto: every GPU of the first
        one's model, where there is one: a GPU of another model would give images that differ in the last bit.

    Returns
    -------
    list of torch.device

    Raises
    ------
    UserError
        Where there is no such device, it does not compute, or two are of different models.
    """
    first = find_device(names.split(",")[0].strip())
    if names == "auto":
        count = torch.cuda.device_count() if first.type == "cuda" else 0
        gpus = [torch.device("cuda", index) for index in range(count)]
        return [gpu for gpu in gpus if model_name(gpu) == model_name(gpus[0])] or [first]
    devices = [find_device(name.strip()) for name in names.split(",")]
    models = list(dict.fromkeys(map(model_name, devices)))
    if len(models) > 1:
        raise UserError(f"The devices {names} are {' and '.join(models)}, expected devices of one model.")
    return devices


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
    except RuntimeError:  # an unknown word
        device = None
    if device is None or not computes(device):
        raise UserError(f"The device {name!r} is not there, expected auto, cpu, cuda, cuda:<number> or mps.")
    return device


def computes(device: torch.device) -> bool:
    """Whether a device is there and computes: after some errors a GPU refuses everything to its process."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        # torch says "not compiled", "no driver" or "invalid ordinal" in as many ways.
        return False
    return True


def model_name(device: torch.device) -> str:
    """Name a device's model, e.g. "NVIDIA A100-SXM4-40GB" or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

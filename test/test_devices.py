"""One way to find a device, for prediction and training."""

import pytest
import torch

from model.devices import find_device
from model.errors import UserError
from model.precision import Precision


@pytest.mark.parametrize(
    ("cuda", "mps", "found"),
    [(False, False, "cpu"), (False, True, "mps"), (True, False, "cuda"), (True, True, "cuda")],
)
def test_auto_takes_a_gpu_before_the_cpu(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, found: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_device("auto") == torch.device(found)


def test_a_named_device_must_compute() -> None:
    assert find_device("cpu") == torch.device("cpu")
    for name in ("abacus", "cuda:99", "meta"):
        with pytest.raises(UserError, match=f"The device '{name}' is not there, expected auto, cpu, cuda"):
            find_device(name)


def test_bfloat16_is_off_on_apples_gpus() -> None:
    assert Precision.fastest(torch.device("mps")) is Precision.FP32

"""16-bit factors: where they are used, and that the images they give cannot be told from float32's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from container.check import LOWEST_PSNR_DB, psnr_db
from model.images import read_image
from model.labels import Modality, Organelle
from model.networks.architecture import Architecture
from model.networks.build import build
from model.networks.foreground import Foreground
from model.precision import Precision, bfloat16_is_faster
from model.predictor import Predictor
from model.settings import InferenceSettings

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])
@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("rotations", [1, 4])
def test_shipped_networks_predict_the_same_in_16_bit(precision: Precision, modality: Modality, rotations: int) -> None:
    planes = map(read_image, sorted((ROOT / "test/input").rglob("*_z0.ome.tiff")))
    plane = next(plane for plane in planes if plane.info.modality == modality)
    images = []
    for settings in (InferenceSettings(rotations=rotations, precision=p) for p in (precision, Precision.FP32)):
        with Predictor.open(ROOT / "resources", device="cpu", settings=settings) as predictor:
            images.append(predictor.predict(plane.pixels, modality, pixel_size_um=plane.info.pixel_size_um))
    for organelle in Organelle:
        found, expected = (image[organelle] for image in images)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9999
        error = np.sqrt(np.mean((found.astype(float) - expected) ** 2))
        assert 20 * np.log10(65535 / error) > 60
        assert psnr_db(found, expected) > LOWEST_PSNR_DB + 2, "another processor rounds otherwise"
        assert len(np.unique(found)) > 2000, "no 256 grey levels: the last layer is float32"


@pytest.mark.parametrize("name", ["resnet", "unetplusplus"])
def test_hidden_layers_are_16_bit_and_the_output_is_not(name: str) -> None:
    network, kinds = build(Architecture(name, 4, blocks=1)).eval(), []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *call: kinds.append(call[2].dtype))
    with torch.inference_mode(), Precision.BF16.on(CPU):
        output = network(torch.rand(1, 1, 32, 32))
    assert output.dtype == torch.float32
    assert (kinds.count(torch.float32), kinds.count(torch.bfloat16)) == (4, len(kinds) - 4), "but for the four heads"


def test_the_foreground_branch_computes_in_float32() -> None:
    """Its thresholds multiply rounding: with bfloat16 inside, predictions were 10 dB further from float32's."""
    branch, x_B1YX = Foreground(list(Organelle)).eval(), torch.rand(1, 1, 64, 64)
    torch.nn.init.normal_(branch.last.weight)  # at the start it is zero, and all is kept
    with torch.inference_mode():
        expected = branch(x_B1YX)
        with Precision.BF16.on(CPU):
            assert torch.equal(branch(x_B1YX), expected)


def test_float32_means_float32() -> None:
    with torch.inference_mode(), Precision.FP32.on(CPU):
        assert torch.nn.functional.conv2d(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 3, 3)).dtype == torch.float32


@pytest.mark.parametrize(
    ("processor", "capabilities", "expected"),
    [
        ("AMD EPYC", ("avx2", "avx512_bf16"), True),
        ("AMD EPYC", ("avx2",), False),
        ("Intel Xeon", ("avx512_bf16", "amx_bf16"), True),
        ("Intel Xeon", ("avx512_bf16",), False),
        ("", ("neon",), False),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_is_faster_with_it(
    monkeypatch: pytest.MonkeyPatch, processor: str, capabilities: tuple[str, ...], expected: bool
) -> None:
    found = {"cpu_name": processor, "amx_bf16": False, **dict.fromkeys(capabilities, True)}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert bfloat16_is_faster(CPU) is expected
    assert Precision.fastest(CPU) is (Precision.BF16 if expected else Precision.FP32)
    assert not bfloat16_is_faster(torch.device("mps"))

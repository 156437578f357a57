"""Releasing checkpoints: the routing the paper ends on, a quarter of the bytes, and no network in the wrong place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_METADATA, write_resources

from model import checkpoint
from model.errors import UserError
from model.labels import Modality, Organelle
from model.networks.layers import without_checkerboard
from model.precision import Precision
from model.predictor import Predictor
from model.routing import Routing
from model.settings import InferenceSettings
from training.release import LOW, UNIFIED, main, release


def sources(folder: Path) -> dict[str, Path]:
    names = {f"pix2pix-{m.lower()}": f"pix2pix-{m.lower()}" for m in Modality} | {UNIFIED: "unified"}
    return {name: folder / f"{file}.safetensors" for name, file in names.items()}


def test_what_is_released_predicts_as_before(resources: Path, tmp_path: Path) -> None:
    release(sources(resources), tmp_path)
    image = np.random.default_rng(0).integers(0, 65535, (40, 48)).astype(np.uint16)
    settings = InferenceSettings(rotations=1, precision=Precision.FP32)
    with Predictor.open(resources, settings=settings) as before, Predictor.open(tmp_path, settings=settings) as after:
        for modality in (*Modality, None):
            old, new = before.predict(image, modality), after.predict(image, modality)
            for organelle in Organelle:  # 8 bits a weight are stored, and little is lost by it
                assert np.corrcoef(old[organelle].ravel(), new[organelle].ravel())[0, 1] > 0.999
        origin = after.plan(Modality.DIC, (8, 8), None).provenance
    assert origin[Organelle.ACTIN]["checkpoint"] == UNIFIED
    assert origin[Organelle.NUCLEUS]["checkpoint"] == "pix2pix-dic"


def test_low_magnification_has_networks_of_its_own(resources: Path, tmp_path: Path) -> None:
    few = replace(TINY_METADATA, labels={m: tuple(Organelle)[:3] for m in Modality})
    folder = write_resources(tmp_path, {"pix2pix-pc": few, "pix2pix-dic": few})
    for dic, actin_on_dic in ((sources(resources), f"pix2pix-dic{LOW}"), (sources(folder), UNIFIED)):
        low = {f"{name}{LOW}": path for name, path in sources(resources).items() if name != UNIFIED}
        release(sources(resources) | low | {f"pix2pix-dic{LOW}": dic["pix2pix-dic"]}, tmp_path / "out")
        routing = Routing.read(tmp_path / "out")
        assert routing.choose(Modality.PC, (0.1, 0.3))[Organelle.NUCLEUS].checkpoint == "pix2pix-pc"
        assert routing.choose(Modality.PC, (0.2, 0.3))[Organelle.NUCLEUS].checkpoint == f"pix2pix-pc{LOW}"
        assert routing.choose(Modality.PC, None)[Organelle.ACTIN].checkpoint == f"pix2pix-pc{LOW}"
        assert routing.choose(Modality.DIC, None)[Organelle.ACTIN].checkpoint == actin_on_dic
        assert routing.choose(None, None)[Organelle.ACTIN].checkpoint == UNIFIED
    with Predictor.open(tmp_path / "out", settings=InferenceSettings(rotations=1)) as predictor:
        plan = predictor.plan(Modality.BF, (64, 64), (0.3, 0.3))
        assert {step.checkpoint for step in plan.steps} == {f"pix2pix-bf{LOW}"}
        assert plan.provenance[Organelle.NUCLEUS]["checkpoint"] == f"pix2pix-bf{LOW}"


def test_the_checkerboard_is_filtered_where_it_is_asked_for(resources: Path, tmp_path: Path) -> None:
    release(sources(resources), tmp_path / "plain")
    release(sources(resources), tmp_path / "filtered", filter_checkerboard=True)
    x_B1YX = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for file in ("pix2pix_bf", "unetplusplus"):
        (plain, _), (new, metadata) = (
            checkpoint.load(tmp_path / name / f"{file}.safetensors") for name in ("plain", "filtered")
        )
        expected = plain(x_B1YX)
        if file == "pix2pix_bf":
            assert metadata.architecture.upsampling == "filtered"
            expected = torch.cat([without_checkerboard(plane[None, None]) for plane in expected[0]], 1)
        torch.testing.assert_close(new(x_B1YX), expected)


def test_one_network_of_low_magnification_alone_is_refused(resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [part for name, path in sources(resources).items() for part in (f"--{name.removeprefix('pix2pix-')}", path)]
    words = [str(word).replace("--unetplusplus", "--unified") for word in given]
    with pytest.raises(SystemExit):
        main([*words, "--low-pc", words[1], "--output", "nowhere"])
    assert "expected all three or none" in capsys.readouterr().err


def test_stored_at_a_quarter_of_the_size(resources: Path, tmp_path: Path) -> None:
    release(sources(resources), tmp_path)
    before = checkpoint.load(resources / "unified.safetensors")[0].state_dict().values()
    weights = sum(tensor.numel() for tensor in before)
    assert (tmp_path / "unetplusplus.safetensors").stat().st_size < 1.1 * weights + 20_000


def test_a_network_of_another_modality_is_refused(tmp_path: Path) -> None:
    blind = replace(TINY_METADATA, modalities=(Modality.BF,), labels={Modality.BF: tuple(Organelle)})
    folder = write_resources(tmp_path, {"pix2pix-pc": blind})
    with pytest.raises(UserError, match=r"saw BF, expected PC for pix2pix-pc"):
        release(sources(folder), tmp_path / "out")
    assert not (tmp_path / "out" / "routing.json").exists()

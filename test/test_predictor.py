from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_METADATA, UNIFIED, write_resources
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from identity import Identity, random_image

import model.predictor
import model.preprocessing
from model.checkpoint import read_metadata
from model.errors import UserError
from model.labels import Modality, Organelle
from model.normalization import InputNormalization
from model.precision import Precision
from model.predictor import Predictor
from model.resampling import resample
from model.settings import InferenceSettings

M, N, T, A = Organelle


@pytest.mark.parametrize("modality", [*Modality, None])
def test_four_uint16_planes_of_the_images_shape(resources: Path, modality: Modality | None) -> None:
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(overlap=0.2)) as predictor:
        organelles = predictor.predict(random_image(41, 23), modality)
    assert list(organelles) == list(Organelle)
    for prediction in organelles.values():
        assert prediction.shape == (41, 23)
        assert prediction.dtype == np.uint16


def test_same_bytes_twice_and_dropout_off(resources: Path) -> None:
    image = random_image(50, 33)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with Predictor.open(resources, device="cpu", settings=InferenceSettings(overlap=0.5)) as predictor:
            runs += [predictor.predict(image, Modality.DIC) for _ in range(2)]
    for organelle in Organelle:
        assert len({run[organelle].tobytes() for run in runs}) == 1


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 70), st.integers(1, 70), st.floats(0, 0.9), st.sampled_from([1, 2, 4]), st.sampled_from(Modality))
def test_identity_networks_return_the_image(
    resources: Path, identity: Identity, height: int, width: int, overlap: float, rotations: int, modality: Modality
) -> None:
    assume(height * width > 2)  # fewer grey values show nothing, and are left blank
    image = random_image(height, width, seed=height)
    with Predictor.open(
        resources, device="cpu", settings=InferenceSettings(overlap=overlap, rotations=rotations)
    ) as predictor:
        organelles = predictor.predict(image, modality)
    for prediction in organelles.values():
        assert np.abs(prediction.astype(int) - image).max() <= 1  # of 65535; 1e-5 of [-1, 1] is a third of it


def test_rounded_and_clipped_not_wrapped(resources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def beyond(path: Path, device: str) -> tuple[Any, Any]:
        return lambda x, organelles, code: (x * 3).expand(-1, len(organelles), -1, -1), read_metadata(path)

    monkeypatch.setattr(model.predictor, "load", beyond)
    image = np.array([[0, 65535, 32768]], dtype=np.uint16)
    with Predictor.open(resources, device="cpu") as predictor:
        assert predictor.predict(image, Modality.BF)[N].tolist() == [[0, 65535, 32769]]


def test_one_pass_serves_all_heads_and_no_other_is_computed(resources: Path, identity: Identity) -> None:
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(rotations=1)) as predictor:
        predictor.predict(random_image(32, 32), Modality.DIC)
        assert identity.asked == [("pix2pix-dic", (M, N, T)), ("unified", (A,))]
        predictor.predict(random_image(32, 32), None)
        assert identity.asked[2:] == [("unified", (M, N, T, A))]
        assert identity.loaded == ["pix2pix-dic", "unified"], "each network once, and only when needed"


def test_order_of_rotations_tiles_and_batches(resources: Path, identity: Identity) -> None:
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(rotations=4, overlap=0)) as predictor:
        predictor.predict(random_image(96, 64), Modality.BF)
    assert [len(x) for x in identity.inputs] == [4, 2] * 4  # six windows of 32 px, at most four a batch


def test_larger_windows_go_in_fewer_tiles_a_batch(
    resources: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pixels, batches in ((2 * 32**2, [2, 2, 2]), (32**2 - 1, [1] * 6)):  # one at least, however large
        monkeypatch.setattr(model.predictor, "TILE_BATCH_PX", pixels)
        identity.inputs.clear()
        with Predictor.open(resources, device="cpu", settings=InferenceSettings(rotations=1, overlap=0)) as predictor:
            predictor.predict(random_image(96, 64), Modality.BF)
        assert [len(x) for x in identity.inputs] == batches


def test_whole_image_is_one_window_until_it_is_too_large(
    resources: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.predictor, "LARGEST_WHOLE", 64)
    settings = InferenceSettings(rotations=1, overlap=0, whole_image=True)
    with Predictor.open(resources, device="cpu", settings=settings) as predictor:
        image = random_image(50, 64)
        assert np.abs(predictor.predict(image, Modality.BF)[N].astype(int) - image).max() <= 1
        predictor.predict(random_image(64, 130), Modality.BF)
        assert predictor.plan(Modality.BF, (8, 8), None).provenance[N]["window"] == "64"
    assert [x.shape for x in identity.inputs] == [(1, 1, 64, 64), (3, 1, 64, 64)]


def test_checkpoints_of_one_scaling_and_grid_share_the_input(
    resources: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[InputNormalization] = []
    original = model.preprocessing.normalize_input

    def spy(image: np.ndarray, normalization: InputNormalization, margins: np.ndarray) -> np.ndarray:
        calls.append(normalization)
        return original(image, normalization, margins)

    monkeypatch.setattr(model.preprocessing, "normalize_input", spy)
    flatfield = replace(TINY_METADATA, architecture=UNIFIED, input_normalization=InputNormalization.FLATFIELD)
    for folder in (resources, write_resources(tmp_path, {"unified": flatfield})):
        with Predictor.open(folder, device="cpu") as predictor:
            predictor.predict(random_image(32, 32), Modality.DIC)
    assert calls == [InputNormalization.LINEAR, InputNormalization.LINEAR, InputNormalization.FLATFIELD]


def test_networks_are_shown_pixel_sizes_they_learned(resources: Path, identity: Identity) -> None:
    image = np.repeat(np.linspace(10000, 50000, 40, dtype=np.uint16)[:, None], 24, axis=1)
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(rotations=1, overlap=0)) as predictor:
        same = predictor.predict(image, Modality.BF, pixel_size_um=(0.32, 0.03))
        assert len(identity.inputs[0]) == 3  # 80 x 12 px, in windows of 32
        assert np.abs(same[N].astype(int) - image).max() < 1500  # it came back, smoothed at most
        assert "0.16 x 0.06 µm" in predictor.plan(Modality.BF, (8, 8), (0.32, 0.03)).provenance[N]["rescaling"]
        predictor.predict(image, Modality.BF, pixel_size_um=(0.1, 0.1))
        assert len(identity.inputs[1]) == 2  # 40 x 24 px, as it is
        assert predictor.plan(Modality.BF, (8, 8), (0.1, 0.1)).warnings == ()
    with Predictor.open(
        resources, device="cpu", rescale=False, settings=InferenceSettings(rotations=1, overlap=0)
    ) as predictor:
        predictor.predict(image, Modality.BF, pixel_size_um=(0.32, 0.03))
        assert len(identity.inputs[2]) == 2
        assert predictor.plan(Modality.BF, (8, 8), (0.32, 0.03)).provenance[N]["rescaling"] == "switched off"
        assert predictor.plan(Modality.BF, (8, 8), None).warnings == ()


@pytest.mark.parametrize("pixel_size_um", [None, (1.0, 1.0), (0.1, 1e-4)])
def test_a_doubtful_pixel_size_is_said_and_not_followed(
    resources: Path, identity: Identity, pixel_size_um: tuple[float, float] | None
) -> None:
    image = random_image(40, 24)
    with Predictor.open(resources, device="cpu") as predictor:
        organelles = predictor.predict(image, Modality.BF, pixel_size_um=pixel_size_um)
        (warning,) = predictor.plan(Modality.BF, (8, 8), pixel_size_um).warnings
        assert warning is not None and "taken as it is (learned: 0.06 to 0.16 µm)" in warning
        assert predictor.plan(Modality.BF, (8, 8), pixel_size_um).provenance[N]["rescaling"] == warning
    assert np.abs(organelles[N].astype(int) - image).max() <= 1


def test_dynamic_networks_receive_the_modality(tmp_path: Path, identity: Identity) -> None:
    architecture = replace(TINY_METADATA.architecture, dynamic=True)
    folder = write_resources(tmp_path, {"pix2pix-pc": replace(TINY_METADATA, architecture=architecture)})
    with Predictor.open(folder, device="cpu", settings=InferenceSettings(rotations=1, overlap=0)) as predictor:
        predictor.predict(random_image(64, 32), Modality.PC)
        predictor.predict(random_image(64, 32), Modality.BF)
    first, second = identity.codes
    assert first is not None and first.tolist() == [[0, 1, 0]] * 2
    assert second is None


def test_dynamic_networks_predict(tmp_path: Path) -> None:
    architecture = replace(TINY_METADATA.architecture, dynamic=True)
    folder = write_resources(tmp_path, {"pix2pix-pc": replace(TINY_METADATA, architecture=architecture)})
    with Predictor.open(folder, device="cpu", settings=InferenceSettings(overlap=0)) as predictor:
        assert predictor.predict(random_image(64, 40), Modality.PC)[A].shape == (64, 40)


def test_provenance_names_what_made_each_organelle(resources: Path) -> None:
    with Predictor.open(
        resources, device="cpu", settings=InferenceSettings(0.25, 2, precision=Precision.FP32)
    ) as predictor:
        origin = predictor.plan(Modality.DIC, (8, 8), (0.1, 0.1)).provenance
    assert origin[A]["checkpoint"] == "unified"
    assert origin[N]["checkpoint"] == "pix2pix-dic"
    assert len(origin[A]["checkpoint_sha256"]) == 64
    assert origin[A]["trained_on"] == "nothing at all"
    assert (origin[A]["overlap"], origin[A]["rotations"], origin[A]["precision"]) == ("0.25", "2", "fp32")
    assert origin[A]["intensity"] == "relative, not quantitative"
    assert origin[A]["rescaling"] == "none needed"
    assert all(type(text) is str for text in origin[A].values())


def test_changed_files_and_impossible_routes_are_refused_at_once(tmp_path: Path) -> None:
    folder = write_resources(tmp_path)
    with (folder / "unified.safetensors").open("ab") as file:
        file.write(b"!")
    with pytest.raises(UserError, match=r"unified\.safetensors has SHA-256"):
        Predictor.open(folder, device="cpu")
    no_actin = replace(TINY_METADATA.architecture, organelles=(M, N, T))
    write_resources(folder, {"pix2pix-bf": replace(TINY_METADATA, architecture=no_actin, labels={})})
    with pytest.raises(UserError, match=r"pix2pix-bf.* expected actin too"):
        Predictor.open(folder, device="cpu")
    write_resources(folder, {"unified": replace(TINY_METADATA, architecture=UNIFIED, window=40)})
    with pytest.raises(UserError, match=r"unified.* window of 40 px, expected a multiple of 16 from 32 on"):
        Predictor.open(folder, device="cpu")
    dynamic = replace(TINY_METADATA, architecture=replace(UNIFIED, dynamic=True))
    write_resources(folder, {"unified": dynamic})
    with pytest.raises(UserError, match=r"unified.* is dynamic .* unknown modality"):
        Predictor.open(folder, device="cpu")


def test_scales_change_what_the_network_sees_and_not_the_output(tmp_path: Path, identity: Identity) -> None:
    folder = write_resources(tmp_path)
    settings = InferenceSettings(rotations=1, overlap=0, scales=(1.0, 0.5, 1.5))
    with Predictor.open(folder, device="cpu", settings=settings) as predictor:
        plan = predictor.plan(Modality.BF, (40, 60), (0.1, 0.1))
        (step,) = plan.steps
        assert [grid.shape for grid in step.grids] == [(40, 60), (20, 30), (60, 90)]
        inputs = predictor.preprocess(random_image(40, 60), plan)
        assert [tuple(image.shape) for image in inputs.inputs[step.checkpoint]] == [
            (1, 40, 60),
            (1, 20, 30),
            (1, 60, 90),
        ]
        outputs = predictor.forward(inputs)
        means = [torch.from_numpy(resample(image[0].numpy(), (40, 60))) for image in inputs.inputs[step.checkpoint]]
        assert torch.allclose(outputs.mean[N], torch.stack(means).mean(0), atol=1e-5)
        assert outputs.std[N].shape == (40, 60) and outputs.std[N].max() > 0
        assert predictor.postprocess(outputs, plan)[N].shape == (40, 60)
        assert plan.provenance[N]["scales"] == "1, 0.5, 1.5"


def test_misuse_is_refused(resources: Path) -> None:
    for option in (
        {"overlap": 0.95},
        {"overlap": float("nan")},
        {"rotations": 3},
        {"scales": ()},
        {"scales": (1.0, 3.0)},
    ):
        with pytest.raises(ValueError, match="must"):
            InferenceSettings(**option)  # type: ignore[arg-type]
    for device in ("abacus", "cuda:99"):
        with pytest.raises(UserError, match="is not there, expected auto, cpu, cuda"):
            Predictor.open(resources, device=device)
    good = random_image(8, 8)
    with Predictor.open(resources, device="cpu") as predictor:
        for image in (good.astype(np.float32), good[None], good[:0], good.tolist(), good.astype(">u2")[0]):
            with pytest.raises(ValueError, match="image must be"):
                predictor.predict(image, Modality.BF)
        for size in ((0.0, 0.1), (0.1,), (float("nan"), 0.1), (-0.1, 0.1)):
            with pytest.raises(ValueError, match="pixel_size_um must be"):
                predictor.predict(good, Modality.BF, pixel_size_um=size)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="modality must be"):
            predictor.predict(good, "STED")  # type: ignore[arg-type]
        predictor.close()
        with pytest.raises(ValueError, match="closed"):
            predictor.predict(good, Modality.BF)

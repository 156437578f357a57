"""Images unlike those that a network learned from, and saturated ones, are warned of; others are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_METADATA, write_resources
from scipy import ndimage

from model import checkpoint
from model.input_statistics import InputStatistics, measure_input
from model.labels import Modality
from model.normalization import InputNormalization
from model.predictor import Predictor
from model.preprocessing import Preprocessing
from model.saturation import saturation_warning
from model.settings import InferenceSettings
from simulation.study import draw_study, render
from training.input_statistics import main


def texture(seed: int, period: float = 6.0, side: int = 128) -> np.ndarray:
    """Noise of one coarseness, varied a little from seed to seed."""
    rng = np.random.default_rng(seed)
    blurred = ndimage.gaussian_filter(rng.normal(size=(side, side)), period / 4 * rng.uniform(0.8, 1.25))
    return (blurred / blurred.std()).astype(np.float32)


def learned() -> InputStatistics:
    measured = [measure_input(texture(seed)) for seed in range(40)]
    statistics = InputStatistics.of([features for features in measured if features is not None])
    assert statistics is not None
    return statistics


def test_a_grating_has_its_power_in_its_octave() -> None:
    x = np.arange(256)
    for octave, period in enumerate((3, 6, 12, 24, 48)):
        grating = np.tile(np.sin(2 * np.pi * x / period), (256, 1)).astype(np.float32)
        features = measure_input(grating)
        assert features is not None
        assert features[:5].argmax() == octave and 10 ** features[octave] == pytest.approx(1, abs=0.05)
        assert 10 ** features[6] == pytest.approx(1.5, abs=0.05)  # kurtosis of a sine


def test_what_is_like_the_learned_is_not_warned_of_and_other_textures_are_named() -> None:
    statistics = learned()

    def warning(image: np.ndarray) -> str | None:
        features = measure_input(image)
        assert features is not None
        return statistics.warning(features)

    assert [warning(texture(seed)) for seed in range(100, 140)] == [None] * 40
    assert "coarse" in str(warning(texture(0, period=20))) or "of the size of cells" in str(
        warning(texture(0, period=20))
    )
    assert "noise" in str(warning(np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)))
    spots = texture(0)
    spots[::40, ::40] = 40
    assert "spots" in str(warning(spots)) or "histogram" in str(warning(spots))


@pytest.mark.parametrize("shape", [(1, 1), (63, 200), (200, 10)])
def test_small_or_plain_images_cannot_be_measured(shape: tuple[int, int]) -> None:
    assert measure_input(np.random.default_rng(0).normal(size=shape).astype(np.float32)) is None
    assert measure_input(np.zeros((128, 128), np.float32)) is None


def test_few_planes_tell_nothing() -> None:
    assert InputStatistics.of([np.zeros(7)] * 7) is None


@pytest.mark.parametrize(
    "damage", [{"covariance": [[0.0] * 7] * 7}, {"mean": [1.0]}, {"limit": float("nan")}, {"limit": -1.0}]
)
def test_forged_statistics_are_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="input statistics"):
        InputStatistics.from_dict({**learned().to_dict(), **damage})


def test_a_checkpoint_keeps_them_and_its_weights(tmp_path: Path) -> None:
    path = write_resources(tmp_path) / "unified.safetensors"
    before, metadata = checkpoint.load(path)
    assert metadata.input_statistics is None
    checkpoint.replace_metadata(path, replace(metadata, input_statistics=learned()))
    after, changed = checkpoint.load(path)
    assert changed.input_statistics == learned()
    assert all((before.state_dict()[name] == tensor).all() for name, tensor in after.state_dict().items())


def test_a_prediction_warns(tmp_path: Path) -> None:
    metadata = replace(TINY_METADATA, input_statistics=learned())
    resources = write_resources(tmp_path, {"pix2pix-bf": metadata})
    settings = InferenceSettings(overlap=0, rotations=1)
    with Predictor.open(resources, device="cpu", settings=settings, rescale=False) as predictor:
        for image, warned in ((texture(200), False), (np.random.default_rng(0).normal(size=(128, 128)), True)):
            pixels = (20000 + 3000 * image).astype(np.uint16)
            plan = predictor.plan(Modality.BF, (128, 128), None)
            warnings = predictor.preprocess(pixels, plan).warnings
            assert any("unlike the images that its network learned from" in text for text in warnings) == warned


def test_the_command_measures_images_of_the_checkpoints_modalities(tmp_path: Path) -> None:
    from simulation.command_line import main as simulate

    options = ["--fields", "4", "--seed", "3", "--size", "96", "--planes", "2", "--modalities", "BF"]
    assert simulate(["--output", str(tmp_path / "data"), *options]) == 0
    path = write_resources(tmp_path / "resources") / "pix2pix-bf.safetensors"
    assert main(["--checkpoint", str(path), "--data", str(tmp_path / "data")]) == 0
    statistics = checkpoint.read_metadata(path).input_statistics
    assert statistics is not None
    study = draw_study(np.random.default_rng(9), Modality.BF, "challenge")
    plane = render(np.random.default_rng(10), study, 96, 1).planes[0]
    preprocessing = Preprocessing(InputNormalization.LINEAR)
    features = measure_input(preprocessing.input(plane, preprocessing.grid(plane.shape, None)))
    assert features is not None and np.isfinite(statistics.distance(features))
    assert main(["--checkpoint", str(path), "--data", str(tmp_path / "nothing")]) == 2


def test_saturation() -> None:
    plane = np.random.default_rng(0).normal(30000, 9000, (200, 200)).clip(0, 65535).astype(np.uint16)
    assert saturation_warning(plane) is None
    clipped = plane.clip(0, 40000)
    share = (plane >= 40000).mean()
    assert saturation_warning(clipped) == f"{share:.1%} of its pixels are saturated (grey value 40000)"
    eight_bit = (plane // 257 * 257).astype(np.uint16)
    assert saturation_warning(eight_bit) is None  # few grey values, but the brightest are rare
    assert saturation_warning(np.full((9, 9), 7, np.uint16)) is None  # said by another check

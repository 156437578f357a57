"""Training from stored specimens: batches that follow from seed and number, and a run of a few steps."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from model import checkpoint
from model.commands import DONE, NOT_BEGUN
from model.errors import UserError
from model.images import write_plane
from model.labels import Modality, Organelle
from model.normalization import InputNormalization, TargetNormalization
from simulation.renderer import SpecimenRenderer
from simulation.specimen_store import write_specimen
from training.appearance import AppearanceConfig
from training.batches import Batch, SpecimenBatches
from training.command_line import main
from training.config import TrainingConfig

CROP = 32


@pytest.fixture(scope="module")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two specimens; read only."""
    folder = tmp_path_factory.mktemp("specimens")
    for number, setting in enumerate(("ordinary", "challenge"), start=1):
        path = folder / f"specimen_{number}.safetensors"
        write_specimen(path, setting, 128, np.random.default_rng(number))  # type: ignore[arg-type]
    return folder


def source(
    folder: Path, *, modality: str = "all", seed: int = 0, noise: float = 0.0, per_organelle: int = 1, parts: int = 1
) -> SpecimenBatches:
    config = TrainingConfig(
        modality=modality,  # type: ignore[arg-type]
        crop=CROP,
        pixel_size_um=(0.25, 0.35),
        input_normalization=InputNormalization.FLATFIELD,
        target_normalization=TargetNormalization.PERCENTILE,
        seed=seed,
        batch_per_organelle=per_organelle,
        appearance=AppearanceConfig(noise=noise),
    )
    return SpecimenBatches(SpecimenRenderer(folder, config.modalities), config, parts)


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.x_B1YX, b.x_B1YX) and torch.equal(a.y_BCYX, b.y_BCYX) and a.modalities == b.modalities


def test_a_batch_follows_from_seed_and_number_whatever_was_made_before(specimens: Path) -> None:
    batches = source(specimens, noise=0.5)
    in_order = [batches.make(number) for number in range(6)]
    assert same(source(specimens, noise=0.5).make(5), in_order[5])
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(source(specimens, noise=0.5).make, reversed(range(6))))
    assert all(same(a, b) for a, b in zip(together[::-1], in_order, strict=True))
    assert not same(in_order[0], in_order[1])
    assert not same(source(specimens, seed=1, noise=0.5).make(5), in_order[5])


def test_parts_of_a_batch_are_its_samples_each_once(specimens: Path) -> None:
    whole = source(specimens, noise=0.5, per_organelle=2).make(3)
    divided = source(specimens, noise=0.5, parts=2)
    pieces = [divided.make(3, part) for part in range(2)]
    assert torch.equal(torch.cat([piece.x_B1YX for piece in pieces]), whole.x_B1YX)
    assert torch.equal(torch.cat([piece.y_BCYX for piece in pieces]), whole.y_BCYX)
    assert [piece.share for piece in pieces] == [0.5, 0.5] and divided.batch_size == 8


@pytest.mark.parametrize("modality", ["BF", "PC", "DIC", "all"])
def test_all_four_organelles_are_labelled_in_the_wanted_modalities(specimens: Path, modality: str) -> None:
    batches = source(specimens, modality=modality)
    assert batches.batch_size == 4 and batches.steps_per_epoch == 1
    wanted = set(Modality) if modality == "all" else {Modality(modality)}
    assert batches.labels == dict.fromkeys(wanted, tuple(Organelle))
    seen = set()
    for number in range(6):
        batch = batches.make(number)
        assert batch.organelles == tuple(Organelle) and batch.labelled_BC.all()
        assert batch.x_B1YX.shape == (4, 1, CROP, CROP) and batch.y_BCYX.shape == (4, 4, CROP, CROP)
        assert batch.x_B1YX.abs().max() <= 2 and batch.y_BCYX.abs().max() <= 1
        assert batch.x_B1YX.std(dim=(1, 2, 3)).min() > 0
        seen |= set(batch.modalities)
    assert seen == wanted


def test_appearance_changes_inputs_and_never_targets(specimens: Path) -> None:
    plain, noisy = (source(specimens, noise=noise).make(0) for noise in (0.0, 1.0))
    changed = [not torch.equal(a, b) for a, b in zip(plain.x_B1YX, noisy.x_B1YX, strict=True)]
    assert all(changed)
    # The first sample's crop is drawn before any noise, so its place and its targets are the same.
    assert torch.equal(plain.y_BCYX[0], noisy.y_BCYX[0])


def test_the_digest_tells_sets_of_specimens_apart(specimens: Path, tmp_path: Path) -> None:
    (tmp_path / "specimen_1.safetensors").symlink_to(specimens / "specimen_1.safetensors")
    assert source(specimens).digest() == source(specimens, seed=3).digest() != source(tmp_path).digest()
    assert source(specimens).notes() == {"training_specimens": "2"}


@pytest.mark.parametrize("damage", ["cut off", "not one", "of another program"])
def test_a_file_that_is_no_specimen_is_refused_before_a_run(specimens: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "specimen_1.safetensors"
    match damage:
        case "cut off":
            path.write_bytes((specimens / path.name).read_bytes()[:-100])
        case "not one":
            path.write_bytes(b"hello")
        case _:
            save_file({"fluorescence": np.ones((2, 3))}, path)
    with pytest.raises(UserError) as refused:
        source(tmp_path)
    assert str(refused.value) == f"{path}: found no specimen, expected a whole file of simulate.py --specimens."


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, channel in (("image_1_PC_z0", "PC"), ("image_1_Nucleus", "Nucleus")):
        plane = rng.integers(1000, 40000, (48, 40)).astype(np.uint16)
        path = tmp_path / "held_out" / f"{name}.ome.tiff"
        write_plane(path, plane, channel=channel, pixel_size_um=(0.3, 0.3))
    return tmp_path / "held_out"


def test_a_run_from_specimens_holds_all_its_data_out(
    specimens: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--specimens", str(specimens), "--data", str(held_out), "--modality", "PC", "--crop", str(CROP)]
    options += ["--width", "2", "--blocks", "1", "--lambda-gan", "0", "--schedule", "steps", "--steps", "3"]
    options += ["--input-normalization", "flatfield", "--pixel-size", "0.25", "0.35", "--output", str(tmp_path / "run")]
    options += ["--device", "cpu", "--appearance.noise", "0.5"]
    assert main(options) == NOT_BEGUN  # the renderer's targets are percentiles
    assert "--target-normalization percentile" in capsys.readouterr().err
    assert main([*options, "--target-normalization", "percentile"]) == DONE
    assert "2 specimens to render, 1 fields held out" in capsys.readouterr().out
    _, metadata = checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert metadata.trained_on == "simulated cells" and metadata.modalities == (Modality.PC,)
    assert metadata.labels == {Modality.PC: tuple(Organelle)} and metadata.pixel_size_um == (0.25, 0.35)
    assert metadata.notes["training_specimens"] == "2" and metadata.notes["validation_planes"] == "1"
    assert json.loads(metadata.notes["config"])["appearance"]["noise"] == 0.5
    assert main(["--resume", "--output", str(tmp_path / "run"), "--specimens", str(held_out)]) == NOT_BEGUN
    assert "found no specimen_N.safetensors" in capsys.readouterr().err

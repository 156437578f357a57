"""Stored specimens and the microscopes drawn for them: determinism, registration, brightness, and the stream."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from model.errors import UserError
from model.labels import Modality, Organelle
from simulation import command_line as simulate
from simulation.renderer import PlaneStream, RenderedPlane, SpecimenRenderer, _Grids
from simulation.specimen_store import PIXEL_UM, SpecimenStore, write_specimen

RANGE = (0.25, 0.35)
SIDE = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One ordinary specimen, one crowd, one empty dish; read only."""
    folder = tmp_path_factory.mktemp("specimens")
    for number, setting in enumerate(("ordinary", "low", "empty"), start=1):
        path = folder / f"specimen_{number}.safetensors"
        write_specimen(path, setting, 128, np.random.default_rng(number))  # type: ignore[arg-type]
    return folder


def same(a: RenderedPlane, b: RenderedPlane) -> bool:
    return a.pixels.tobytes() == b.pixels.tobytes() and a.targets.tobytes() == b.targets.tobytes()


def test_the_command_stores_specimens_that_follow_from_seed_and_number(tmp_path: Path) -> None:
    options = ("--specimens", "--setting", "mixed", "--size", "40", "--seed", "3")
    assert simulate.main(["--output", str(tmp_path / "a"), "--fields", "2", "--workers", "2", *options]) == 0
    assert simulate.main(["--output", str(tmp_path / "b"), "--fields", "1", "--workers", "1", *options]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["SIMULATED.json", "specimen_1.safetensors", "specimen_2.safetensors"]
    one, other = ((tmp_path / side / "specimen_1.safetensors").read_bytes() for side in "ab")
    assert one == other
    assert json.loads((tmp_path / "a" / "SIMULATED.json").read_text())["trained_on"] == "simulated cells"
    assert SpecimenStore(tmp_path / "a").specimens[0].shape == (40, 40)


def test_a_folder_without_specimens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--specimens"):
        SpecimenStore(tmp_path)


@pytest.mark.parametrize("modality", Modality)
def test_a_plane_has_codes_and_four_targets_and_follows_from_the_generator(folder: Path, modality: Modality) -> None:
    renderer = SpecimenRenderer(folder, [modality])
    drawn = [renderer.draw(np.random.default_rng(seed), SIDE, RANGE) for seed in range(8)]
    for plane in drawn:
        assert plane.pixels.shape == (SIDE, SIDE) and plane.pixels.dtype == np.float32
        assert plane.targets.shape == (len(Organelle), SIDE, SIDE) and plane.targets.dtype == np.float32
        assert 0 <= plane.pixels.min() < plane.pixels.max() <= 65535
        assert plane.targets.min() >= -1 and plane.targets.max() <= 1
        assert plane.modality is modality
        assert RANGE[0] <= plane.pixel_size_um <= RANGE[1]
    assert same(drawn[3], renderer.draw(np.random.default_rng(3), SIDE, RANGE))
    assert not same(drawn[3], drawn[4])


def test_specimens_that_are_too_small_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="grow larger specimens"):
        SpecimenRenderer(folder).draw(np.random.default_rng(0), 128, RANGE)


def test_an_empty_dish_has_dark_targets(tmp_path: Path) -> None:
    for number, setting in enumerate(("ordinary", "empty"), start=1):
        write_specimen(tmp_path / f"specimen_{number}.safetensors", setting, 112, np.random.default_rng(number))  # type: ignore[arg-type]
    renderer = SpecimenRenderer(tmp_path)
    renderer.store.specimens = [s for s in renderer.store.specimens if s.setting == "empty"]
    renderer.store.__dict__["typical_brightness"] = np.ones(len(Organelle))
    plane = renderer.draw(np.random.default_rng(0), SIDE, RANGE)
    assert plane.targets.max() < -0.7
    assert plane.pixels.std() > 0


@pytest.mark.parametrize("camera_um", [0.07, 0.25, 0.31, 0.5, 0.68])
def test_all_grids_show_the_same_place(camera_um: float) -> None:
    # A Gaussian off the middle lies at the same place of the exposed image and of the target, and where it should.
    grids = _Grids.choose(60, camera_um, RANGE)
    place = (np.arange(grids.window) + 0.5) * PIXEL_UM - grids.window * PIXEL_UM / 2
    spot = np.exp(-((place[:, None] - 2.0) ** 2 + (place + 3.0) ** 2) / (2 * 1.0**2)).astype(np.float32)
    for count, kept in ((grids.image, grids.image_shown), (grids.target, grids.side)):
        image = grids.sample(torch.from_numpy(spot), count, kept).numpy().clip(0)
        pixel = grids.window * PIXEL_UM / count
        axis = (np.arange(kept) + 0.5) * pixel - kept * pixel / 2
        assert (image.sum(axis=1) * axis).sum() / image.sum() == pytest.approx(2.0, abs=0.02)
        assert (image.sum(axis=0) * axis).sum() / image.sum() == pytest.approx(-3.0, abs=0.02)
        assert image.sum() * pixel**2 == pytest.approx(2 * np.pi, rel=0.01)
    field = grids.image_shown * grids.window * PIXEL_UM / grids.image
    assert field == pytest.approx(60 * grids.network_um, rel=0.02)


def planes(stream: PlaneStream, number: int) -> list[RenderedPlane]:
    return [stream.plane(number, sample) for sample in range(2)]


def test_a_stream_is_a_pure_function_of_seed_and_number(folder: Path) -> None:
    renderer = SpecimenRenderer(folder)

    def stream(seed: int) -> PlaneStream:
        return PlaneStream(renderer, seed, count=2, side=24, pixel_size_um=RANGE, reuse=2)

    first = stream(1)
    batches = [planes(first, number) for number in range(4)]
    for number in (3, 0):  # a resumed run starts anywhere
        assert all(same(a, b) for a, b in zip(planes(stream(1), number), batches[number], strict=True))
    with ThreadPoolExecutor(3) as pool:
        for expected, found in zip(batches, pool.map(partial(planes, stream(1)), range(4)), strict=True):
            assert all(same(a, b) for a, b in zip(expected, found, strict=True))
    assert not same(stream(2).plane(0, 0), batches[0][0])
    # Planes serve two batches in a row, and are renewed in turn.
    renewed = [[not same(a, b) for a, b in zip(x, y, strict=True)] for x, y in pairwise(batches)]
    assert renewed == [[False, True], [True, False], [False, True]]

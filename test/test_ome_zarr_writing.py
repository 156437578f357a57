"""OME-Zarr is written as other readers want it, whole or not at all, and never over somebody else's folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bioio
import bioio_ome_zarr
import ngff_zarr
import numpy as np
import pytest
import zarr
from test_ome_zarr import SCALE, STACK

from model.errors import UserError
from model.files import atomic_folder
from model.images.ome_zarr_writer import write_ome_zarr
from model.images.open_stack import open_stack
from model.images.stack import OutputChannel

CHANNELS = [
    OutputChannel("Input", "FFFFFF", (10, 4000)),
    OutputChannel("Nucleus", "2090FF", (0, 9)),
    OutputChannel("Actin", "FF9020", (1, 2)),
]


def write(path: Path, pixels: np.ndarray = STACK, **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "planes": iter(pixels.reshape(-1, *pixels.shape[-2:])),
        "shape": pixels.shape,
        "channels": CHANNELS,
        "pixel_size_um": (0.2, 0.25),
        "z_step_um": 0.5,
        "time_increment_s": 30.0,
        "provenance": {"checkpoint": "pix2pix-bf", "trained_on": "simulated cells"},
    }
    write_ome_zarr(path, **(arguments | changes))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_written_is_valid_and_reads_alike_elsewhere(tmp_path: Path) -> None:
    large = np.random.default_rng(1).integers(0, 60000, (2, 3, 2, 600, 301)).astype(np.uint16)
    path = write(tmp_path / "a.ome.zarr", large)
    multiscales = ngff_zarr.from_ngff_zarr(str(path), validate=True)
    first = multiscales.images[0]
    np.testing.assert_array_equal(np.asarray(first.data), large)
    assert first.scale == SCALE and [level.data.shape[-2:] for level in multiscales.images] == [
        (600, 301),
        (300, 151),
        (150, 76),
    ]
    read = bioio.BioImage(path, reader=bioio_ome_zarr.Reader)
    np.testing.assert_array_equal(read.data, large)
    assert read.channel_names == ["Input", "Nucleus", "Actin"]
    assert (read.physical_pixel_sizes.Z, read.physical_pixel_sizes.Y, read.physical_pixel_sizes.X) == (0.5, 0.2, 0.25)
    shown = [(c.label, c.color, (c.window.start, c.window.end)) for c in multiscales.metadata.omero.channels]
    assert shown == [(channel.name, channel.colour, channel.display_range) for channel in CHANNELS]


def test_levels_are_means_of_two_by_two(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 1, 300, 301), np.uint16)
    pixels[0, 0, 0, :4, :4] = np.arange(16).reshape(4, 4) * 100
    level = zarr.open_array(write(tmp_path / "a.ome.zarr", pixels) / "1", mode="r")
    assert level.shape[-2:] == (150, 151)
    np.testing.assert_array_equal(np.asarray(level[0, 0, 0])[:2, :2], [[250, 450], [1050, 1250]])


def test_what_is_written_is_read_back_the_same_twice(tmp_path: Path) -> None:
    # Large enough for the compressor's threads.
    pixels = np.random.default_rng(2).integers(0, 4000, (1, 3, 1, 1500, 1100)).astype(np.uint16)
    path, again = write(tmp_path / "a.ome.zarr", pixels), write(tmp_path / "b/a.ome.zarr", pixels)
    assert files_of(path) == files_of(again)
    with open_stack(path) as stack:
        assert (stack.info.pixel_size_um, stack.info.z_step_um, stack.info.time_increment_s) == ((0.2, 0.25), 0.5, 30)
        assert stack.info.provenance == {"checkpoint": "pix2pix-bf", "trained_on": "simulated cells"}
        for channel in range(3):
            np.testing.assert_array_equal(stack.read_plane(0, channel, 0), pixels[0, channel, 0])


@pytest.mark.parametrize("shape", [(2, 3, 2, 300, 30), (1, 3, 1, 6000, 6000)])
def test_blank_planes_of_unknown_size_are_read_back_without_a_warning(tmp_path: Path, shape: tuple[int, ...]) -> None:
    sizes = dict.fromkeys(["pixel_size_um", "z_step_um", "time_increment_s"])
    path = write(tmp_path / "a.ome.zarr", np.broadcast_to(np.uint16(0), shape), **sizes)
    ngff_zarr.from_ngff_zarr(str(path), validate=True)
    with open_stack(path) as stack:
        assert (stack.info.pixel_size_um, stack.info.z_step_um, stack.info.time_increment_s) == (None, None, None)
        assert stack.info.warnings == () and not stack.read_plane(shape[0] - 1, 2, shape[2] - 1).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"planes": [np.zeros((70, 50))] * 12},
        {"planes": [np.zeros((1, 1), np.uint16)] * 12},
        {"planes": [STACK[0, 0, 0]] * 11},
        {"planes": [STACK[0, 0, 0]] * 13},
        {"channels": CHANNELS[:2]},
    ],
)
def test_other_planes_than_announced_are_an_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        write(tmp_path / "a.ome.zarr", **changes)
    assert list(tmp_path.iterdir()) == []


def test_an_image_is_replaced_whole_or_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.ome.zarr")
    before = files_of(path)

    def fails() -> Iterator[np.ndarray]:
        yield STACK[0, 0, 0]
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write(path, planes=fails())
    assert files_of(path) == before and list(tmp_path.iterdir()) == [path]

    moves = [os.replace]

    def replace_fails_at_the_new_folder(source: Path, target: Path) -> None:
        if target == path and len(moves) == 1:
            moves.append(os.replace)
            raise OSError("the disk is gone")
        moves[0](source, target)

    monkeypatch.setattr(os, "replace", replace_fails_at_the_new_folder)
    with pytest.raises(UserError, match="the disk is gone"), atomic_folder(path):
        pass
    assert files_of(path) == before and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()

    write(path, STACK[:1])
    assert list(tmp_path.iterdir()) == [path]
    with open_stack(path) as stack:
        assert stack.info.times == 1


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.ome.zarr"
    (theirs / "0").mkdir(parents=True)
    (theirs / "notes.txt").write_text("mine")
    link = tmp_path / "link.ome.zarr"
    link.symlink_to(write(tmp_path / "ours.ome.zarr"))
    for path in (theirs, link, theirs / "notes.txt"):
        with pytest.raises(UserError, match="found something that this program did not write"):
            write(path)
    assert (theirs / "notes.txt").read_text() == "mine" and link.is_symlink()
    assert {entry.name for entry in tmp_path.iterdir()} == {"theirs.ome.zarr", "link.ome.zarr", "ours.ome.zarr"}

"""What is written of a stack: layouts and formats, going on after a kill, and nothing where it fails."""

import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import bioio
import bioio_ome_tiff
import numpy as np
import pytest
import tifffile
from ome_types import from_tiff
from PIL import Image
from stacks import STACK, go, outputs, write_stack
from test_inference import FAST, ROOT

from model.batch import Status
from model.batch_options import BatchOptions
from model.images.open_stack import open_stack
from model.labels import ORGANELLE_COLOURS, Modality, Organelle
from model.outputs import OutputOptions
from model.predictor import Predictor
from model.settings import InferenceSettings


@pytest.mark.parametrize("lost", ["0/0/0/0/0/0", "1/0/0/0/0/0", "1"])
def test_an_output_that_has_lost_a_chunk_is_predicted_again(tmp_path: Path, resources: Path, lost: str) -> None:
    write_stack(tmp_path / "in/a.ome.tif", pixels=np.tile(STACK[:1, :, :1], (1, 1, 1, 8, 8)))
    options = BatchOptions(outputs=OutputOptions(file_format="zarr"))
    go(tmp_path, resources, options)
    assert go(tmp_path, resources, options)[0].status is Status.ALREADY_PREDICTED
    path = tmp_path / "out/images/nucleus-fluorescence-ome-tiff/a.ome.zarr" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert go(tmp_path, resources, options)[0].status is Status.PREDICTED
    assert path.exists()


def test_merged_layout(tmp_path: Path, resources: Path, expected: dict[Organelle, np.ndarray]) -> None:
    write_stack(tmp_path / "in/sub.tiffs/a.ome.tif")
    options = BatchOptions(outputs=OutputOptions("merged"))
    go(tmp_path, resources, options)
    assert outputs(tmp_path) == ["images/organelles-merged/sub.tiffs/a.ome.tiff"]
    path = tmp_path / "out" / outputs(tmp_path)[0]
    with open_stack(path) as stack:
        assert [channel.name for channel in stack.info.channels] == ["Input", *(o.label for o in Organelle)]
        for t, z in product(range(3), range(2)):
            np.testing.assert_array_equal(stack.read_plane(t, 0, z), STACK[t, 1, z])
            for c, organelle in enumerate(Organelle, start=1):
                np.testing.assert_array_equal(stack.read_plane(t, c, z), expected[organelle][t, z])
        assert stack.info.provenance["trained_on"] == "nothing at all"
    _check_with_other_readers(path, expected)
    assert go(tmp_path, resources, options)[0].status is Status.ALREADY_PREDICTED


def _check_with_other_readers(path: Path, expected: dict[Organelle, np.ndarray]) -> None:
    """Names, colours, sizes and pixels of a merged file by OME's schema, by bioio, and page by page by Pillow."""
    pixels = from_tiff(path).images[0].pixels
    assert [channel.color.as_hex("long").upper() for channel in pixels.channels] == [
        "#FFFFFF",
        *(f"#{ORGANELLE_COLOURS[organelle]}" for organelle in Organelle),
    ]
    image = bioio.BioImage(path, reader=bioio_ome_tiff.Reader)
    assert image.channel_names == ["Input", *(organelle.label for organelle in Organelle)]
    assert tuple(image.physical_pixel_sizes) == (0.5, 0.1, 0.1)
    assert pixels.time_increment == 30
    merged = image.data  # TCZYX
    assert merged.shape == (3, 5, 2, 40, 36)
    for c, organelle in enumerate(Organelle, start=1):
        np.testing.assert_array_equal(merged[:, c], expected[organelle])
    assert pixels.dimension_order.value == "XYZCT"
    with Image.open(path) as pages:  # by libtiff
        assert pages.n_frames == 30  # type: ignore[attr-defined]
        for number, plane in enumerate(merged.reshape(30, 40, 36)):
            pages.seek(number)
            np.testing.assert_array_equal(np.asarray(pages), plane)


def test_a_merged_single_plane(tmp_path: Path, resources: Path) -> None:
    write_stack(tmp_path / "in/a.ome.tif", pixels=STACK[:1, :, :1])
    go(tmp_path, resources, BatchOptions(outputs=OutputOptions("merged")))
    with open_stack(tmp_path / "out/images/organelles-merged/a.ome.tiff") as stack:
        assert (stack.info.times, len(stack.info.channels), stack.info.focal_planes) == (1, 5, 1)


def test_disagreement_as_images(tmp_path: Path, resources: Path) -> None:
    write_stack(tmp_path / "in/a.ome.tif", pixels=STACK[:, :, :1])
    go(tmp_path, resources, BatchOptions(outputs=OutputOptions(disagreement=True)))
    assert len(outputs(tmp_path)) == 8
    with open_stack(tmp_path / "out/images/nucleus-disagreement-ome-tiff/a.tiff") as stack:
        assert stack.info.times == 3
        assert stack.read_plane(1, 0, 0).max() > 0
        assert "deviation" in stack.info.provenance["shows"]


def test_a_failed_case_removes_its_own_zarr_and_no_other_folder(tmp_path: Path, resources: Path) -> None:
    options = BatchOptions(outputs=OutputOptions(file_format="zarr"))
    for name in "ab":
        write_stack(tmp_path / f"in/{name}.ome.tif", pixels=STACK[:1, :, :1])
    first, _ = go(tmp_path, resources, options)
    folders = [tmp_path / f"out/images/{organelle}-fluorescence-ome-tiff/a.ome.zarr" for organelle in Organelle]
    assert all(folder.is_dir() for folder in folders) and first.error is None
    foreign = tmp_path / "out/images/nucleus-fluorescence-ome-tiff/b.ome.zarr"
    shutil.rmtree(foreign)
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    for name in "ab":
        (tmp_path / f"in/{name}.ome.tif").write_bytes(b"no image")
    assert all(outcome.error is not None for outcome in go(tmp_path, resources, options))
    assert not any(folder.exists() for folder in folders)
    assert (foreign / "notes.txt").read_text() == "mine"


def test_a_failed_case_has_no_outputs_of_other_options_either(tmp_path: Path, resources: Path) -> None:
    write_stack(tmp_path / "in/a.ome.tif", pixels=STACK[:1, :, :1])
    write_stack(tmp_path / "in/b.ome.tif", pixels=STACK[:1, :, :1])
    for options in (OutputOptions(disagreement=True), OutputOptions("merged"), OutputOptions("merged", "zarr")):
        go(tmp_path, resources, BatchOptions(outputs=options))
    mine = tmp_path / "out/images/organelles-merged/a.ome.tiff"
    before = len(outputs(tmp_path))
    (tmp_path / "in/a.ome.tif").write_bytes(b"no image")
    failed, _ = go(tmp_path, resources)
    assert failed.error is not None
    left = outputs(tmp_path)
    assert not [path for path in left if "/a." in path] and len(left) == before // 2
    tifffile.imwrite(mine, STACK[0, 0, 0])  # somebody else's
    go(tmp_path, resources)
    assert mine.exists()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_stack_goes_on_where_it_was(tmp_path: Path, resources: Path, blow: signal.Signals) -> None:
    planes = np.random.default_rng(2).integers(0, 4000, (40, 1, 1, 40, 36)).astype(np.uint16)
    write_stack(tmp_path / "in/a.ome.tif", ("PC",), planes)
    command = [sys.executable, str(ROOT / "inference.py"), "--input", str(tmp_path / "in"), "--resources"]
    command += [str(resources), *FAST, "--output", str(tmp_path / "out")]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out/.planes").rglob("*.tiff"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.send_signal(blow)
    killed.communicate(timeout=30)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/.planes").rglob("*.tiff")}
    assert 20 <= len(kept) < 160
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    predicted_now = sum(": plane " in line for line in done.stdout.splitlines())
    complete = [len([p for p in kept if p.name.startswith(f"t{t}_")]) == 4 for t in range(40)]
    assert predicted_now == 40 - sum(complete)  # nothing twice
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(overlap=0, rotations=1)) as predictor:
        last = predictor.predict(planes[39, 0, 0], Modality.PC, pixel_size_um=(0.1, 0.1))
    with open_stack(tmp_path / "out/images/nucleus-fluorescence-ome-tiff/a.tiff") as stack:
        np.testing.assert_array_equal(stack.read_plane(39, 0, 0), last[Organelle.NUCLEUS])
    assert not (tmp_path / "out/.planes").exists()


def test_planes_of_other_settings_are_predicted_anew(
    tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stack(tmp_path / "in/a.ome.tif")
    forward, calls = Predictor.forward, []

    def fails_at_the_third(self, inputs):  # type: ignore[no-untyped-def]
        calls.append(inputs)
        if len(calls) == 3:
            raise MemoryError
        return forward(self, inputs)

    monkeypatch.setattr(Predictor, "forward", fails_at_the_third)
    assert go(tmp_path, resources)[0].status is Status.FAILED
    calls.clear()
    monkeypatch.setattr(Predictor, "forward", lambda self, inputs: (calls.append(inputs), forward(self, inputs))[1])
    go(tmp_path, resources, BatchOptions(Modality.BF, override_modality=True))
    assert len(calls) == 6

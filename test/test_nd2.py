"""Nikon's ND2: real files, every plane against the package's own array, and files that are none."""

import struct
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import nd2
import numpy as np
import pytest

from model.errors import UserError
from model.images.nd2_reader import _channel
from model.images.open_stack import open_stack
from model.labels import Modality

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
NAMES = ["multichannel", "timelapse", "zstack"]
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="real microscope files are not in the project")


@needs_samples
@pytest.mark.parametrize("name", NAMES)
def test_every_plane_is_the_files_own(name: str) -> None:
    path = SAMPLES / f"example-{name}.nd2"
    with open_stack(path) as stack:
        info = stack.info
        expected = nd2.imread(path).reshape(info.times, info.focal_planes, len(info.channels), *info.shape)
        for t, c, z in product(range(info.times), range(len(info.channels)), range(info.focal_planes)):
            np.testing.assert_array_equal(stack.read_plane(t, c, z), expected[t, z, c])


@needs_samples
def test_what_the_files_say() -> None:
    described = {}
    for name in NAMES:
        with open_stack(SAMPLES / f"example-{name}.nd2") as stack:
            described[name] = stack.info
    multi, lapse, stacked = (described[name] for name in NAMES)
    # NIS-Elements calls the unfiltered camera image fluorescence too: nothing tells what it is.
    assert [(c.name, c.transmitted) for c in multi.channels] == [
        ("Mono", None), ("DAPI", False), ("FITC BP", False), ("TRITC BP", False),
    ]  # fmt: skip
    assert (lapse.times, lapse.pixel_size_um, lapse.time_increment_s) == (53, (0.325, 0.325), 0.500160001)
    assert (stacked.focal_planes, stacked.z_step_um) == (11, 6.0)


@needs_samples
@pytest.mark.parametrize("kept", [100, 3000, 300_000])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.nd2"
    path.write_bytes((SAMPLES / "example-zstack.nd2").read_bytes()[:kept])
    with pytest.raises(UserError, match=r"damaged or truncated ND2|damaged pixel data"), open_stack(path) as stack:
        for z in range(stack.info.focal_planes):
            stack.read_plane(0, 0, z)


def edited(folder: Path, name: str, field: str, value: int, form: str = "<I") -> Path:
    """Copy a real file with another value of one field of its metadata."""
    content = bytearray((SAMPLES / f"example-{name}.nd2").read_bytes())
    key = f"{field}\0".encode("utf-16le")
    assert content.count(key) == 1
    struct.pack_into(form, content, content.index(key) + len(key), value)
    path = folder / "a.nd2"
    path.write_bytes(content)
    return path


@needs_samples
def test_a_size_that_was_not_calibrated_is_unknown(tmp_path: Path) -> None:
    with open_stack(edited(tmp_path, "zstack", "bCalibrated", 0, "<B")) as stack:
        assert stack.info.pixel_size_um is None and stack.info.z_step_um == 6.0
        assert "pixel size is missing" in stack.info.warnings[0]


@needs_samples
def test_a_recording_that_was_stopped_has_its_whole_time_points(tmp_path: Path) -> None:
    path = edited(tmp_path, "timelapse", "uiSequenceCount", 20)
    with open_stack(path) as stack:
        assert stack.info.times == 20
        assert stack.info.warnings == ("33 of its 53 time points lack planes and are left out",)
        np.testing.assert_array_equal(stack.read_plane(19, 0, 0), nd2.imread(path)[19])
    with pytest.raises(UserError, match=r"found 5 frames, described as 1 times and 11 focal planes"):
        open_stack(edited(tmp_path, "zstack", "uiSequenceCount", 5))
    with pytest.raises(UserError, match=r"found 3 frames, described as 1 times and 1 focal planes"):
        open_stack(edited(tmp_path, "multichannel", "uiSequenceCount", 3))


@needs_samples
def test_a_frame_that_is_missing_is_not_read_as_black(tmp_path: Path) -> None:
    path = tmp_path / "a.nd2"
    head, entry, tail = (SAMPLES / "example-zstack.nd2").read_bytes().rpartition(b"ImageDataSeq|5!")
    path.write_bytes(head + entry.replace(b"5", b"X").replace(b"Seq|", b"Gap|") + tail)
    assert not nd2.imread(path)[5].any()  # what the package makes of it
    with open_stack(path) as stack:
        assert stack.read_plane(0, 0, 4).any()
        with pytest.raises(UserError, match=r"no pixels at t 0, z 5 \(the frame is missing"):
            stack.read_plane(0, 0, 5)


@needs_samples
@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("eCompression", 1, "lossy compression"),
        ("uiBpcInMemory", 32, "pixels of type float32"),
        ("uiWidth", 40_000, "a plane of 40000 x 128 px"),
    ],
)
def test_what_would_be_read_wrong_is_refused(tmp_path: Path, field: str, value: int, found: str) -> None:
    with pytest.raises(UserError, match=found):
        open_stack(edited(tmp_path, "zstack", field, value))


@needs_samples
def test_unknown_loops_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nd2.ND2File, "experiment", [nd2.structures.CustomLoop(count=11)])
    with pytest.raises(UserError, match="found a CustomLoop of 11"):
        open_stack(SAMPLES / "example-zstack.nd2")


@pytest.mark.parametrize(
    ("name", "emission", "flags", "transmitted", "modality"),
    [
        ("Mono", None, ["fluorescence", "camera"], None, None),
        ("488", 525.0, ["fluorescence", "camera"], False, None),
        ("Channel 1", None, ["brightfield", "camera"], True, Modality.BF),
        ("Channel 1", None, ["phaseContrast", "camera"], True, Modality.PC),
        ("Channel 1", None, ["diContrast", "camera"], True, Modality.DIC),
        ("Channel 4", None, ["laserScanConfocal", "transmitDetector", "pmt"], True, None),
    ],
)
def test_channels_by_their_flags(
    name: str, emission: float | None, flags: list[str], transmitted: bool | None, modality: Modality | None
) -> None:
    stated = SimpleNamespace(name=name, emissionLambdaNm=emission), SimpleNamespace(modalityFlags=flags)
    described = _channel(SimpleNamespace(channel=stated[0], microscope=stated[1]))
    assert (described.transmitted, described.modality) == (transmitted, modality)


def test_what_is_no_nd2_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.nd2"
    path.write_bytes(b"no image at all" * 99)
    with pytest.raises(UserError, match="a damaged or truncated ND2 file"):
        open_stack(path)


def test_without_the_package_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nd2"
    path.write_bytes(b"whatever")
    monkeypatch.setitem(sys.modules, "nd2", None)
    with pytest.raises(UserError, match=r"pip install nd2"):
        open_stack(path)

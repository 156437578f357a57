"""Nikon's ND2: real files, every plane against the package's own array, and files that are none."""

import sys
from itertools import product
from pathlib import Path

import nd2
import numpy as np
import pytest

from model.errors import UserError
from model.images.open_stack import open_stack

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


def test_what_is_no_nd2_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.nd2"
    path.write_bytes(b"no image at all" * 99)
    with pytest.raises(UserError, match="a damaged or truncated ND2 file"):
        open_stack(path)


def test_without_the_package_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nd2"
    path.write_bytes(b"whatever")
    monkeypatch.setitem(sys.modules, "nd2", None)
    with pytest.raises(UserError, match=r'pip install "in-silico-labelling\[nd2\]"'):
        open_stack(path)

"""Leica's LIF, laid out as its describers say: every plane of every image, and what is wrong in one sentence."""

import struct
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from model.batch import Status, predict_cases
from model.batch_options import BatchOptions
from model.discovery import discover
from model.errors import UserError
from model.images.grey import to_grey
from model.images.open_stack import open_stack
from model.images.stack import SceneError, Stack
from model.labels import Modality
from model.predictor import Predictor
from model.settings import InferenceSettings

SIZES = {"T": 2, "C": 2, "Z": 3, "M": 4, "Y": 40, "X": 36, "S": 3}
DIMENSIONS = {"X": 1, "Y": 2, "Z": 3, "T": 4, "Λ": 9, "M": 10}
CONTRASTS = ("FLUO", "TL-PH")


class Series(NamedTuple):
    """An image of a LIF file; `axes` and `strides` (in bytes) are those of `pixels`."""

    pixels: np.ndarray
    axes: str
    strides: tuple[int, ...]
    settings: Sequence[str] = CONTRASTS
    unit: str = "m"
    channels: tuple[tuple[int, int], ...] | None = None  # bits and bytes of each; None: as the pixels are

    def stored(self) -> bytes:
        """Lay the pixels out by the strides."""
        pixels = self.pixels
        last = sum((length - 1) * stride for length, stride in zip(pixels.shape, self.strides, strict=True))
        stored = np.zeros(last + pixels.itemsize, np.uint8)
        np.ndarray(pixels.shape, pixels.dtype, stored.data, 0, self.strides)[...] = pixels
        return stored.tobytes()


def series(axes: str, dtype: Any = np.uint16, **options: Any) -> Series:
    shape = [SIZES.get(axis, 2) for axis in axes]
    high = 200 if dtype == np.uint8 else 60000
    pixels = np.random.default_rng(len(axes)).integers(1, high, shape).astype(dtype)
    return Series(pixels, axes, **{"strides": pixels.strides} | options)


def write(path: Path, *images: Series) -> Path:
    """Two-byte texts and blocks of memory, each behind a number that tells it."""
    elements = "".join(_element(number, image) for number, image in enumerate(images))
    header = (
        '<LMSDataContainerHeader Version="2"><Element Name="project" UniqueID="p"><Data><Experiment Path=""/></Data>'
        f'<Memory Size="0" MemoryBlockID="MemBlock_99"/><Children>{elements}</Children></Element>'
        "</LMSDataContainerHeader>"
    )
    with path.open("wb") as file:
        text = header.encode("utf-16-le")
        file.write(struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(header)) + text)
        for number, image in enumerate(images):
            name, pixels = f"MemBlock_{number}", image.stored()
            head = struct.pack("<IIBQBI", 0x70, 14 + 2 * len(name), 0x2A, len(pixels), 0x2A, len(name))
            file.write(head + name.encode("utf-16-le") + pixels)
    return path


def _element(number: int, image: Series) -> str:
    pixels, axes = image.pixels, image.axes
    strides = dict(zip(axes, image.strides, strict=True))
    step = {"m": 1e-7, "inch": 1e-7 / 0.0254, "px": 1.0}[image.unit]
    dimensions = "".join(
        f'<DimensionDescription DimID="{DIMENSIONS[axis]}" NumberOfElements="{length}" Origin="0" '
        f'Length="{(length - 1) * (30 if axis == "T" else step)}" Unit="{"s" if axis == "T" else image.unit}" '
        f'BitInc="0" BytesInc="{strides[axis]}"/>'
        for axis, length in reversed(list(zip(axes, pixels.shape, strict=True)))
        if axis in DIMENSIONS
    )
    stored = "S" if "S" in axes else "C"
    count = pixels.shape[axes.index(stored)] if stored in axes else 1
    described = image.channels or [(8 * pixels.itemsize, c * strides.get(stored, 0)) for c in range(count)]
    channels = "".join(
        f'<ChannelDescription DataType="{int(pixels.dtype.kind == "f")}" ChannelTag="{c + 1 if stored == "S" else 0}" '
        f'Resolution="{bits}" NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="LUT{c}" '
        f'IsLUTInverted="0" BytesInc="{offset}" BitInc="0"/>'
        for c, (bits, offset) in enumerate(described)
    )
    settings = "".join(f'<WideFieldChannelInfo ContrastingMethodName="{name}"/>' for name in image.settings)
    return (
        f'<Element Name="Series{number}" UniqueID="{number}"><Data><Image TextDescription=""><ImageDescription>'
        f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription>"
        f'<Attachment Name="HardwareSetting">{settings}</Attachment></Image></Data>'
        f'<Memory Size="{len(image.stored())}" MemoryBlockID="MemBlock_{number}"/></Element>'
    )


def assert_planes(stack: Stack, expected: np.ndarray, axes: str) -> None:
    info = stack.info
    lengths = dict(zip(axes, expected.shape, strict=True))
    assert (info.times, len(info.channels), info.focal_planes) == tuple(lengths.get(axis, 1) for axis in "TCZ")
    for t, c, z in product(range(info.times), range(len(info.channels)), range(info.focal_planes)):
        plane = expected[tuple({"T": t, "C": c, "Z": z}[axis] for axis in axes if axis in "TCZ")]
        np.testing.assert_array_equal(stack.read_plane(t, c, z), to_grey(plane))


def refusal(path: Path, scene: int = 0) -> str:
    with pytest.raises(UserError) as caught, open_stack(path, scene) as stack:
        stack.read_plane(0, 0, 0)
    return str(caught.value)


@pytest.mark.parametrize("axes", ["TZCYX", "TCZYX", "ZCYX", "CYX", "TZYX", "YX"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_plane(tmp_path: Path, axes: str, dtype: Any) -> None:
    image = series(axes, dtype)
    with open_stack(write(tmp_path / "a.lif", image)) as stack:
        assert_planes(stack, image.pixels, axes)
        info = stack.info
        assert (info.scenes, info.pixel_size_um, info.z_step_um, info.time_increment_s) == (
            1,
            (0.1, 0.1),
            0.1 if "Z" in axes else None,
            30.0 if "T" in axes else None,
        )
        if "C" in axes:
            described = [(c.name, c.modality, c.transmitted) for c in info.channels]
            assert described == [("LUT0", None, False), ("LUT1", Modality.PC, True)]
        assert len(info.warnings) == (dtype == np.float32)


def test_images_and_tiles_are_scenes(tmp_path: Path) -> None:
    images = [series("ZCYX"), series("MCYX"), series("YX", np.uint8)]
    path = write(tmp_path / "a.lif", *images)
    expected = [(images[0].pixels, "ZCYX"), *((tile, "CYX") for tile in images[1].pixels), (images[2].pixels, "YX")]
    names = ["Series0", *(f"Series1, tile {n}" for n in range(4)), "Series2"]
    for scene, (pixels, axes) in enumerate(expected):
        with open_stack(path, scene) as stack:
            assert (stack.info.scenes, stack.info.scene_name) == (6, names[scene])
            assert_planes(stack, pixels, axes)
    assert "found no scene 6, expected an index of 0 to 5" in refusal(path, 6)


def test_colours_become_grey(tmp_path: Path) -> None:
    image = series("YXS", np.uint8)
    with open_stack(write(tmp_path / "a.lif", image)) as stack:
        np.testing.assert_array_equal(stack.read_plane(0, 0, 0), to_grey(image.pixels))
        assert stack.info.warnings == ("its colours are taken as grey (luminance)",)


@pytest.mark.parametrize(
    ("contrast", "transmitted", "modality"),
    [
        ("TL-BF", True, Modality.BF), ("BF", True, Modality.BF), ("TL-PH", True, Modality.PC),
        ("TL-DIC", True, Modality.DIC), ("TL-POL", True, None), ("FLUO", False, None), ("", None, None),
    ],
)  # fmt: skip
def test_channels_by_their_contrast(
    tmp_path: Path, contrast: str, transmitted: bool | None, modality: Modality | None
) -> None:
    with open_stack(write(tmp_path / "a.lif", series("YX", settings=[contrast]))) as stack:
        assert (stack.info.channels[0].transmitted, stack.info.channels[0].modality) == (transmitted, modality)


def test_settings_of_other_channels_tell_nothing(tmp_path: Path) -> None:
    with open_stack(write(tmp_path / "a.lif", series("CYX", settings=["TL-BF"]))) as stack:
        assert [(channel.name, channel.transmitted) for channel in stack.info.channels] == [
            ("LUT0", None),
            ("LUT1", None),
        ]


@pytest.mark.parametrize(("unit", "size"), [("inch", (0.1, 0.1)), ("px", None)])
def test_units(tmp_path: Path, unit: str, size: Any) -> None:
    with open_stack(write(tmp_path / "a.lif", series("YX", unit=unit))) as stack:
        assert stack.info.pixel_size_um == size
        assert stack.info.warnings == (() if size else ("its pixel size is missing or not one of a light microscope",))


def test_an_image_that_cannot_be_read_costs_no_other(tmp_path: Path, resources: Path) -> None:
    path = tmp_path / "in/a.lif"
    path.parent.mkdir()
    write(path, series("ΛYX"), series("YX", settings=["TL-BF"]))
    assert "found axes X, Y, DimID 9 in image 'Series0', expected times, channels, focal planes, rows" in refusal(path)
    with open_stack(path, 1) as stack:
        assert stack.read_plane(0, 0, 0).any()
    cases = discover(path.parent, tmp_path / "out")
    settings = InferenceSettings(overlap=0, rotations=1)
    with Predictor.open(resources, device="cpu", settings=settings) as predictor:
        failed, predicted = predict_cases(cases, [predictor], BatchOptions())
    assert (failed.status, failed.case.title) == (Status.FAILED, "a.lif, scene 0") and "DimID 9" in str(failed.error)
    assert (predicted.status, predicted.case.title) == (Status.PREDICTED, "a.lif, scene 1")


@pytest.mark.parametrize(
    ("axes", "dtype", "strides"),
    [
        ("YXS", np.uint8, (112, 3, 1)),  # rows that begin at a multiple of some bytes
        ("ZYXS", np.uint8, (112 * 40, 112, 3, 1)),
        ("YX", np.uint8, (37, 1)),
        ("YZX", np.uint16, (3 * 72, 72, 2)),  # a scan along the height first
        ("XYT", np.uint16, (160, 4, 2)),
        ("TCZYX", np.uint16, (12, 6, 2, 36 * 24, 24)),  # all planes of a pixel, one behind the other
    ],
)
def test_pixels_are_where_the_description_says(tmp_path: Path, axes: str, dtype: Any, strides: tuple[int, ...]) -> None:
    image = series(axes, dtype, strides=strides)
    order = [axes.index(axis) for axis in "TZCYXS" if axis in axes]
    with open_stack(write(tmp_path / "a.lif", image)) as stack:
        assert_planes(stack, image.pixels.transpose(order), "".join(axes[number] for number in order))


def test_the_bytes_of_an_axis_of_one_element_mean_nothing(tmp_path: Path) -> None:
    image = series("ZCYX")
    single = image._replace(pixels=image.pixels[None], axes="T" + image.axes, strides=(0, *image.strides))
    with open_stack(write(tmp_path / "a.lif", single)) as stack:
        assert_planes(stack, image.pixels, image.axes)


def test_a_channel_goes_with_its_pixels_in_whatever_order(tmp_path: Path) -> None:
    image = series("CYX")
    path = write(tmp_path / "a.lif", image._replace(channels=((16, image.strides[0]), (16, 0))))
    with open_stack(path) as stack:
        assert [(c.name, c.transmitted) for c in stack.info.channels] == [("LUT1", True), ("LUT0", False)]
        assert_planes(stack, image.pixels, image.axes)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (
            series("CYX", np.uint8, channels=((8, 0), (16, 1440))),
            "pixels that overlap",
        ),  # one step for values of two sizes
        (series("CYX", channels=((16, 0), (16, 10**6))), "bytes of image 'Series0'"),
        (series("CYX", channels=((16, 0), (16, -2))), "channels that make no sense"),
        (series("YX", channels=((65, 0),)), "pixels of 65 bits"),
        (series("ZYX", strides=(-2880, 72, 2)), "axes that make no sense"),
        (series("XT"), "axes T, X in image"),
        (series("TZYX", strides=(2880, 2880, 72, 2)), "pixels that overlap"),
        (series("ZYX", strides=(1440, 36, 2)), "pixels that overlap"),
        (series("CYX", channels=((16, 0), (16, 0))), "pixels that overlap"),
        (series("TTYX"), "damaged or truncated LIF"),
    ],
)
def test_descriptions_that_make_no_sense(tmp_path: Path, image: Series, found: str) -> None:
    path = tmp_path / "a.lif"
    if min(image.strides) < 0:
        path = write(path, series("ZYX"))
        path.write_bytes(path.read_bytes().replace(*(f'BytesInc="{n}'.encode("utf-16-le") for n in ("2880", "-288"))))
    else:
        write(path, image)
    assert found in refusal(path)


def test_a_description_that_makes_no_sense_costs_its_image_alone(tmp_path: Path) -> None:
    for before, after in (("YX", 'NumberOfElements="x6"'), ("YX", 'Resolution="1x"')):
        path = write(tmp_path / "a.lif", series(before), series(before, np.uint8))
        texts = {"N": 'NumberOfElements="36"', "R": 'Resolution="16"'}[after[0]], after
        content = path.read_bytes()
        path.write_bytes(content.replace(*(text.encode("utf-16-le") for text in texts), 1))
        with pytest.raises(SceneError, match="damaged description of scene 0") as caught:
            open_stack(path)
        assert caught.value.scenes == 2
        with open_stack(path, 1) as stack:
            assert stack.read_plane(0, 0, 0).any()


def test_tiles_that_the_file_cannot_hold_are_not_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lif", series("MYX"), series("YX"))
    before, after = 'NumberOfElements="4" Origin="0" ', 'NumberOfElements="999999999999" '
    assert len(before) == len(after)
    path.write_bytes(path.read_bytes().replace(before.encode("utf-16-le"), after.encode("utf-16-le")))
    with open_stack(path, 1) as stack:
        assert stack.info.scenes == 2


@pytest.mark.parametrize("kept", [0, 3, 10, 100, 1000, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "a.lif", series("CYX"))
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    assert "empty file" in refusal(path) if kept == 0 else "damaged" in refusal(path)


def test_damaged_bytes_are_read_or_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lif", series("CYX"))
    whole, random = path.read_bytes(), np.random.default_rng(3)
    header = len(whole) - series("CYX").pixels.nbytes
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[2 * random.integers(header // 2)] = random.integers(32, 127)  # a letter of the XML, mostly
        path.write_bytes(damaged)
        try:
            with open_stack(path) as stack:
                for t, z in stack.info.positions(0):
                    stack.read_plane(t, 0, z)
        except UserError as error:
            assert str(path) in str(error)


def test_files_that_lead_to_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.lif"
    path.write_text(
        '<?xml version="1.0"?><LMSDataContainerHeader Version="2"><Element Name="a"/></LMSDataContainerHeader>'
    )
    assert "a.lif: found" in refusal(path)


def test_without_the_package_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liffile", None)
    assert "pip install liffile" in refusal(write(tmp_path / "a.lif", series("YX")))

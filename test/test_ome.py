"""Reading of planes: what is accepted comes through exactly, what is not is refused in one sentence."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import UserError
from model.images import inspect, read_image
from model.labels import Modality

PIXELS = np.random.default_rng(0).integers(0, 65536, (70, 131)).astype(np.uint16)
REAL = Path(__file__).parents[1] / ".." / "shared" / "real"


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.endswith(".")
    return message


def ome_xml() -> str:
    """A sound OME-XML of PIXELS."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="131" SizeY="70" '
        'SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="0.1" PhysicalSizeXUnit="µm" PhysicalSizeY="0.2" '
        'PhysicalSizeYUnit="µm"><Channel ID="Channel:0:0" SamplesPerPixel="1" Name="BF"/>'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )


def write_with_xml(path: Path, xml: str | bytes) -> Path:
    description = xml if isinstance(xml, bytes) else xml.encode()
    tifffile.imwrite(
        path, PIXELS, description=description, metadata=None, resolution=(3e5, 3e5), resolutionunit="CENTIMETER"
    )
    return path


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "deflate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 7}, {}])
def test_every_usual_kind_of_tiff_is_read_exactly(tmp_path, compression, byteorder, bigtiff, layout):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression=compression, byteorder=byteorder, bigtiff=bigtiff, **layout)
    plane = read_image(path)
    assert plane.pixels.dtype == np.uint16 and plane.pixels.dtype.isnative
    np.testing.assert_array_equal(plane.pixels, PIXELS)
    assert inspect(path) == plane.info


@pytest.mark.parametrize("axes", ["TCZYX", "TZCYX", "CTZYX", "ZYX", "YX"])
def test_singleton_axes_and_metadata(tmp_path, axes):
    path = tmp_path / "image_1_BF_z0.ome.tiff"
    metadata = {
        "axes": axes,
        "PhysicalSizeX": 65,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.00007,
        "PhysicalSizeYUnit": "mm",
        "Channel": {"Name": "DIC"},
    }
    tifffile.imwrite(path, PIXELS.reshape((1,) * (len(axes) - 2) + PIXELS.shape), metadata=metadata)
    plane = read_image(path)
    np.testing.assert_array_equal(plane.pixels, PIXELS)
    assert plane.info.pixel_size_um == (0.07, 0.065)
    assert plane.info.channel == "DIC"
    assert plane.info.modality is Modality.DIC  # the channel outweighs the file's name


def test_uint8_is_stretched_to_the_whole_range(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.array([[0, 1], [128, 255]], np.uint8))
    np.testing.assert_array_equal(read_image(path).pixels, [[0, 257], [32896, 65535]])


@pytest.mark.parametrize(
    ("contrast", "modality"),
    [("Brightfield", Modality.BF), ("Phase", Modality.PC), ("DIC", Modality.DIC), ("Fluorescence", None)],
)
def test_the_contrast_method_stands_in_for_a_channel_name(tmp_path, contrast, modality):
    xml = ome_xml().replace('Name="BF"', f'Name="camera 1" ContrastMethod="{contrast}"')
    plane = read_image(write_with_xml(tmp_path / "a.tif", xml))
    assert plane.info.modality is modality and plane.info.channel == "camera 1"


def test_the_file_name_stands_in_for_both(tmp_path):
    (folder := tmp_path / "x_BF_x").mkdir()
    xml = ome_xml().replace(' Name="BF"', "")
    assert read_image(write_with_xml(folder / "a_PC_z0.tif", xml)).info.modality is Modality.PC
    assert read_image(write_with_xml(folder / "a.tif", xml)).info.modality is None


@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        (' PhysicalSizeX="0.1" PhysicalSizeXUnit="µm"', "", None),
        (' PhysicalSizeXUnit="µm"', "", (0.2, 0.1)),
        ('PhysicalSizeX="0.1"', 'PhysicalSizeX="0"', None),
        ('XUnit="µm"', 'XUnit="pixel"', None),
        ('XUnit="µm"', 'XUnit="μm"', (0.2, 0.1)),  # the Greek letter
        ('XUnit="µm"', 'XUnit="Âµm"', (0.2, 0.1)),  # encoded twice
        ('="0.1" PhysicalSizeXUnit="µm"', '="1000" PhysicalSizeXUnit="Å"', (0.2, 0.1)),
        ('="0.1"', '="65"', None),  # nanometres taken for micrometres would ask for a 1000-fold image
        ("OME/2016-06", "OME/2013-06", (0.2, 0.1)),
        ('SizeZ="1"', 'SizeZ="5"', (0.2, 0.1)),
    ],
)
def test_pixel_sizes_of_all_sorts(tmp_path, old, new, size):
    assert old in ome_xml()
    plane = read_image(write_with_xml(tmp_path / "a.tif", ome_xml().replace(old, new)))
    assert plane.info.pixel_size_um == size
    assert plane.info.modality is Modality.BF  # whatever the pixel size, the channel is not lost


def test_a_micro_sign_in_latin_1_is_read(tmp_path):
    assert read_image(write_with_xml(tmp_path / "a.tif", ome_xml().encode("latin-1"))).info.pixel_size_um == (0.2, 0.1)


@pytest.mark.parametrize("xml", [ome_xml()[:-20], ome_xml().replace("</Image>", ""), "<OME>", "<OME/>"])
def test_broken_xml_costs_the_metadata_but_not_the_pixels(tmp_path, xml):
    plane = read_image(write_with_xml(tmp_path / "a_BF_z0.tif", xml))
    np.testing.assert_array_equal(plane.pixels, PIXELS)
    assert plane.info.pixel_size_um is None and plane.info.channel is None
    assert plane.info.modality is Modality.BF
    assert "OME-XML" in plane.info.warnings[0]


def test_xml_that_defines_entities_is_refused(tmp_path):
    bomb = '<!DOCTYPE OME [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><OME>&b;</OME>'
    assert "DOCTYPE" in refusal(write_with_xml(tmp_path / "a.tif", bomb))


@pytest.mark.parametrize(
    ("resolution", "unit", "size"),
    [
        ((1e4 / 0.065, 1e4 / 0.07), "CENTIMETER", (0.07, 0.065)),
        ((25_400 / 0.1, 25_400 / 0.1), "INCH", (0.1, 0.1)),
        ((72, 72), "INCH", None),
        ((10, 10), "NONE", None),
        ((0, 0), "CENTIMETER", None),
    ],
)
def test_resolution_tags_count_where_there_is_no_ome_xml(tmp_path, resolution, unit, size):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, resolution=resolution, resolutionunit=unit)
    found = read_image(path).info.pixel_size_um
    assert found == (size and pytest.approx(size, rel=1e-6))


def test_imagej_says_its_unit_elsewhere(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(10, 5), metadata={"unit": "um"})
    assert read_image(path).info.pixel_size_um == (0.2, 0.1)


@pytest.mark.parametrize(
    ("array", "options", "found"),
    [
        (np.zeros((3, 9, 9), np.uint16), {"photometric": "minisblack"}, "3 planes"),
        (np.zeros((3, 9, 9), np.uint16), {"imagej": True}, "3 planes"),
        (np.zeros((9, 9, 3), np.float32), {"photometric": "rgb"}, "RGB pixels of type float32"),
        (np.zeros((9, 9, 2), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "2 value"),
        (np.zeros((9, 9), np.complex64), {}, "COMPLEXIEEEFP"),
        (np.zeros((9, 9), bool), {"photometric": "minisblack"}, "1 bits in sample format UINT"),
        (np.zeros((9, 9), np.uint16), {"photometric": "miniswhite"}, "MINISWHITE"),
    ],
)
def test_what_is_no_plane_of_grey_values_is_refused(tmp_path, array, options, found):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, **options)
    assert found in refusal(path)


def test_what_is_no_file_or_no_tiff_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "missing.tiff")
    (tmp_path / "folder.tiff").mkdir()
    assert "folder" in refusal(tmp_path / "folder.tiff")
    (empty := tmp_path / "empty.tiff").write_bytes(b"")
    assert "empty" in refusal(empty)
    (text := tmp_path / "text.tiff").write_text("not a picture")
    assert "not TIFF" in refusal(text)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (32, 32)}, {"bigtiff": True}])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, **options)
    whole = path.read_bytes()
    for length in (4, 8, 9, 20, 100, 150, 200, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_a_file_that_lost_its_ome_xml_at_the_end_is_refused(tmp_path, options):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PIXELS, ome=True, metadata={"axes": "YX", "Channel": {"Name": "BF"}}, **options)
    whole = path.read_bytes()
    assert whole.rstrip(b"\0").endswith(b"</OME>") and read_image(path).info.channel == "BF"
    for lost in (len(whole) - len(whole.rstrip(b"\0")) + 1, 100, 400):
        path.write_bytes(whole[:-lost])
        assert "truncated" in refusal(path)
        with pytest.raises(UserError, match="truncated"):
            inspect(path)


def test_damaged_pixels_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression="zlib")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 200] = bytes(200)
    path.write_bytes(damaged)
    assert "damaged" in refusal(path)


def header_only(width: int, height: int, *, compression: int = 1, stored: int = 100, tile: int = 0) -> bytes:
    tags = [(256, width), (257, height), (258, 16), (259, compression), (262, 1), (277, 1)]
    tags += (
        [(322, tile), (323, tile), (324, 200), (325, stored)] if tile else [(273, 200), (278, height), (279, stored)]
    )
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + bytes(400)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (header_only(50_000, 50_000), "50000 x 50000"),
        (header_only(2**31, 2**31), "2147483648"),
        (header_only(30_000, 30_000, compression=8), "30000 x 30000"),
        (header_only(100, 100), "100 bytes"),
        (header_only(10, 10, compression=8, tile=65_536), "65536 x 65536"),
        (header_only(0, 10), "0 x 10"),
        (header_only(10, 10, stored=0), "without pixels"),
        (header_only(10, 10, compression=12_345), "compression 12345"),
    ],
)
def test_claims_are_checked_before_memory_is_asked_for(tmp_path, content, found):
    (path := tmp_path / "a.tif").write_bytes(content)
    assert found in refusal(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_gives_a_plane_or_a_sentence_and_nothing_else(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "damaged.tif"
    content = bytearray(write_with_xml(path, ome_xml()).read_bytes())
    for position, value in changes:
        content[position] = value
    path.write_bytes(content)
    try:
        assert read_image(path).pixels.ndim == 2
    except UserError as error:
        assert "\n" not in str(error)


def test_reading_a_tiff_does_not_wait_for_slow_imports(tmp_path):
    path = write_with_xml(tmp_path / "a.tif", ome_xml())
    code = (
        "import sys; from pathlib import Path; from model.images import read_image; "
        f"read_image(Path({str(path)!r})); "
        "sys.exit('ome_types' in sys.modules or 'SimpleITK' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# MetaImage


def write_mha(path: Path, array: np.ndarray, *, compressed: bool = False, colour: bool = False) -> bytes:
    image = SimpleITK.GetImageFromArray(array, isVector=colour)
    image.SetSpacing((6.5e-5, 7e-5, 1.0)[: image.GetDimension()])
    SimpleITK.WriteImage(image, str(path), compressed)
    return path.read_bytes()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", [(70, 131), (1, 70, 131)])
def test_mha_is_read_with_its_spacing_in_millimetres(tmp_path, compressed, shape):
    path = tmp_path / "x_DIC_z0.mha"
    write_mha(path, PIXELS.reshape(shape), compressed=compressed)
    plane = read_image(path)
    np.testing.assert_array_equal(plane.pixels, PIXELS)
    assert plane.info.pixel_size_um == (0.07, 0.065)
    assert plane.info.modality is Modality.DIC and plane.info.channel is None


def test_mha_that_is_no_whole_plane_is_refused(tmp_path):
    path = tmp_path / "a.mha"
    write_mha(path, np.stack([PIXELS] * 3))
    assert "3 planes" in refusal(path)
    write_mha(path, np.zeros((9, 9, 3), np.uint8), colour=True)
    assert "3 samples" in refusal(path)
    raw, packed = write_mha(path, PIXELS), write_mha(path, PIXELS, compressed=True)
    unsized = re.sub(rb"CompressedDataSize = \d+\n", b"", packed)  # with it, ITK notices by itself
    local = b"ElementDataFile = LOCAL\n"
    taller, huge = b"DimSize = 131 700", b"DimSize = 30000 30000"
    for content in (
        b"", b"II*\0", raw[:50], raw[:-1], packed[:-1], packed[: len(packed) // 2],
        *(unsized[: len(unsized) // 2].replace(b"= True", yes) for yes in (b"= 1", b"= T", b": True", b"= Tr")),
        unsized, re.sub(rb"Size = \d+\n", b"Size = 500\n", packed),
        packed.replace(local, local + b"\n"), packed + b"\n",
        raw.replace(b"LOCAL", b"x" + b" " * 50_000 + b"y"),
        raw.replace(b"LOCAL", b"/etc/hostname"),
        *(whole.replace(b"DimSize = 131 70", claim) for whole in (raw, packed) for claim in (taller, huge)),
    ):  # fmt: skip
        path.write_bytes(content)
        refusal(path)


def test_mha_whose_path_is_not_utf8_is_refused(tmp_path):
    write_mha(tmp_path / "a.mha", PIXELS)
    path = (tmp_path / "a.mha").rename(tmp_path / "b_10\udcb5m.mha")  # as a Latin-1 disk has it
    assert "found a path that is not UTF-8, expected" in refusal(path)


@pytest.mark.skipif(not REAL.is_dir(), reason="real images are not part of the project")
@pytest.mark.parametrize(("study", "size"), [("Study_101", (0.3112, 0.3112)), ("Study_102", None)])
def test_real_images_are_read(study, size):
    path = sorted((REAL / study).glob("image_*_z*.ome.tiff"))[0]
    plane = read_image(path)
    assert plane.info.pixel_size_um == size and plane.info.modality is not None and plane.pixels.std() > 0

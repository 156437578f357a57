"""What an OME-XML says of this plane: the right Image and channel, and one bad value costs no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from model.errors import UserError
from model.images import inspect, read_image, write_plane
from model.images.open_stack import open_stack
from model.images.units import um_per_unit
from model.labels import Modality

PIXELS = np.random.default_rng(0).integers(1, 65536, (64, 80)).astype(np.uint16)
UUIDS = [f"urn:uuid:{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "123"]
NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def ome(*images: str, attributes: str = "", head: str = '<?xml version="1.0" encoding="UTF-8"?>') -> str:
    return f'{head}<OME xmlns="{NAMESPACE}"{attributes}>{"".join(images)}</OME>'


def image(
    number: int = 0,
    *,
    px: str | None = "0.1",
    unit: str = "µm",
    channels: str = '<Channel ID="Channel:0:0" Name="BF"/>',
    shape: tuple[int, int] = (64, 80),
    sizes: tuple[int, int, int] = (1, 1, 1),
    order: str = "XYCZT",
    tiff_data: str = "<TiffData/>",
) -> str:
    z, c, t = sizes
    size = "" if px is None else "".join(f' PhysicalSize{axis}="{px}" PhysicalSize{axis}Unit="{unit}"' for axis in "XY")
    return (
        f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="{order}" Type="uint16" '
        f'SizeX="{shape[1]}" SizeY="{shape[0]}" SizeC="{c}" SizeZ="{z}" SizeT="{t}"{size}>'
        f"{channels}{tiff_data}</Pixels></Image>"
    )


def named(name: str, contrast: str | None = None) -> str:
    method = "" if contrast is None else f' ContrastMethod="{contrast}"'
    return f'<Channel ID="Channel:0:{name}" Name="{name}"{method}/>'


def data(file: int, *, directory: int = 0, first: str = "", name: str | None = None) -> str:
    name = f"set_{file}.ome.tif" if name is None else name
    return f'<TiffData IFD="{directory}" PlaneCount="1"{first}><UUID FileName="{name}">{UUIDS[file]}</UUID></TiffData>'


def write(path: Path, xml: str, pixels: np.ndarray = PIXELS, **options: object) -> Path:
    tifffile.imwrite(path, pixels, description=xml.encode(), metadata=None, photometric="minisblack", **options)
    return path


# Which Image


@pytest.mark.parametrize("member", [0, 1, 2])
@pytest.mark.parametrize("renamed", [False, True])
def test_the_image_of_a_multi_file_set_that_means_this_file(tmp_path: Path, member: int, renamed: bool) -> None:
    images = [
        image(n, px=size, channels=named(channel), tiff_data=data(n))
        for n, (size, channel) in enumerate([("0.65", "DIC"), ("0.1", "BF"), ("0.2", "PC")])
    ]
    xml = ome(*images, attributes=f' UUID="{UUIDS[member].upper()}"')
    info = inspect(write(tmp_path / ("renamed.tif" if renamed else f"set_{member}.ome.tif"), xml))
    assert info.pixel_size_um == ((0.65, 0.65), (0.1, 0.1), (0.2, 0.2))[member]
    assert info.channel == ("DIC", "BF", "PC")[member] and info.warnings == ()


@pytest.mark.parametrize("attributes", ["", f' UUID="urn:uuid:{"9" * 8}-9999-9999-9999-{"9" * 12}"'])
def test_without_its_uuid_the_files_name_tells(tmp_path: Path, attributes: str) -> None:
    images = [image(n, px=size, tiff_data=data(n)) for n, size in enumerate(["0.65", "0.1"])]
    assert inspect(write(tmp_path / "set_1.ome.tif", ome(*images, attributes=attributes))).pixel_size_um == (0.1, 0.1)
    unknown = inspect(write(tmp_path / "else.ome.tif", ome(*images, attributes=attributes)))
    assert unknown.pixel_size_um is None and unknown.channel is None
    assert "describes 2 images" in unknown.warnings[0]


def test_images_that_all_say_the_same_need_not_be_told_apart(tmp_path: Path) -> None:
    images = [image(n, tiff_data=data(n)) for n in range(3)]
    info = inspect(write(tmp_path / "renamed.tif", ome(*images)))
    assert (info.pixel_size_um, info.channel, info.warnings) == ((0.1, 0.1), "BF", ())


@pytest.mark.parametrize("tiff_data", ["<TiffData/>", "", '<TiffData IFD="{}"/>'])
def test_a_macro_image_comes_first(tmp_path: Path, tiff_data: str) -> None:
    macro = image(0, px="8.0", channels=named("label"), shape=(16, 20), tiff_data=tiff_data.format(1))
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as tiff:
        xml = ome(macro, image(1, tiff_data=tiff_data.format(0)))
        tiff.write(PIXELS, description=xml.encode(), metadata=None, photometric="minisblack")
        tiff.write(PIXELS[::4, ::4], subfiletype=1, metadata=None, photometric="minisblack")
    info = inspect(path)
    assert (info.shape, info.pixel_size_um, info.modality) == ((64, 80), (0.1, 0.1), Modality.BF)


def test_a_label_image_in_the_first_directory(tmp_path: Path) -> None:
    label = image(0, px="8.0", channels=named("label"), shape=(16, 20), tiff_data='<TiffData IFD="0" PlaneCount="1"/>')
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as tiff:
        xml = ome(label, image(1, tiff_data='<TiffData IFD="1" PlaneCount="1"/>'))
        tiff.write(PIXELS[::4, ::4], subfiletype=1, description=xml.encode(), metadata=None, photometric="minisblack")
        tiff.write(PIXELS, metadata=None, photometric="minisblack")
    found = read_image(path)
    np.testing.assert_array_equal(found.pixels, PIXELS)
    assert (found.info.pixel_size_um, found.info.channel) == ((0.1, 0.1), "BF")


@pytest.mark.parametrize(("planes", "px"), [(1, "0.2"), (3, "0.2"), (1, "0.1"), (1, "0.33")])
def test_another_image_of_the_same_proportions_is_no_level(tmp_path: Path, planes: int, px: str) -> None:
    """Such as that of a camera with binning: its directories bear no mark."""
    first = image(0, tiff_data='<TiffData IFD="0" PlaneCount="1"/>')
    binned = f'<TiffData IFD="1" PlaneCount="{planes}"/>'
    second = image(1, px=px, shape=(32, 40), sizes=(planes, 1, 1), tiff_data=binned)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, description=ome(first, second).encode(), metadata=None, photometric="minisblack")
        for n in range(planes):
            tiff.write(PIXELS[::2, ::2] + n, metadata=None, photometric="minisblack", contiguous=False)
    if (planes, px) == (1, "0.2"):  # as some writers list the levels of a pyramid
        assert inspect(path).warnings == ("its image of 40 x 32 px is taken as a smaller copy of the one of full size",)
        return
    with pytest.raises(UserError, match="of 80 x 64 px and 40 x 32 px, expected images of one size"):
        inspect(path)
    with open_stack(path, 1) as stack:
        assert (stack.info.scenes, stack.info.focal_planes, stack.info.shape) == (2, planes, (32, 40))
        np.testing.assert_array_equal(stack.read_plane(0, 0, planes - 1), PIXELS[::2, ::2] + planes - 1)


def test_another_image_beside_a_stack_is_a_scene(tmp_path: Path) -> None:
    first = image(0, sizes=(3, 1, 1), tiff_data='<TiffData IFD="0" PlaneCount="3"/>')
    second = image(1, shape=(32, 40), sizes=(2, 1, 1), tiff_data='<TiffData IFD="3" PlaneCount="2"/>')
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as tiff:
        options: dict[str, Any] = {"metadata": None, "photometric": "minisblack", "contiguous": False}
        for n in range(3):
            tiff.write(PIXELS, description=None if n else ome(first, second).encode(), **options)
        for _ in range(2):
            tiff.write(PIXELS[::2, ::2], **options)
    for scene, (planes, step) in enumerate([(3, 1), (2, 2)]):
        with open_stack(path, scene) as stack:
            assert (stack.info.scenes, stack.info.focal_planes) == (2, planes)
            np.testing.assert_array_equal(stack.read_plane(0, 0, 1), PIXELS[::step, ::step])


def test_metadata_in_a_companion_file(tmp_path: Path) -> None:
    binary = f'<OME xmlns="{NAMESPACE}" UUID="{UUIDS[1]}"><BinaryOnly MetadataFile="a.companion.ome"/></OME>'
    path = write(tmp_path / "set_1.ome.tif", binary)
    alone = inspect(path)
    assert alone.pixel_size_um is None and "a.companion.ome" in alone.warnings[0]
    companion = ome(image(0, px="0.65", tiff_data=data(0)), image(1, channels=named("PC"), tiff_data=data(1)))
    (tmp_path / "a.companion.ome").write_text(companion, encoding="utf-8")
    info = inspect(path)
    assert (info.pixel_size_um, info.modality, info.warnings) == ((0.1, 0.1), Modality.PC, ())


@pytest.mark.parametrize("mebibytes", [0, 65])
def test_metadata_in_the_first_tiff_of_a_set(tmp_path: Path, mebibytes: int) -> None:
    """As Micro-Manager writes a set: the first file has any size."""
    planes = [data(1, directory=z, first=f' FirstZ="{z}"') for z in range(2)]
    xml = ome(image(sizes=(2, 1, 1), tiff_data="".join(planes)), attributes=f' UUID="{UUIDS[0]}"')
    first = write(tmp_path / "set_0.ome.tif", xml)
    with first.open("ab") as file:
        file.truncate(first.stat().st_size + mebibytes * 2**20)
    second = tmp_path / "set_1.ome.tif"
    binary = f'<OME xmlns="{NAMESPACE}" UUID="{UUIDS[1]}"><BinaryOnly MetadataFile="set_0.ome.tif"/></OME>'
    write(second, binary, np.stack([PIXELS, PIXELS // 2]))
    with open_stack(second) as stack:
        assert (stack.info.focal_planes, stack.info.pixel_size_um) == (2, (0.1, 0.1))
        assert [channel.modality for channel in stack.info.channels] == [Modality.BF] and stack.info.warnings == ()
        np.testing.assert_array_equal(stack.read_plane(0, 0, 1), PIXELS // 2)
    first.unlink()
    with pytest.raises(UserError, match=r"found 2 planes, but its metadata .* which is not beside it"):
        open_stack(second)
    first.write_bytes(b"II*\0")
    with pytest.raises(UserError, match="which cannot be read"):
        open_stack(second)
    first.write_text("<OME><broken></OME>", encoding="utf-8")
    with pytest.raises(UserError, match="which holds no sound OME-XML"):
        open_stack(second)


def test_a_companion_without_metadata_of_its_own_is_not_followed(tmp_path: Path) -> None:
    binary = f'<OME xmlns="{NAMESPACE}"><BinaryOnly MetadataFile="a.companion.ome"/></OME>'
    (tmp_path / "a.companion.ome").write_text(binary, encoding="utf-8")
    info = inspect(write(tmp_path / "a.ome.tif", binary))
    assert info.pixel_size_um is None and "a.companion.ome', which names another file" in info.warnings[0]


def test_a_companion_in_another_folder_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text(ome(image()), encoding="utf-8")
    path = write(tmp_path / "in/a.tif", f'<OME xmlns="{NAMESPACE}"><BinaryOnly MetadataFile="../secret"/></OME>')
    assert inspect(path).pixel_size_um is None


# Which channel


CHANNELS = named("DAPI", "Fluorescence") + named("TL", "Phase") + named("GFP")


@pytest.mark.parametrize(("first", "channel"), [("0", "DAPI"), ("1", "TL"), ("2", "GFP")])
def test_the_channel_that_this_file_holds_of_a_set(tmp_path: Path, first: str, channel: str) -> None:
    others = "".join(data(0, first=f' FirstC="{c}"', name=f"c{c}.tif") for c in "012" if c != first)
    tiff_data = others.replace(UUIDS[0], UUIDS[2]) + data(1, first=f' FirstC="{first}"')
    info = inspect(
        write(tmp_path / "set_1.ome.tif", ome(image(channels=CHANNELS, sizes=(1, 3, 1), tiff_data=tiff_data)))
    )
    assert info.channel == channel and info.warnings == ()
    assert info.modality is (Modality.PC if channel == "TL" else None)


@pytest.mark.parametrize(
    ("order", "first", "channel"),
    [
        ("XYCZT", ' FirstC="1" FirstZ="4"', "TL"),
        ("XYZCT", ' FirstC="2" FirstZ="0"', "GFP"),
        ("XYTZC", ' FirstC="1" FirstT="1"', "TL"),
    ],
)
def test_the_channel_in_every_dimension_order(tmp_path: Path, order: str, first: str, channel: str) -> None:
    tiff_data = data(1, first=first) + data(2, name="other.tif").replace('PlaneCount="1"', 'PlaneCount="29"')
    xml = ome(image(channels=CHANNELS, sizes=(5, 3, 2), order=order, tiff_data=tiff_data))
    assert inspect(write(tmp_path / "set_1.ome.tif", xml)).channel == channel


@pytest.mark.parametrize(("first", "modality"), [(0, None), (1, Modality.DIC), (2, None)])
def test_the_one_plane_that_is_located_tells_its_channel(tmp_path: Path, first: int, modality: Modality | None) -> None:
    channels = "".join(map(named, ("DAPI", "DIC", "GFP")))
    tiff_data = f'<TiffData IFD="0" FirstC="{first}" PlaneCount="1"/>'
    path = write(tmp_path / "one.tif", ome(image(channels=channels, sizes=(1, 3, 1), tiff_data=tiff_data)))
    info = inspect(path)
    assert (info.channel, info.modality) == (("DAPI", "DIC", "GFP")[first], modality)
    assert not info.warnings


@pytest.mark.parametrize("tiff_data", ["<TiffData/>", "", '<TiffData IFD="0" PlaneCount="3"/>', '<TiffData IFD="0"/>'])
def test_a_channel_that_cannot_be_told_is_unknown(tmp_path: Path, tiff_data: str) -> None:
    """A stack was saved plane by plane, with the XML of the whole stack in each file."""
    xml = ome(image(channels=CHANNELS, sizes=(1, 3, 1), tiff_data=tiff_data))
    info = inspect(write(tmp_path / "a.ome.tif", xml))
    assert info.channel is None and info.modality is None and info.pixel_size_um == (0.1, 0.1)
    assert any("which channel" in warning for warning in info.warnings)


def test_more_planes_than_there_are_is_warned_of(tmp_path: Path) -> None:
    info = inspect(write(tmp_path / "a.ome.tif", ome(image(sizes=(5, 1, 1)))))
    assert info.channel == "BF" and "more planes" in info.warnings[0]


# Sizes


@pytest.mark.parametrize("shape", [(640, 800), (64, 81), (80, 64)])
def test_sizes_that_are_not_the_planes_own(tmp_path: Path, shape: tuple[int, int]) -> None:
    info = inspect(write(tmp_path / "a.ome.tif", ome(image(shape=shape)), resolution=(1e5, 1e5), resolutionunit=3))
    assert info.pixel_size_um is None and info.channel == "BF"
    assert f"{shape[1]} x {shape[0]} px" in info.warnings[0] and "80 x 64 px" in info.warnings[0]


def test_resolution_tags_count_where_the_xml_has_no_size(tmp_path: Path) -> None:
    tags = {"resolution": (2e5, 1e5), "resolutionunit": "CENTIMETER"}
    assert inspect(write(tmp_path / "a.tif", ome(image(px=None)), **tags)).pixel_size_um == (0.1, 0.05)
    assert inspect(write(tmp_path / "b.tif", ome(image(px="0")), **tags)).pixel_size_um == (0.1, 0.05)
    assert inspect(write(tmp_path / "c.tif", ome(image(px="0.2")), **tags)).pixel_size_um == (0.2, 0.2)
    write_plane(tmp_path / "d.tif", PIXELS, channel="Actin", pixel_size_um=None)  # of ours, where they stand in
    assert inspect(tmp_path / "d.tif").pixel_size_um is None


# One bad value costs no other


@pytest.mark.parametrize(
    "unit",
    ["µm", "μm", "um", "UM", "micrometer", "Micrometers", "micrometre", "micron", "Microns", "&#956;m", "&#181;m",
     "&#xB5;m", "&micro;m", "&mu;m", "&amp;#956;m", " µm ", "Âµm", "\\u00B5m"],
)  # fmt: skip
def test_micrometres_however_spelled(tmp_path: Path, unit: str) -> None:
    info = inspect(write(tmp_path / "a.tif", ome(image(unit=unit))))
    assert (info.pixel_size_um, info.channel, info.warnings) == ((0.1, 0.1), "BF", ())


@pytest.mark.parametrize(
    ("px", "unit", "size"),
    [("100", "nm", 0.1), ("100", "nanometers", 0.1), ("0.0001", "mm", 0.1), ("1000", "Å", 0.1),
     ("1000", "angstrom", 0.1), ("1e-7", "m", 0.1), ("0.00001", "Centimetre", 0.1),
     ("0.00001", "inches", 0.254), ("1", "pixel", None),
     ("1", "furlong", None), ("1", "reference frame", None)],
)  # fmt: skip
def test_other_units(tmp_path: Path, px: str, unit: str, size: float | None) -> None:
    info = inspect(write(tmp_path / "a.tif", ome(image(px=px, unit=unit))))
    assert info.pixel_size_um == (None if size is None else (size, size)) and info.channel == "BF"
    assert bool(info.warnings) is (size is None)


@pytest.mark.parametrize(
    "change",
    [
        ('Type="uint16"', 'Type="no such type"'),
        ('DimensionOrder="XYCZT"', 'DimensionOrder="whatever"'),
        ('SizeC="1"', 'SizeC="one"'),
        ('ID="Channel:0:0"', 'ID="0" Color="red" EmissionWavelength="n/a"'),
        ('ID="Image:0"', 'ID=""'),
        ("<Channel", '<Unknown a="1"><b/></Unknown><Channel'),
        ("<Image", "<!-- written by a program & nobody else \x0b --><Image"),
        (' Name="BF"', ' Name="BF" AcquisitionMode="wide &field; & more"'),
        ("2016-06", "2008-02"),
        ('"', "'"),
        ("=", " = "),
    ],
)
def test_what_is_invalid_elsewhere_does_not_matter(tmp_path: Path, change: tuple[str, str]) -> None:
    xml = ome(image(), head="")
    assert change[0] in xml
    info = inspect(write(tmp_path / "a.tif", xml.replace(*change)))
    assert (info.pixel_size_um, info.channel, info.modality) == ((0.1, 0.1), "BF", Modality.BF)


@pytest.mark.parametrize("px", ["0,1", "n/a", "", "nan", "-0.1"])
def test_a_size_that_is_no_number_costs_the_size_alone(tmp_path: Path, px: str) -> None:
    info = inspect(write(tmp_path / "a.tif", ome(image(px=px))))
    assert info.pixel_size_um is None and info.channel == "BF"
    assert px == "-0.1" or "PhysicalSize" in info.warnings[0]


@pytest.mark.parametrize("contrast", ["phase contrast", "", "Brightfeld"])
def test_a_contrast_method_that_is_none_costs_itself_alone(tmp_path: Path, contrast: str) -> None:
    info = inspect(write(tmp_path / "a.tif", ome(image(channels=named("BF", contrast)))))
    assert (info.modality, info.pixel_size_um) == (Modality.BF, (0.1, 0.1))
    assert bool(info.warnings) is bool(contrast)


def test_contradictions_about_the_modality_are_warned_of(tmp_path: Path) -> None:
    info = inspect(write(tmp_path / "a.tif", ome(image(channels=named("BF", "Phase")))))
    assert info.modality is Modality.BF and "ContrastMethod is Phase" in info.warnings[0]
    info = inspect(write(tmp_path / "b.tif", ome(image(channels=named("PH3", "Fluorescence")))))
    assert info.modality is Modality.PC and "ContrastMethod is Fluorescence: taken as PC" in info.warnings[0]
    info = inspect(write(tmp_path / "a_PC_1.tif", ome(image())))
    assert info.modality is Modality.BF and "name says PC" in info.warnings[0]


@pytest.mark.parametrize("before", ["", "ImageJ=1.53\n", "x" * 10_000, "\ufeff", "<!-- note -->" * 800])
@pytest.mark.parametrize("after", ["", "\0", "\nmore text & <tags"])
def test_text_around_the_xml_does_not_matter(tmp_path: Path, before: str, after: str) -> None:
    path = write(tmp_path / "a.tif", before + ome(image()) + after)
    assert inspect(path).pixel_size_um == (0.1, 0.1)


def test_a_prefix_for_the_namespace(tmp_path: Path) -> None:
    xml = ome(image(), head="").replace("</", "</ome:").replace("<", "<ome:").replace("<ome:/ome:", "</ome:")
    assert inspect(write(tmp_path / "a.tif", xml.replace("xmlns=", "xmlns:ome="))).pixel_size_um == (0.1, 0.1)


def test_entities_are_refused_wherever_the_xml_begins(tmp_path: Path) -> None:
    bomb = "x" * 5000 + '<!DOCTYPE OME [<!ENTITY a "aaaa">]>' + ome(image(), head="")
    with pytest.raises(UserError, match="DOCTYPE"):
        inspect(write(tmp_path / "a.tif", bomb))


def test_units_of_no_length() -> None:
    for unit in ("", "pixel", "px", "s", "metersquare"):
        assert um_per_unit(unit) is None


@pytest.mark.parametrize("px", ["-0.1", "-100"])
def test_a_negative_size_is_warned_of(tmp_path: Path, px: str) -> None:
    info = inspect(write(tmp_path / "one.tif", ome(image(px=px))))
    assert info.pixel_size_um is None and info.modality is Modality.BF
    assert info.warnings == (f"its pixel size of {px} µm x {px} µm is not one of a light microscope and is ignored",)

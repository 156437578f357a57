"""Files of many planes: every plane is the one that the file says, whoever wrote it, and what is unclear is said."""

import struct
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import UserError
from model.images import read_image
from model.images.channels import describe_channel
from model.images.open_stack import open_stack
from model.images.stack import Stack
from model.labels import Modality

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
SHAPE_TCZ = (3, 2, 4)
STACK = np.random.default_rng(0).integers(0, 60000, (*SHAPE_TCZ, 24, 32)).astype(np.uint16)  # TCZYX


def ordered(axes: str) -> np.ndarray:
    return np.ascontiguousarray(STACK.transpose(["TCZYX".index(axis) for axis in axes]))


def assert_planes(stack: Stack, expected: np.ndarray) -> None:
    """`expected` has the axes TCZYX."""
    info = stack.info
    assert (info.times, len(info.channels), info.focal_planes, *info.shape) == expected.shape
    for t, c, z in product(*map(range, expected.shape[:3])):
        np.testing.assert_array_equal(stack.read_plane(t, c, z), expected[t, c, z])


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_stack(path)
    return str(caught.value)


@pytest.mark.parametrize("axes", ["TCZYX", "TZCYX", "CTZYX", "CZTYX", "ZTCYX", "ZCTYX"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {"bigtiff": True}]
)
def test_ome_tiff_of_any_order(tmp_path: Path, axes: str, options: dict[str, Any]) -> None:
    path = tmp_path / "a.ome.tiff"
    metadata = {
        "axes": axes,
        "Channel": {"Name": ["DAPI", "Phase"]},
        **{"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3, "PhysicalSizeZ": 700, "PhysicalSizeZUnit": "nm"},
        **{"TimeIncrement": 2.0, "TimeIncrementUnit": "min"},
    }
    tifffile.imwrite(path, ordered(axes), ome=True, photometric="minisblack", metadata=metadata, **options)
    with open_stack(path) as stack:
        assert_planes(stack, STACK)
        info = stack.info
        assert (info.pixel_size_um, info.z_step_um, info.time_increment_s) == ((0.3, 0.2), 0.7, 120.0)
        assert [(c.name, c.modality, c.transmitted) for c in info.channels] == [
            ("DAPI", None, False),
            ("Phase", Modality.PC, True),
        ]
        assert info.warnings == ()


@given(st.permutations("TCZ"), st.tuples(*[st.integers(1, 3)] * 3), st.sampled_from(["<", ">"]))
@settings(max_examples=25, deadline=None)
def test_ome_tiff_of_any_sizes(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], sizes: Any, end: str
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.ome.tiff"
    axes = "".join(order) + "YX"
    planes = STACK[: sizes[0], : min(2, sizes[1]), : sizes[2]]
    stored = np.ascontiguousarray(planes.transpose(["TCZYX".index(axis) for axis in axes]))
    tifffile.imwrite(path, stored, ome=True, photometric="minisblack", byteorder=end, metadata={"axes": axes})
    with open_stack(path) as stack:
        assert_planes(stack, planes)


@pytest.mark.parametrize("truncate", [False, True])
def test_imagej_hyperstacks(tmp_path: Path, truncate: bool) -> None:
    """ImageJ writes one directory alone (truncate) where a stack has more than 4 GB."""
    path = tmp_path / "a.tif"
    metadata = {"axes": "TZCYX", "unit": "um", "spacing": 0.5, "finterval": 3.0}
    resolution = {"resolution": (5.0, 4.0)}
    tifffile.imwrite(path, ordered("TZCYX"), imagej=True, truncate=truncate, metadata=metadata, **resolution)
    with open_stack(path) as stack:
        assert_planes(stack, STACK)
        info = stack.info
        assert (info.pixel_size_um, info.z_step_um, info.time_increment_s) == ((0.25, 0.2), 0.5, 3.0)
        assert [channel.transmitted for channel in info.channels] == [None, None]


@pytest.mark.parametrize("truncate", [False, True])
def test_stacks_described_by_tifffile(tmp_path: Path, truncate: bool) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ordered("ZTCYX"), photometric="minisblack", truncate=truncate, metadata={"axes": "ZTCYX"})
    with open_stack(path) as stack:
        assert_planes(stack, STACK)


def test_an_axis_without_a_name_is_taken_as_focal_planes_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for plane in STACK[0, 0]:
            tiff.write(plane, photometric="minisblack", metadata=None, contiguous=False)
    with open_stack(path) as stack:
        assert_planes(stack, STACK[:1, :1])
        assert "its 4 planes are" in stack.info.warnings[0] and "focal planes" in stack.info.warnings[0]


def test_two_axes_without_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], photometric="minisblack")
    assert "2 x 4 planes along axes without a name" in refusal(path)


def test_metamorph_stack_behind_one_directory(tmp_path: Path) -> None:
    path, planes = tmp_path / "a.stk", STACK[0, 0, :3]
    _, height, width = planes.shape
    packed = planes.tobytes()
    uic2, uic1 = struct.pack("<6I", 0, 1, 2451545, 0, 2451545, 0) * 3, bytes(24)
    at = 8 + len(packed)
    tags = [(254, 4, 1, 0), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, height * width * 2)]
    tags += [(33628, 4, 3, at + len(uic2)), (33629, 5, 3, at)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, at + len(uic2) + len(uic1)) + packed + uic2 + uic1 + directory)
    with open_stack(path) as stack:
        assert stack.info.times * stack.info.focal_planes == 3
        for n in range(3):
            plane = stack.read_plane(n, 0, 0) if stack.info.times == 3 else stack.read_plane(0, 0, n)
            np.testing.assert_array_equal(plane, planes[n])


def ome_xml(sizes: tuple[int, int, int], tiff_data: str, order: str = "XYZCT") -> str:
    """OME-XML of 32 x 24 px with these sizes T, C, Z."""
    t, c, z = sizes
    channels = "".join(f'<Channel ID="Channel:0:{n}" Name="{name}"/>' for n, name in enumerate(["TL", "GFP"][:c]))
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint16" SizeX="32" SizeY="24" SizeT="{t}" SizeC="{c}" '
        f'SizeZ="{z}">{channels}{tiff_data}</Pixels></Image></OME>'
    )


def write_planes(path: Path, planes: list[np.ndarray], description: str) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for number, plane in enumerate(planes):
            text = description if number == 0 else None
            tiff.write(plane, description=text, photometric="minisblack", metadata=None, contiguous=False)
    return path


def test_planes_lie_where_their_tiffdata_say(tmp_path: Path) -> None:
    """The directories in reverse, each with a TiffData of its own."""
    positions = list(product(range(2), range(2), range(2)))
    data = "".join(
        f'<TiffData IFD="{7 - n}" FirstT="{t}" FirstC="{c}" FirstZ="{z}" PlaneCount="1"/>'
        for n, (t, c, z) in enumerate(positions)
    )
    planes = [STACK[position] for position in reversed(positions)]
    with open_stack(write_planes(tmp_path / "a.ome.tif", planes, ome_xml((2, 2, 2), data))) as stack:
        assert_planes(stack, STACK[:2, :2, :2])


def test_more_channel_elements_than_channels_take_no_focal_planes(tmp_path: Path) -> None:
    planes = [STACK[t, 0, z] for t, z in product(range(2), range(2))]
    xml = ome_xml((1, 2, 4), "<TiffData/>").replace('SizeC="2"', 'SizeC="1"')
    with open_stack(write_planes(tmp_path / "a.ome.tif", planes, xml)) as stack:
        assert [channel.name for channel in stack.info.channels] == ["TL"]
        assert_planes(stack, np.stack(planes)[None, None])


def test_a_file_of_a_set_holds_its_own_planes(tmp_path: Path) -> None:
    """Bio-Formats' way of one file a channel: both files carry the same XML."""
    data = "".join(
        f'<TiffData IFD="{z}" FirstC="{c}" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
        for c, name in enumerate(["c0.ome.tif", "c1.ome.tif"])
        for z in range(4)
    )
    for c in range(2):
        path = write_planes(tmp_path / f"c{c}.ome.tif", list(STACK[0, c]), ome_xml((1, 2, 4), data))
        with open_stack(path) as stack:
            assert_planes(stack, STACK[:1, c : c + 1])
            assert stack.info.channels[0].name == ["TL", "GFP"][c]
            assert stack.info.warnings == ()


@pytest.mark.parametrize("uuid", ["urn:uuid:old", ""])
@pytest.mark.parametrize("root", ["", ' UUID="urn:uuid:a"'])
def test_a_renamed_file_is_the_only_one_that_its_xml_names(tmp_path: Path, uuid: str, root: str) -> None:
    data = "".join(
        f'<TiffData IFD="{z}" FirstZ="{z}" PlaneCount="1"><UUID FileName="old.ome.tif">{uuid}</UUID></TiffData>'
        for z in range(4)
    )
    xml = ome_xml((1, 1, 4), data).replace(' UUID="urn:uuid:a"', root)
    with open_stack(write_planes(tmp_path / "new.ome.tif", list(STACK[0, 0]), xml)) as stack:
        assert_planes(stack, STACK[:1, :1])
        assert [channel.name for channel in stack.info.channels] == ["TL"] and stack.info.warnings == ()


def test_a_renamed_file_of_several_is_refused(tmp_path: Path) -> None:
    data = "".join(
        f'<TiffData IFD="{z}" FirstC="{c}" FirstZ="{z}" PlaneCount="1"><UUID FileName="{c}.ome.tif"/></TiffData>'
        for c in range(2)
        for z in range(4)
    )
    xml = ome_xml((1, 2, 4), data)
    assert "of which its OME-XML describes 0" in refusal(write_planes(tmp_path / "a.tif", list(STACK[0, 0]), xml))


def test_an_acquisition_that_was_stopped_holds_what_it_has(tmp_path: Path) -> None:
    planes = [STACK[t, c, 0] for t in range(3) for c in range(2)][:5]
    with open_stack(write_planes(tmp_path / "a.ome.tif", planes, ome_xml((9, 2, 1), "<TiffData/>"))) as stack:
        assert (stack.info.times, len(stack.info.channels), stack.info.focal_planes) == (3, 2, 1)
        assert stack.info.stored == {(t, c, 0) for t in range(3) for c in range(2)} - {(2, 1, 0)}
        assert any("13 planes more" in warning for warning in stack.info.warnings)
        for n, plane in enumerate(planes):
            np.testing.assert_array_equal(stack.read_plane(n // 2, n % 2, 0), plane)
        with pytest.raises(IndexError):
            stack.read_plane(2, 1, 0)


@pytest.mark.parametrize(
    ("description", "found"),
    [
        (ome_xml((2, 2, 1), '<TiffData IFD="0" PlaneCount="1"/>'), "4 planes, of which its OME-XML describes 1"),
        (
            ome_xml((2, 2, 1), "".join(f'<TiffData IFD="{n}" PlaneCount="1"/>' for n in range(4))),
            "two planes as the same",
        ),
        (ome_xml((2, 2, 1), "<TiffData/>").replace("</OME>", "") + ome_xml((2, 2, 1), "<TiffData/>")[5:], "2 images"),
    ],
)
def test_contradictory_ome_xml_of_a_stack_is_refused(tmp_path: Path, description: str, found: str) -> None:
    if found == "2 images":
        image = description[description.index("<Image") : description.index("</Image>") + 8]
        description = ome_xml((2, 2, 1), "<TiffData/>").replace("</OME>", image + "</OME>")
    assert found in refusal(write_planes(tmp_path / "a.ome.tif", list(STACK[:2, :, 0].reshape(4, 24, 32)), description))


def test_indices_that_differ_from_those_of_the_xml_are_warned_of(tmp_path: Path) -> None:
    data = "".join(f'<TiffData IFD="{n}" PlaneCount="1" FirstT="{t}"/>' for n, t in enumerate((0, 2)))
    with open_stack(write_planes(tmp_path / "a.ome.tif", list(STACK[:2, 0, 0]), ome_xml((3, 1, 1), data))) as stack:
        assert_planes(stack, STACK[:2, :1, :1])
        assert stack.info.warnings == ("it lacks times between others, and those that it has are counted from 0",)


@pytest.mark.parametrize(
    ("xml", "found"),
    [
        (
            ome_xml((1, 2, 1), '<TiffData IFD="-1000000000" PlaneCount="10000000000"/><TiffData IFD="9"/>'),
            "describes 0",
        ),
        (ome_xml((1, 2, 1), "<TiffData/>").replace('SizeC="2"', 'SizeC="1e20"'), None),
        (ome_xml((1, 2, 1), "<TiffData/>").replace('SizeC="2"', 'SizeC="300000000"'), None),
    ],
)
def test_sizes_without_measure_cost_nothing(tmp_path: Path, xml: str, found: str | None) -> None:
    path = write_planes(tmp_path / "a.ome.tif", list(STACK[0, :, 0]), xml)
    if found:
        assert found in refusal(path)
        return
    with open_stack(path) as stack:
        assert_planes(stack, STACK[:1, :, :1])


def test_planes_in_the_schema_of_2008(tmp_path: Path) -> None:
    xml = ome_xml((1, 1, 2), '<TiffData IFD="0" NumPlanes="2"/>')
    with open_stack(write_planes(tmp_path / "a.ome.tif", list(STACK[0, 0, :2]), xml)) as stack:
        assert_planes(stack, STACK[:1, :1, :2])


def test_an_imagej_stack_of_planes_without_end_is_refused_at_once(tmp_path: Path) -> None:
    path, text = tmp_path / "a.tif", "ImageJ=1.54f\nimages=30000000\nframes=30000000\n"
    tifffile.imwrite(path, STACK[0, 0, 0], compression="zlib", description=text, metadata=None)
    assert "30000000 planes behind one directory" in refusal(path)


def test_broken_ome_xml_leaves_the_planes(tmp_path: Path) -> None:
    with open_stack(write_planes(tmp_path / "a.ome.tif", list(STACK[0, 0]), "<OME><broken></OME>")) as stack:
        assert_planes(stack, STACK[:1, :1])
        assert any("broken" in warning for warning in stack.info.warnings)


def test_a_description_of_more_planes_than_there_are_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0, 0, :3], imagej=True)
    data = path.read_bytes().replace(b"images=3", b"images=9").replace(b"slices=3", b"slices=9")
    path.write_bytes(data)
    assert "planes" in refusal(path) or "truncated" in refusal(path)


def test_a_single_plane_is_a_stack_of_one(tmp_path: Path) -> None:
    path = tmp_path / "image_1_DIC_z0.ome.tiff"
    tifffile.imwrite(path, STACK[0, 0, 0], ome=True, metadata={"axes": "YX", "Channel": {"Name": "DIC"}})
    with open_stack(path) as stack:
        assert_planes(stack, STACK[:1, :1, :1])
        assert stack.info.channels[0].modality is Modality.DIC
    np.testing.assert_array_equal(read_image(path).pixels, STACK[0, 0, 0])


@pytest.mark.parametrize("suffix", [".lsm", ".oir", ".vsi"])
def test_formats_that_are_not_read_are_named_with_what_to_do(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"whatever")
    assert f"unsupported format {suffix[1:].upper()}" in refusal(path) and "OME-TIFF" in refusal(path)


@pytest.mark.parametrize(
    ("name", "transmitted", "modality"),
    [
        ("TL", True, None), ("Trans", True, None), ("T-PMT", True, None), ("Brightfield", True, Modality.BF),
        ("Bright Field", True, Modality.BF), ("BF", True, Modality.BF), ("TL Phase", True, Modality.PC),
        ("Ph2", True, Modality.PC), ("DIC N2", True, Modality.DIC), ("Nomarski", True, Modality.DIC),
        ("oblique", True, None), ("ESID", True, None), ("T PMT-T1", True, None), ("TRANS_BF", True, Modality.BF),
        ("DAPI", False, None), ("H3342", False, None), ("Alexa 488", False, None), ("GFP 488 nm", False, None),
        ("mCherry", False, None), ("SiR-actin", False, None), ("FITC BP", False, None),
        ("pH3", None, None), ("pH3 Ser10", None, None), ("PH3", True, Modality.PC), ("S phase", None, None),
        ("tdEos", None, None), ("DiA", None, None), ("DIA", True, None),
        ("G1-phase", None, None), ("G2/M phase", None, None), ("Phase G", True, Modality.PC),
        ("Channel 0", None, None), ("cyto", None, None), ("DIC-DAPI", None, None), (None, None, None),
    ],
)  # fmt: skip
def test_channels_are_told_by_name(name: str | None, transmitted: bool | None, modality: Modality | None) -> None:
    channel = describe_channel(name)
    assert (channel.transmitted, channel.modality) == (transmitted, modality)


@pytest.mark.parametrize(
    ("metadata", "transmitted", "modality"),
    [
        ({"contrast_method": "Phase"}, True, Modality.PC),
        ({"contrast_method": "Fluorescence"}, False, None),
        ({"contrast_method": "HoffmanModulation"}, True, None),
        ({"illumination": "Transmitted"}, True, None),
        ({"illumination": "Epifluorescence"}, False, None),
        ({"acquisition_mode": "SpinningDiskConfocal"}, False, None),
        ({"acquisition_mode": "WideField"}, None, None),
        ({"fluorescent": True}, False, None),
        ({"illumination": "Transmitted", "fluorescent": True}, True, None),
    ],
)
def test_channels_without_a_telling_name(metadata: Any, transmitted: bool | None, modality: Modality | None) -> None:
    channel = describe_channel("C1", **metadata)
    assert (channel.transmitted, channel.modality) == (transmitted, modality)
    assert describe_channel("TL DIC", **metadata).transmitted  # a name says more than what programs fill in


@pytest.mark.parametrize(
    "name", ["trans-Golgi", "tdKatushka2", "polarized E-cadherin", "mitotic phase", "PC-3 GFP-LC3", "RNA interference"]
)
@pytest.mark.parametrize(
    "metadata", [{"fluorescent": True}, {"contrast_method": "Fluorescence"}, {"illumination": "Epifluorescence"}]
)
def test_ambiguous_names_do_not_overrule_fluorescence(name: str, metadata: Any) -> None:
    assert describe_channel(name, **metadata).transmitted is False
    for clear in ("Phase", "TD", "Trans", "Ph2", "phase contrast 10x", "TL phase", "DIC N2", "trans light brightfield"):
        assert describe_channel(clear, **metadata).transmitted is True


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="real microscope files are not in the project")
def test_a_real_time_lapse() -> None:
    path = SAMPLES / "scratch-assay-labeled-10T-2Ch.tiff"
    with open_stack(path) as stack:
        assert_planes(stack, tifffile.imread(path).transpose(1, 0, 2, 3)[:, :, None])
        assert [channel.transmitted for channel in stack.info.channels] == [False, True, False, None]
        assert stack.info.pixel_size_um == (0.619, 0.619)


def test_a_page_that_is_not_read_is_named_and_not_the_number_of_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(STACK[0, 0, 0], photometric="minisblack", metadata=None)
        colours = np.zeros((3, 256), np.uint16)
        tiff.write(STACK[0, 0, 0].astype(np.uint8), photometric="palette", colormap=colours, metadata=None)
    assert "found pixels of photometric interpretation PALETTE" in refusal(path)

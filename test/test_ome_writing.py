"""Writing of planes: what is written is read back, by others too, and is whole or absent."""

import numpy as np
import pytest
import tifffile
from ome_types import from_tiff
from PIL import Image
from test_ome import PIXELS

from model.errors import UserError
from model.images import inspect, read_image, write_plane
from model.images.ome_writer import FALLBACK_PIXEL_SIZE_UM, FALLBACK_PROVENANCE


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (128, 128), (300, 257)])
@pytest.mark.parametrize("size", [(0.07, 0.065), None])
def test_what_is_written_is_read_back(tmp_path, shape, size):
    pixels = np.random.default_rng(1).integers(0, 65536, shape).astype(np.uint16)
    path = tmp_path / "new" / "a.tiff"
    provenance = {"checkpoint": 'pix2pix-bf <&> µ "quoted"', "trained on": "simulated cells", "odd": "{}\x00"}
    write_plane(path, pixels, channel="Mitochondria", pixel_size_um=size, provenance=provenance)
    plane = read_image(path)
    np.testing.assert_array_equal(plane.pixels, pixels)
    assert plane.info.pixel_size_um == size and plane.info.channel == "Mitochondria" and plane.info.modality is None
    expected = {**provenance, "odd": "{}\ufffd"}
    if size is None:
        expected |= dict([FALLBACK_PROVENANCE])
    assert inspect(path).provenance == expected
    assert [child.name for child in path.parent.iterdir()] == ["a.tiff"]


def test_the_file_is_as_the_platform_and_other_readers_want_it(tmp_path):
    path = tmp_path / "a.tiff"
    write_plane(path, PIXELS, channel="Nucleus", pixel_size_um=(0.2, 0.1))
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        assert len(tif.pages) == 1 and tif.is_ome and tif.series[0].axes == "YX"
        assert (page.tilelength, page.tilewidth) == (128, 128)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
        assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
        assert page.get_resolution("MICROMETER") == pytest.approx((10, 5))
        assert "DateTime" not in page.tags
    pixels = from_tiff(path).images[0].pixels
    assert (pixels.physical_size_x, pixels.physical_size_x_unit.value) == (0.1, "µm")
    assert (pixels.size_x, pixels.size_y, pixels.channels[0].name) == (131, 70, "Nucleus")
    with Image.open(path) as other_reader:  # libtiff
        np.testing.assert_array_equal(np.asarray(other_reader), PIXELS)
    assert inspect(path).provenance == {}


def test_an_unknown_pixel_size_stays_unknown(tmp_path):
    path = tmp_path / "a.tiff"
    write_plane(path, PIXELS, channel="Actin", pixel_size_um=None)
    with tifffile.TiffFile(path) as tif:
        assert tif.pages[0].get_resolution("MICROMETER") == pytest.approx((1 / FALLBACK_PIXEL_SIZE_UM,) * 2)
        assert "PhysicalSize" not in tif.ome_metadata
    assert read_image(path).info.pixel_size_um is None


def test_the_same_plane_gives_the_same_bytes(tmp_path):
    arguments = {"channel": "Tubulin", "pixel_size_um": None, "provenance": {"version": "1"}}
    for name in "ab":
        write_plane(tmp_path / name, PIXELS, **arguments)
    write_plane(tmp_path / "c", PIXELS ^ 1, **arguments)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    uuids = {tifffile.TiffFile(tmp_path / name).ome_metadata.split("urn:uuid:")[1][:36] for name in "abc"}
    assert len(uuids) == 2  # another content is another file to readers that go by UUID


@pytest.mark.parametrize("pixels", [PIXELS.astype(np.float32), PIXELS[None], PIXELS[:0]])
def test_only_planes_of_uint16_are_written(tmp_path, pixels):
    with pytest.raises(ValueError, match="uint16"):
        write_plane(tmp_path / "a.tiff", pixels, channel="Actin", pixel_size_um=None)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.tiff"
    write_plane(path, PIXELS, channel="Actin", pixel_size_um=None)
    before = path.read_bytes()

    def disk_full(file, *arguments, **options):
        file.write(b"II*\0")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", disk_full)
    with pytest.raises(UserError, match=r"a\.tiff.*no space left"):
        write_plane(path, PIXELS, channel="Actin", pixel_size_um=(1, 1))

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(tifffile, "imwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_plane(path, PIXELS, channel="Actin", pixel_size_um=(1, 1))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.tiff").mkdir()
    for path in (tmp_path / "file" / "a.tiff", tmp_path / "folder.tiff"):
        with pytest.raises(UserError, match="cannot be written"):
            write_plane(path, PIXELS, channel="Actin", pixel_size_um=None)
    assert sorted(child.name for child in tmp_path.iterdir()) == ["file", "folder.tiff"]


def test_provenance_of_foreign_files_is_empty_and_of_no_file_an_error(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS)
    assert inspect(tmp_path / "a.tif").provenance == {}
    with pytest.raises(UserError):
        inspect(tmp_path / "missing.tif")

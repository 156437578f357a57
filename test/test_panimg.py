"""The platform's real importer takes what comes out, whatever kind of image went in."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import panimg
import pytest
import SimpleITK
import tifffile
from panimg.image_builders.metaio_mhd_mha import image_builder_mhd
from panimg.image_builders.tiff import image_builder_tiff

from model.command_line import main
from model.images import write_plane
from model.labels import Organelle

PIXELS = np.random.default_rng(0).integers(0, 65536, (70, 131)).astype(np.uint16)


def imports(socket: Path, folder: Path) -> set[panimg.models.PanImg]:
    """What the platform makes of an output socket's folder."""
    folder.mkdir()
    builders = [image_builder_mhd, image_builder_tiff]
    return panimg.convert(
        input_directory=socket, output_directory=folder, builders=builders, post_processors=[]
    ).new_images


def tiff(**options: Any) -> Callable[[Path], None]:
    pixels = options.pop("pixels", PIXELS)
    return lambda path: tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})


def plane(pixels: np.ndarray = PIXELS, size: tuple[float, float] | None = (0.1, 0.1)) -> Callable[[Path], None]:
    return lambda path: write_plane(path, pixels, channel="BF", pixel_size_um=size)


def mha(compressed: bool) -> Callable[[Path], None]:
    return lambda path: SimpleITK.WriteImage(SimpleITK.GetImageFromArray(PIXELS), str(path), compressed)


VARIANTS: dict[str, Callable[[Path], None]] = {
    "ome_BF_.ome.tiff": plane(),
    "ome_PC_.ome.tiff": plane(),
    "without_pixel_size.tiff": plane(size=None),
    "unequal_pixel_size.tiff": plane(size=(0.1, 0.3)),
    "nanometre_pixels.tiff": plane(size=(1e-3, 1e-3)),
    "one_pixel.tiff": plane(PIXELS[:1, :1]),
    "one_row.tiff": plane(PIXELS[:1]),
    "tall.tiff": plane(np.ascontiguousarray(PIXELS.T)),
    "black.tiff": plane(np.zeros_like(PIXELS)),
    "saturated.tiff": plane(np.full_like(PIXELS, 65535)),
    "plain_BF_.tif": tiff(),
    "eight_bit.tif": tiff(pixels=(PIXELS // 257).astype(np.uint8)),
    "big_tiff.tif": tiff(bigtiff=True),
    "big_endian.tif": tiff(byteorder=">"),
    "tiled.tif": tiff(tile=(32, 48)),
    "strips.tif": tiff(rowsperstrip=7),
    "zlib.tif": tiff(compression="zlib"),
    "lzw.tif": tiff(compression="lzw"),
    "zstd.tif": tiff(compression="zstd"),
    "predictor.tif": tiff(compression="zlib", predictor=True),
    "imagej.tif": tiff(imagej=True, resolution=(10, 10), metadata={"unit": "um"}),
    "tczyx.ome.tif": tiff(pixels=PIXELS[None, None, None], ome=True, metadata={"axes": "TCZYX"}),
    "broken_xml.ome.tif": tiff(description="<OME", metadata=None),
    "raw.mha": mha(False),
    "compressed_DIC_.mha": mha(True),
}


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory, resources: Path) -> Path:
    """A folder of images of every variant, predicted in one batch."""
    folder = tmp_path_factory.mktemp("variants")
    (folder / "in").mkdir()
    for name, write in VARIANTS.items():
        write(folder / "in" / name)
    given = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--resources", str(resources)]
    assert main([*given, "--device", "cpu", "--overlap", "0", "--rotations", "1"]) == 0
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_the_importer_makes_exactly_one_image_a_socket(tmp_path: Path, predicted: Path, name: str) -> None:
    stem = name.removesuffix(".ome.tiff").removesuffix(".ome.tif").rsplit(".", 1)[0]
    for organelle in Organelle:
        written = predicted / "out/images" / f"{organelle}-fluorescence-ome-tiff" / f"{stem}.tiff"
        socket, imported = tmp_path / organelle, tmp_path / f"{organelle} imported"
        socket.mkdir()
        shutil.copy(written, socket)
        (image,) = imports(socket, imported)
        assert (image.height, image.width) == tifffile.imread(written).shape
        assert image.voxel_width_mm and image.voxel_height_mm


@pytest.mark.parametrize("size", [(0.2, 0.1), None])
def test_the_importer_reads_the_pixel_size(tmp_path: Path, size: tuple[float, float] | None) -> None:
    (socket := tmp_path / "socket").mkdir()
    write_plane(socket / "0b7e.tiff", PIXELS, channel="Nucleus", pixel_size_um=size)
    (image,) = imports(socket, tmp_path / "imported")
    y_um, x_um = size or (0.1, 0.1)
    assert image.voxel_width_mm == pytest.approx(x_um / 1000)
    assert image.voxel_height_mm == pytest.approx(y_um / 1000)

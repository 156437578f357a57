"""The platform's real importer takes what write_plane writes."""

import numpy as np
import pytest

from model.ome import write_plane

panimg = pytest.importorskip("panimg")


@pytest.mark.parametrize("size", [(0.2, 0.1), None])
def test_the_importer_makes_exactly_one_image_of_a_written_file(tmp_path, size):
    from panimg.image_builders.metaio_mhd_mha import image_builder_mhd
    from panimg.image_builders.tiff import image_builder_tiff

    (imported := tmp_path / "imported").mkdir()
    pixels = np.random.default_rng(0).integers(0, 65536, (150, 131)).astype(np.uint16)
    write_plane(
        tmp_path / "socket" / "0b7e.tiff",
        pixels,
        channel="Nucleus",
        pixel_size_um=size,
        provenance={"trained on": "simulated cells"},
    )
    result = panimg.convert(
        input_directory=tmp_path / "socket",
        output_directory=imported,
        builders=[image_builder_mhd, image_builder_tiff],
        post_processors=[],
    )
    (image,) = result.new_images
    assert (image.width, image.height) == (131, 150)
    y_um, x_um = size or (0.1, 0.1)
    assert image.voxel_width_mm == pytest.approx(x_um / 1000)
    assert image.voxel_height_mm == pytest.approx(y_um / 1000)

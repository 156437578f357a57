"""The challenge's file-name grammar."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.labels import Modality, Organelle
from model.naming import (
    IMAGE_SUFFIXES,
    InputName,
    TargetName,
    is_image,
    modality_token,
    near_miss,
    parse,
    prediction_filename,
    stem,
)

names = st.builds(InputName, st.integers(0, 10**6), st.sampled_from(Modality), st.integers(0, 999)) | st.builds(
    TargetName, st.integers(0, 10**6), st.sampled_from(Organelle)
)


@settings(max_examples=50, deadline=None)
@given(names, st.sampled_from(IMAGE_SUFFIXES), st.sampled_from(["", "Study_1/", "C:\\my_BF_data\\"]))
def test_a_name_is_parsed_back_whatever_suffix_and_folder(name, suffix, folder):
    assert parse(folder + name.filename) == name
    assert parse(folder + stem(name.filename) + suffix) == name


def test_names_are_spelled_as_in_the_challenge():
    assert InputName(1, Modality.BF, 0).filename == "image_1_BF_z0.ome.tiff"
    assert TargetName(7, Organelle.NUCLEUS).filename == "image_7_Nucleus.ome.tiff"


@pytest.mark.parametrize(
    "filename",
    [
        "image_1_BF_z.ome.tiff",
        "image_1_XX_z0.ome.tiff",
        "image_1_Nuclei.ome.tiff",
        "image_1_Nucleuſ.ome.tiff",
        "image_-1_BF_z0.ome.tiff",
        "image_1_BF_z0.ome.tiff.txt",
        "image_1_BF_z0.png",
        "image_1_BF_z0",
        "image_١_BF_z0.tiff",
        ".image_1_BF_z0.ome.tiff",
        "copy_image_1_BF_z0.ome.tiff",
        "focus.csv",
        "",
    ],
)
def test_other_names_are_none_of_the_challenge(filename):
    assert parse(filename) is None


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("image_01_BF_z0.ome.tiff", InputName(1, Modality.BF, 0)),
        ("image_007_DIC_z012.tif", InputName(7, Modality.DIC, 12)),
        ("image_1_bf_z3.ome.tiff", InputName(1, Modality.BF, 3)),
        ("Image_1_Pc_Z3.ome.tiff", InputName(1, Modality.PC, 3)),
        ("image_1_BF.ome.tiff", InputName(1, Modality.BF, 0)),
        ("image_1_nucleus.ome.tiff", TargetName(1, Organelle.NUCLEUS)),
        ("IMAGE_01_TUBULIN.TIFF", TargetName(1, Organelle.TUBULIN)),
        ("image_1_mitoChondria.mha", TargetName(1, Organelle.MITOCHONDRIA)),
    ],
)
def test_variants_that_can_only_mean_the_same_are_accepted(filename, name):
    assert parse(filename) == name and not near_miss(filename)
    assert modality_token(filename) == getattr(name, "modality", None)


@settings(max_examples=50, deadline=None)
@given(names, st.integers(0, 3), st.randoms(use_true_random=False))
def test_zeros_and_case_do_not_matter(name, zeros, random):
    spelled = name.filename.replace("image_", "image_" + "0" * zeros).replace("_z", "_z" + "0" * zeros)
    spelled = "".join(random.choice((letter.lower(), letter.upper())) for letter in spelled)
    assert parse(spelled) == name


@pytest.mark.parametrize(
    ("filename", "near"),
    [
        ("image_1_Nuclei.ome.tiff", True),
        ("image_1.ome.tiff", True),
        ("image_BF_z0.tif", True),
        ("Study_1/image-1_BF_z0.ome.tiff", True),
        ("IMAGE_1_Membrane.tif", True),
        ("image 3 DIC.mha", True),
        ("image_1_BF_z0.ome.tiff", False),
        ("image_01_nucleus.tif", False),
        ("image_1_BF_z0.png", False),
        ("image_1_Nucleus.czi", True),
        ("plate/image_1_BF_z0.nd2", True),
        ("images.tif", False),
        ("copy_image_1_BF_z0.tif", False),
        (".image_1.tif", False),
        ("focus.csv", False),
    ],
)
def test_near_misses_are_told_from_other_images(filename, near):
    assert near_miss(filename) is near


@pytest.mark.parametrize(
    ("filename", "modality"),
    [
        ("image_1_BF_z0.ome.tiff", Modality.BF),
        ("cells_DIC_20x.tif", Modality.DIC),
        ("x_PC_.mha", Modality.PC),
        ("my_BF_data/plane.tiff", None),
        ("my_BF_data\\image_DIC_z0.tiff", Modality.DIC),
        ("a_BF_DIC_z0.tiff", None),
        ("a_BF_x_BF_y.tiff", Modality.BF),
        ("BF.tiff", None),
        ("ABFC_z0.tiff", None),
        ("a_bf_z0.tiff", None),
    ],
)
def test_the_modality_is_a_token_of_the_base_name_and_never_of_the_path(filename, modality):
    assert modality_token(filename) is modality


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("image_1_BF_z0.ome.tiff", "image_1_BF_z0.tiff"),
        ("0b7e1f0e.tif", "0b7e1f0e.tiff"),
        ("A.OME.TIF", "A.tiff"),
        ("a.mha", "a.tiff"),
        ("a.b.tiff", "a.b.tiff"),
        ("folder/a.tiff", "a.tiff"),
    ],
)
def test_a_prediction_is_named_as_its_input(filename, expected):
    assert prediction_filename(filename) == expected


def test_images_are_told_by_their_suffix():
    assert all(is_image("a" + suffix) and is_image("A" + suffix.upper()) for suffix in IMAGE_SUFFIXES)
    assert not any(is_image(name) for name in ("a.png", "tiff", "._a.tiff", ".tiff", "a.tiff.part"))
